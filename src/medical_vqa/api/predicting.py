"""Ask a model every question of a split, and probe what its answers depend on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from medical_vqa.api.arguments import (
    StrPath,
    as_count,
    as_selection,
    as_split,
    optional_output,
)
from medical_vqa.api.calls import public
from medical_vqa.api.models import Model, loaded_model
from medical_vqa.errors import ConfigError

if TYPE_CHECKING:
    from medical_vqa.pipelines.predict import Predictions
    from medical_vqa.pipelines.probe import WrittenProbe


@public
def predict(
    model: StrPath | Model | None = None,
    *,
    split: str = "validation",
    out: StrPath | None = None,
    dataset: StrPath | None = None,
    root: StrPath | None = None,
    where: Mapping[str, str] | None = None,
    shuffle_images: bool = False,
    guards: bool = False,
    image_dependence: bool | None = None,
    device: str = "auto",
    base_url: str | None = None,
    api_key: str | None = None,
    api_key_env: str | None = None,
    concurrency: int | None = None,
    logprobs: bool = True,
    allow_http: bool = False,
    progress: bool = True,
) -> Predictions:
    """Answer every question of a split; the same call resumes an interrupted one.

    Args:
        model: A loaded model, what `train` returned, or anything that `load` loads; by default the newest finished run.
        split: ``train``, ``validation`` (``dev``, ``val``) or ``test``.
        out: File to write; by default ``predictions-SPLIT.jsonl`` in the run folder.
        dataset: A prepared dataset: its name, its folder, or what `prepare` returned; by default the one that the
            model was trained on.
        root: Folder of prepared datasets, for a name.
        where: Facts that rows must have: ``{"language": "en"}``; needs `dataset`.
        shuffle_images: Whether to ask every question about another row's image: a baseline that `score` then shows.
        guards: Whether every prediction also carries what the guards decide about it: whether the answer is withheld,
            why, and where it comes from. The answers stay the model's own, so that no score changes.
        image_dependence: As in `load`, of which this and the following seven are options; needs `guards`.
        device: As in `load`.
        base_url: As in `load`.
        api_key: As in `load`.
        api_key_env: As in `load`.
        concurrency: As in `load`.
        logprobs: As in `load`.
        allow_http: As in `load`.
        progress: Whether to show a progress bar on a terminal.

    Returns:
        The predictions file, its split, and what a remote model spent.

    Raises:
        MedicalVqaError: There is no such model or split, the dataset is not prepared, or the endpoint cannot be
            reached.

    Examples:
        >>> predictions = mv.predict("runs/demo", split="dev")
        >>> predictions.path
        PosixPath('runs/demo/predictions-validation.jsonl')
    """
    from medical_vqa.pipelines.predict import predict as stage
    from medical_vqa.pipelines.runs import newest_run
    from medical_vqa.progress import counting

    if image_dependence is not None and not guards:
        raise ConfigError(
            "--image-dependence (image_dependence=) is what the guards measure, and they are off; add --guards "
            "(guards=True) or leave it out"
        )
    model = loaded_model(
        newest_run() if model is None else model,
        device=device,
        base_url=base_url,
        api_key=api_key,
        api_key_env=api_key_env,
        concurrency=concurrency,
        logprobs=logprobs,
        allow_http=allow_http,
        image_dependence=image_dependence,
    )
    with counting(f"answering with {model.name}", "questions", enabled=progress) as count:
        return stage(
            model._loaded,
            split=as_split(split),
            out=optional_output(out, "out"),
            selection=as_selection(dataset, root, where),
            shuffle_images=shuffle_images,
            guards=guards,
            progress=count,
        )


@public
def probe(
    model: StrPath | Model | None = None,
    *,
    split: str = "validation",
    out: StrPath | None = None,
    dataset: StrPath | None = None,
    root: StrPath | None = None,
    where: Mapping[str, str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str = "auto",
    base_url: str | None = None,
    api_key: str | None = None,
    api_key_env: str | None = None,
    concurrency: int | None = None,
    allow_http: bool = False,
    progress: bool = True,
) -> WrittenProbe:
    """Measure whether a model's answers depend on the picture and agree with each other.

    Every question is asked about its own picture, a black one, noise, three others of its type, one of another
    modality and the mirrored one; with its opposite; and in other words. The same call resumes an interrupted probe.

    Args:
        model: A loaded model, what `train` returned, or anything that `load` loads; by default the newest finished run.
        split: ``train``, ``validation`` (``dev``, ``val``) or ``test``.
        out: JSON file to write; the page and the answers are next to it. By default ``probe-SPLIT.json`` in the run
            folder, where `report` finds it.
        dataset: A prepared dataset, as in `predict`; by default the one that the model was trained on.
        root: Folder of prepared datasets, for a name.
        where: Facts that rows must have; needs `dataset`.
        limit: Ask about so many images, drawn at random; all by default. A larger limit adds to a smaller one.
        seed: Seed of the replaced pictures and of the drawn images.
        device: As in `load`, of which this and the following five are options.
        base_url: As in `load`.
        api_key: As in `load`.
        api_key_env: As in `load`.
        concurrency: As in `load`.
        allow_http: As in `load`.
        progress: Whether to show a progress bar on a terminal.

    Returns:
        The numbers and the files that hold them; ``print(probe)`` shows the result in one sentence.

    Raises:
        MedicalVqaError: There is no such model or split, the dataset is not prepared, or the endpoint cannot be
            reached.

    Examples:
        >>> print(mv.probe("runs/demo", limit=20))
        Uses the image for 61 % [57, 65] of open and 22 % [15, 30] of finding questions.
    """
    from medical_vqa.pipelines.probe import probe as stage
    from medical_vqa.pipelines.runs import newest_run
    from medical_vqa.progress import counting

    model = loaded_model(
        newest_run() if model is None else model,
        device=device,
        base_url=base_url,
        api_key=api_key,
        api_key_env=api_key_env,
        concurrency=concurrency,
        allow_http=allow_http,
    )
    with counting(f"probing {model.name}", "answers", enabled=progress) as count:
        return stage(
            model._loaded,
            split=as_split(split),
            out=optional_output(out, "out"),
            selection=as_selection(dataset, root, where),
            limit=None if limit is None else as_count(limit, "limit"),
            seed=seed,
            progress=count,
        )

"""Everything that is known about a model's answers on one dataset, from one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa.api.arguments import RISK, StrPath, as_count, as_risk, as_split
from medical_vqa.api.calls import public
from medical_vqa.api.models import Model, loaded_model
from medical_vqa.api.predicting import predict
from medical_vqa.api.predicting import probe as ask_probe
from medical_vqa.api.scoring import score
from medical_vqa.errors import ConfigError
from medical_vqa.io import as_path

if TYPE_CHECKING:
    from medical_vqa.pipelines.predict import Predictions
    from medical_vqa.pipelines.probe import WrittenProbe
    from medical_vqa.pipelines.score import Scores


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `evaluate` wrote."""

    predictions: Predictions
    """The answers."""
    shuffled: Predictions | None
    """The answers to the same questions about other images, which are a baseline; None where they were left out."""
    probe: WrittenProbe | None
    """Whether the answers depend on the picture and agree with each other; None where it was left out."""
    scores: Scores
    """Scores by all published protocols, with baselines."""
    results: Path
    """The results as JSON."""
    page: Path
    """The report."""

    @property
    def usage(self) -> dict[str, int]:
        """Requests and tokens of a remote model, all runs together; empty for a local model."""
        runs = (self.predictions, self.shuffled, self.probe)
        spent = [run.usage.to_json() for run in runs if run is not None and run.usage]
        return {name: sum(usage[name] for usage in spent) for name in (spent[0] if spent else ())}

    @property
    def cost(self) -> float | None:
        """What a remote model cost, all runs together; None where ``models.yaml`` has no price."""
        if self.predictions.price is None or not self.usage:
            return None
        price_in, price_out = self.predictions.price
        return (self.usage["prompt_tokens"] * price_in + self.usage["completion_tokens"] * price_out) / 1e6


@public
def evaluate(
    model: StrPath | Model,
    *,
    dataset: StrPath | None = None,
    split: str = "validation",
    out: StrPath | None = None,
    root: StrPath | None = None,
    where: Mapping[str, str] | None = None,
    shuffle_images: bool = True,
    probe: bool = True,
    probe_images: int | None = None,
    risk: float = RISK,
    device: str = "auto",
    base_url: str | None = None,
    api_key: str | None = None,
    api_key_env: str | None = None,
    concurrency: int | None = None,
    progress: bool = True,
) -> Evaluation:
    """Answer a split, also about other images, probe the model, score by every protocol, and write a report.

    The same call resumes an interrupted one: no question is asked again whose answer is in the file.

    Args:
        model: A loaded model, or anything that `load` loads.
        dataset: A prepared dataset, as in `predict`; by default the one that the model was trained on.
        split: ``train``, ``validation`` (``dev``, ``val``) or ``test``.
        out: Folder to write into; by default the model's run folder.
        root: Folder of prepared datasets, for a name.
        where: Facts that rows must have.
        shuffle_images: Whether to ask every question about another row's image too, as a baseline; doubles the cost.
        probe: Whether to probe the model, as `probe` does, which asks every question about ten times more; the report
            shows the result.
        probe_images: Probe so many images, drawn at random; all by default.
        risk: Tolerated fraction of wrong answers, from which the abstention threshold is computed.
        device: As in `load`, of which this and the following four are options.
        base_url: As in `load`.
        api_key: As in `load`.
        api_key_env: As in `load`.
        concurrency: As in `load`.
        progress: Whether to show a progress bar on a terminal.

    Returns:
        The answers, the probe, the scores and the report.

    Raises:
        MedicalVqaError: As in `predict` and `score`.

    Examples:
        >>> evaluation = mv.evaluate("ollama:medgemma", dataset="slake", split="test")
        >>> evaluation.page
        PosixPath('runs/medgemma/report-test.html')
    """
    from medical_vqa.pipelines.report import report as write_report
    from medical_vqa.pipelines.runs import output_path

    as_risk(risk)
    if probe_images is not None and (not probe or as_count(probe_images, "probe_images") < 1):
        raise ConfigError(
            f"--probe-images (probe_images=) is {probe_images}: "
            + ("ask about at least one image" if probe else "leave it out, since nothing is probed")
        )
    model = loaded_model(
        model,
        device=device,
        base_url=base_url,
        api_key=api_key,
        api_key_env=api_key_env,
        concurrency=concurrency,
    )
    folder = None if out is None else as_path(out, "out")

    def answer(word: str, *, other_images: bool) -> Predictions:
        path = None if folder is None else folder / f"{word}-{as_split(split)}.jsonl"
        return predict(
            model,
            split=split,
            out=path,
            dataset=dataset,
            root=root,
            where=where,
            shuffle_images=other_images,
            progress=progress,
        )

    predictions = answer("predictions", other_images=False)
    shuffled = answer("shuffled", other_images=True) if shuffle_images else None
    probed = None
    if probe:
        probed = ask_probe(
            model,
            split=split,
            out=predictions.path.with_name(f"probe-{predictions.split}.json"),
            dataset=dataset,
            root=root,
            where=where,
            limit=probe_images,
            progress=progress,
        )
    scores = score(predictions, protocol="all", risk=risk)
    results = scores.write()
    page = write_report(scores, output_path(predictions.path, "report", ".html"))
    return Evaluation(predictions, shuffled, probed, scores, results, page)

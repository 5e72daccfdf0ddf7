"""Predict, probe, score, report, compare and calibrate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medical_vqa.api.arguments import (
    RISK,
    StrPath,
    as_columns,
    as_fact_groups,
    as_files,
    as_predictions,
    as_protocols,
    as_risk,
    as_selection,
    as_split,
    optional_facts,
    optional_output,
    optional_split,
)
from medical_vqa.api.models import Model, load

if TYPE_CHECKING:
    from medical_vqa.evaluation.reporting.referee import Referee
    from medical_vqa.evaluation.statistics.comparison import Comparison
    from medical_vqa.pipelines.predict import Predictions
    from medical_vqa.pipelines.probe import WrittenProbe
    from medical_vqa.pipelines.score import Scores
    from medical_vqa.schema.results import Calibration


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
        image_dependence: As in `load`; ignored for a loaded model, as the following seven.
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

    if not isinstance(model, Model):
        model = load(
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
        device: As in `load`; ignored for a loaded model, as the following five.
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

    if not isinstance(model, Model):
        model = load(
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
            limit=limit,
            seed=seed,
            progress=count,
        )


def score(
    predictions: StrPath | None = None,
    *,
    split: str | None = None,
    protocol: str | Sequence[str] = (),
    columns: str | Mapping[str, str] | None = None,
    by: Sequence[str | Sequence[str]] = (),
    risk: float = RISK,
    details: bool = True,
    dataset: StrPath | None = None,
    root: StrPath | None = None,
    where: Mapping[str, str] | None = None,
) -> Scores:
    """Score predictions: EM and F1 with intervals, next to the question-only baseline.

    Args:
        predictions: What `predict` returned, or a predictions file; by default the newest one under ``runs/``. A CSV,
            JSON, JSONL, Excel or parquet file of another program is read by `columns`, or by guessed ones.
        split: Split of the rows that were asked, for a file without a card.
        protocol: Published rules to score by in addition: one name, several, or ``"all"``.
        columns: Columns of another program's file: ``{"id": "qid", "answer": "text"}``.
        by: Breakdowns in addition to those of every fact: ``["modality,organ"]``.
        risk: Tolerated fraction of wrong answers, from which the abstention threshold is computed.
        details: Whether to compute more than EM and F1: breakdowns by every fact, further metrics, calibration and
            consistency.
        dataset: Prepared dataset of the rows, for a file without a card: its name, its folder, or what `prepare`
            returned.
        root: Folder of prepared datasets, for a name.
        where: Facts that rows must have, of `dataset` or of the rows that the file's card names.

    Returns:
        The scores; ``print(scores)`` shows one line, ``scores.write()`` writes ``results-SPLIT.json``.

    Raises:
        MedicalVqaError: The file is missing or damaged, or answers none of the rows.

    Examples:
        >>> scores = mv.score("runs/demo/predictions-validation.jsonl")
        >>> scores.em
        Estimate(value=0.43, low=0.38, high=0.48)
    """
    from medical_vqa.pipelines.runs import newest_predictions
    from medical_vqa.pipelines.score import score as stage

    return stage(
        newest_predictions() if predictions is None else as_predictions(predictions),
        selection=as_selection(dataset, root, where, has_card=True),
        split=optional_split(split),
        where=optional_facts(where),
        protocols=as_protocols(protocol),
        columns=as_columns(columns),
        breakdowns=as_fact_groups(by),
        risk=as_risk(risk),
        details=details,
    )


@dataclass(frozen=True, slots=True)
class Report:
    """A written report: its page, and the scores that the page shows."""

    page: Path
    """The HTML page."""
    scores: tuple[Scores, ...]
    """The scores that it shows, one per predictions file."""
    results: Path | None
    """The results as JSON, next to the predictions; None for a comparison of several files."""

    def __fspath__(self) -> str:
        return str(self.page)


def report(
    predictions: StrPath | Sequence[StrPath] | None = None,
    out: StrPath | None = None,
    *,
    split: str | None = None,
    columns: str | Mapping[str, str] | None = None,
    by: Sequence[str | Sequence[str]] = (),
    risk: float = RISK,
    dataset: StrPath | None = None,
    root: StrPath | None = None,
    where: Mapping[str, str] | None = None,
) -> Report:
    """Write one HTML page with scores, intervals, breakdowns and a gallery of answers.

    Args:
        predictions: What `predict` returned, or a predictions file, by default the newest one under ``runs/``; several
            are compared in one page.
        out: HTML file to write; by default next to the predictions.
        split: As in `score`.
        columns: As in `score`.
        by: As in `score`.
        risk: As in `score`.
        dataset: As in `score`.
        root: As in `score`.
        where: As in `score`.

    Returns:
        The page, and the scores that it shows.

    Raises:
        MedicalVqaError: As in `score`, or the files answer different rows.

    Examples:
        >>> mv.report("runs/demo/predictions-validation.jsonl", "report.html").page
        PosixPath('report.html')
    """
    from medical_vqa.pipelines import report as stage
    from medical_vqa.pipelines.inputs import answered_rows_of_all
    from medical_vqa.pipelines.runs import newest_predictions, output_path
    from medical_vqa.pipelines.score import score as score_file

    files = [newest_predictions()] if predictions is None else as_files(predictions)
    all_rows = answered_rows_of_all(
        files, as_selection(dataset, root, where, has_card=True), optional_split(split), optional_facts(where)
    )
    options: dict[str, Any] = {"columns": as_columns(columns), "breakdowns": as_fact_groups(by), "risk": as_risk(risk)}
    scores = tuple(
        score_file(file, rows=rows, protocols=as_protocols("all"), **options)
        for file, rows in zip(files, all_rows, strict=True)
    )
    page = optional_output(out, "out")
    if len(files) > 1:
        return Report(
            stage.comparison_page(
                scores, page or output_path(files[0], "comparison", ".html").with_name("comparison.html")
            ),
            scores,
            None,
        )
    results = scores[0].write()
    return Report(stage.report(scores[0], page or output_path(files[0], "report", ".html")), scores, results)


def compare(
    predictions: Sequence[StrPath],
    *,
    split: str | None = None,
    columns: str | Mapping[str, str] | None = None,
    dataset: StrPath | None = None,
    root: StrPath | None = None,
    where: Mapping[str, str] | None = None,
) -> list[Comparison]:
    """Compare predictions of the same rows, every two of them, under EM and F1.

    Args:
        predictions: Two or more predictions files, or what `predict` returned.
        split: As in `score`.
        columns: As in `score`.
        dataset: As in `score`.
        root: As in `score`.
        where: As in `score`.

    Returns:
        One comparison per pair and metric: scores, difference with its interval, exact and permutation tests.

    Raises:
        MedicalVqaError: As in `score`, or the files answer different rows.

    Examples:
        >>> [(pair.metric, pair.difference.value) for pair in mv.compare(["a.jsonl", "b.jsonl"])]
        [('em', 0.02), ('f1', 0.03)]
    """
    from medical_vqa.pipelines.compare import compare as stage

    return stage(
        as_files(predictions),
        selection=as_selection(dataset, root, where, has_card=True),
        split=optional_split(split),
        where=optional_facts(where),
        columns=as_columns(columns),
    )


@dataclass(frozen=True, slots=True)
class Examination:
    """A claimed score compared with every protocol. ``str(examination)`` is the comparison as a table."""

    referee: Referee
    """The claim with every number that the predictions give."""
    scores: Scores
    """The scores it rests on."""
    page: Path | None
    """The HTML page; None if none was requested."""

    @property
    def reproduced_by(self) -> list[str]:
        """The numbers that equal the claim, as ``PROTOCOL (NUMBER)``."""
        return [f"{candidate.protocol} ({candidate.label})" for candidate in self.referee.reproduced_by]

    def __str__(self) -> str:
        from medical_vqa.evaluation.reporting.referee import referee_text

        return referee_text(self.referee)


def referee(
    predictions: StrPath,
    claim: str | float,
    *,
    page: StrPath | None = None,
    split: str | None = None,
    columns: str | Mapping[str, str] | None = None,
    dataset: StrPath | None = None,
    root: StrPath | None = None,
    where: Mapping[str, str] | None = None,
) -> Examination:
    """Examine a claimed score: which published rule gives it from these predictions, and which cannot.

    Args:
        predictions: What `predict` returned, or a predictions file, also of another program.
        claim: The claimed score in per cent, with the decimals it was published with: ``"84.9"``.
        page: HTML page to write.
        split: As in `score`.
        columns: As in `score`.
        dataset: As in `score`.
        root: As in `score`.
        where: As in `score`.

    Returns:
        The comparison with every protocol, the score without leaked rows, baseline, intervals and power.

    Raises:
        MedicalVqaError: As in `score`, or the claim is no per cent.

    Examples:
        >>> mv.referee("runs/demo/predictions-validation.jsonl", "43.2").reproduced_by
        ['squad_v2 (EM)']
    """
    from medical_vqa.pipelines.referee import referee as stage
    from medical_vqa.pipelines.referee import referee_page

    result, scores = stage(
        as_predictions(predictions),
        str(claim),
        selection=as_selection(dataset, root, where, has_card=True),
        split=optional_split(split),
        where=optional_facts(where),
        columns=as_columns(columns),
    )
    path = optional_output(page, "page")
    return Examination(result, scores, None if path is None else referee_page(result, scores, path))


def calibrate(predictions: StrPath | None = None, *, risk: float = RISK) -> Calibration:
    """Fit temperature and abstention threshold on validation predictions, and keep both in the model's bundle.

    Args:
        predictions: Validation predictions: what `predict` returned, or a file; by default the newest under ``runs/``.
        risk: Tolerated fraction of wrong answers among those that the model then gives.

    Returns:
        The calibration; ``ask`` and reports on other splits use it from now on.

    Raises:
        MedicalVqaError: The predictions are of another split or have no confidence, or their bundle is gone.

    Examples:
        >>> mv.calibrate("runs/demo/predictions-validation.jsonl", risk=0.2).temperature
        1.31
    """
    from medical_vqa.pipelines.calibrate import calibrate as stage
    from medical_vqa.pipelines.runs import newest_predictions

    default = "predictions-validation.jsonl"
    return stage(
        newest_predictions(default) if predictions is None else as_predictions(predictions), risk=as_risk(risk)
    )

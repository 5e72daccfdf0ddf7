"""Score predictions, report them as a page, and compare those of several models."""

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
    optional_facts,
    optional_output,
    optional_split,
)
from medical_vqa.api.calls import public
from medical_vqa.errors import ConfigError

if TYPE_CHECKING:
    from medical_vqa.evaluation.statistics.comparison import Comparison
    from medical_vqa.pipelines.score import Scores


@public
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

    @property
    def notes(self) -> list[str]:
        """Sentences on the files: columns that were guessed, rows that are not scored, answers to check."""
        from medical_vqa.pipelines.report import notes_of

        return notes_of(self.scores)

    def __fspath__(self) -> str:
        return str(self.page)


@public
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

    page = optional_output(out, "out")
    files = [newest_predictions()] if predictions is None else as_files(predictions)
    if len(files) > 1 and (by or risk != RISK):
        raise ConfigError("by and risk belong to the report of one file, which has breakdowns; leave them out")
    all_rows = answered_rows_of_all(
        files, as_selection(dataset, root, where, has_card=True), optional_split(split), optional_facts(where)
    )
    options: dict[str, Any] = {"columns": as_columns(columns), "breakdowns": as_fact_groups(by), "risk": as_risk(risk)}
    scores = tuple(
        score_file(file, rows=rows, protocols=as_protocols("all"), **options)
        for file, rows in zip(files, all_rows, strict=True)
    )
    if len(files) > 1:
        return Report(
            stage.comparison_page(
                scores, page or output_path(files[0], "comparison", ".html").with_name("comparison.html")
            ),
            scores,
            None,
        )
    written = stage.report(scores[0], page or output_path(files[0], "report", ".html"))
    return Report(written, scores, scores[0].write())


@public
def compare(
    *predictions: StrPath | Sequence[StrPath],
    split: str | None = None,
    columns: str | Mapping[str, str] | None = None,
    dataset: StrPath | None = None,
    root: StrPath | None = None,
    where: Mapping[str, str] | None = None,
) -> list[Comparison]:
    """Compare predictions of the same rows, every two of them, under EM and F1.

    Args:
        predictions: Two or more predictions files, or what `predict` returned: one by one, or as one list.
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
        >>> [(pair.metric, pair.difference.value) for pair in mv.compare("a.jsonl", "b.jsonl")]
        [('em', 0.02), ('f1', 0.03)]
    """
    from medical_vqa.pipelines.compare import compare as stage

    return stage(
        as_files(*predictions),
        selection=as_selection(dataset, root, where, has_card=True),
        split=optional_split(split),
        where=optional_facts(where),
        columns=as_columns(columns),
    )

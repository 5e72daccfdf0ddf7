"""Score a predictions file next to its baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.errors import ConfigError
from medical_vqa.evaluation.imports.tables import ImportedAnswers, import_answers
from medical_vqa.evaluation.joining import AnsweredQuestions
from medical_vqa.evaluation.protocols.base import Context
from medical_vqa.evaluation.scoring import ScoringSettings, find_metric, score_answers
from medical_vqa.evaluation.statistics.breakdown import default_crossing, default_facts
from medical_vqa.evaluation.statistics.calibration import DEFAULT_RISK
from medical_vqa.io import without_garbage_collection
from medical_vqa.models.base import Query
from medical_vqa.models.baselines import Majority, QuestionLookup
from medical_vqa.models.queries import NO_PICTURE
from medical_vqa.pipelines.inputs import (
    SHUFFLED,
    AnsweredRows,
    answered_rows,
    is_own_file,
    leaked_rows,
    of_another_preparation,
    shuffled_baseline,
)
from medical_vqa.pipelines.runs import (
    RESULTS,
    output_path,
    require_other_file,
    require_outside_dataset,
    require_replaceable,
)
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.example_table import ExampleTable
from medical_vqa.schema.prediction_card import card_path
from medical_vqa.schema.prediction_table import PredictionTable
from medical_vqa.schema.records import Example, Prediction, Split
from medical_vqa.schema.result_files import write_results
from medical_vqa.schema.results import DatasetRef, Facts, Results
from medical_vqa.schema.selection import Selection
from medical_vqa.schema.table_files import read_prediction_table
from medical_vqa.text import did_you_mean


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score in [0, 1] with its confidence interval, clustered by image or patient."""

    value: float | None
    """The score; None if no row could be scored."""
    low: float | None
    """Lower bound; None without an interval."""
    high: float | None
    """Upper bound; None without an interval."""


@dataclass(frozen=True, slots=True)
class Scores:
    """A scored predictions file: the results, and the rows, answers and baselines that they come from.

    ``str(scores)`` is the result in one line, with intervals, number of questions, baseline and protocol.
    """

    file: Path
    """The predictions file."""
    rows: AnsweredRows
    """Dataset, selection and split of the rows, and the file's card."""
    answered: AnsweredQuestions
    """The rows with the model's answers."""
    baselines: Mapping[str, Sequence[Prediction]]
    """Baseline name -> its answers to the same rows."""
    results: Results
    """The numbers."""
    columns: Mapping[str, str] | None = None
    """Columns of another program's file that hold the answers."""
    by: Sequence[Facts] = ()
    """Breakdowns that were requested in addition to the default ones."""
    risk: float = DEFAULT_RISK
    """Tolerated fraction of wrong answers that was requested."""
    guess: str = ""
    """Sentence on the columns that were guessed from their names; empty where none were."""
    interchangeable: frozenset[str] = frozenset()
    """Ids of rows whose answers may be about each other's image, which no comparison by question can use."""

    def __repr__(self) -> str:
        return f"<medical_vqa.Scores {str(self)!r}, of {str(self.file)!r}>"

    @property
    def paired(self) -> AnsweredQuestions:
        """The answered questions that can be compared with another model's, one by one."""
        if not self.interchangeable:
            return self.answered
        predictions = [answer for answer in self.answered.predictions if answer.id not in self.interchangeable]
        return self.rows.joined(predictions)

    @property
    def row_options(self) -> list[str]:
        """Options of the command line that select the rows and the columns which were scored."""
        selection, split, card = self.rows.data.selection, self.rows.split, self.rows.card
        if card is not None and (card.selection, card.split) == (selection, split):
            return []
        options = ["--dataset", selection.dataset, "--root", str(selection.root), "--split", split]
        for fact, value in selection.where.items():
            options += ["--where", f"{fact}={value}"]
        if self.columns:
            options += ["--map", ",".join(f"{name}={column}" for name, column in self.columns.items())]
        return options

    @property
    def em(self) -> Estimate:
        """Exact match under SQuAD v2's rule."""
        return self.metric("em")

    @property
    def f1(self) -> Estimate:
        """Token F1 under SQuAD v2's rule."""
        return self.metric("f1")

    def metric(self, name: str) -> Estimate:
        """A metric of the results by its name; raises `ConfigError` for an unknown one."""
        metrics = {metric.name: metric for metric in (*self.results.metrics, *self.results.additional_metrics)}
        if name not in metrics:
            raise ConfigError(f"unknown metric {name!r}; {did_you_mean(name, metrics)}")
        score = metrics[name].score
        return Estimate(score.value, score.interval.low, score.interval.high)

    def breakdowns(self, metric: str, facts: Sequence[Facts]) -> list[str]:
        """Tables of a metric by facts, for a terminal.

        Args:
            metric: Name of a metric: ``em``, ``laterality`` ..., or ``PROTOCOL.METRIC`` such as ``helm.bleu1``.
            facts: Facts to break down by; those of a tuple are crossed.

        Raises:
            ConfigError: The metric is unknown.
            DataError: A fact is unknown, or the metric applies to no row.
        """
        from medical_vqa.evaluation.reporting.breakdown_table import breakdown_tables

        context = Context(self.rows.data.baseline_rows(), self.answered.scored)
        return breakdown_tables(find_metric(metric, context), facts, self.answered, self.baselines)

    @property
    def notes(self) -> list[str]:
        """Sentences on the file: columns that were guessed, rows that are not scored, answers to check."""
        from medical_vqa.evaluation.reporting.summary import notes

        guess = [self.guess] if self.guess else []
        return [*guess, *notes(self.results.excluded, self.results.warnings)]

    def to_dict(self) -> dict[str, Any]:
        """The results as JSON values, in the layout of ``results.schema.json``."""
        return self.results.model_dump(mode="json")

    def write(self, path: Path | None = None) -> Path:
        """Write the results as JSON; returns the path.

        By default next to a predictions file that has a card, as in a run folder, else in the current folder.
        """
        path = path or output_path(self.file, "results", ".json")
        require_other_file(path, (self.file, card_path(self.file)))
        require_outside_dataset(path, self.rows.data.dataset.folder)
        require_replaceable(path, RESULTS)
        write_results(path, self.results)
        return path

    def __str__(self) -> str:
        from medical_vqa.evaluation.reporting.summary import headline

        return headline(self.results)


@without_garbage_collection()
def score(
    predictions: Path,
    *,
    selection: Selection | None = None,
    split: Split | None = None,
    where: Mapping[str, str] | None = None,
    rows: AnsweredRows | None = None,
    protocols: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    breakdowns: Sequence[Facts] = (),
    risk: float = DEFAULT_RISK,
    details: bool = True,
) -> Scores:
    """Score a predictions file under SQuAD v2's rule, next to the baselines counted on the training rows.

    Args:
        predictions: The predictions file.
        selection: Rows that a file without a card answers.
        split: Split of these rows.
        where: Facts that the rows of the file's card must have in addition.
        rows: The rows, if they are open already, in place of the three.
        protocols: Published rules to score by in addition.
        columns: Columns of another program's file that hold the answers (`evaluation.imports`).
        breakdowns: Facts to break the scores down by; those of a tuple are crossed.
        risk: Tolerated fraction of wrong answers when the model may abstain.
        details: Whether to compute what a report shows: breakdowns by every fact, further metrics, calibration and
            consistency.
    """
    own = is_own_file(predictions, columns)
    answers: Sequence[Prediction] = (
        read_prediction_table(predictions) if own else ()
    )  # first: a damaged file is a clearer mistake
    rows = rows or answered_rows(predictions, selection, split, where=where)
    imported = ImportedAnswers(answers, {}) if own else import_answers(predictions, columns, rows.examples())
    answered = rows.joined(imported.predictions)
    answered.require_scored(f"{predictions}: ")
    training_rows = rows.data.baseline_rows()
    baselines = baseline_answers(training_rows, answered.examples) if training_rows else {}
    if shuffled := shuffled_baseline(predictions, rows):
        baselines[SHUFFLED] = shuffled
    default_breakdowns = [*default_facts(answered.scored), *default_crossing(answered.scored)] if details else []
    calibration = rows.card.calibration if rows.card else None
    results = score_answers(
        answered,
        baselines=baselines,
        dataset=dataset_ref(rows.data, rows.split),
        model=rows.card.model if rows.card else None,
        training_rows=training_rows,
        leaks=leaked_rows(rows),
        settings=ScoringSettings(
            published_protocols=protocols,
            breakdowns=list(dict.fromkeys([*default_breakdowns, *breakdowns])),
            details=details,
            risk=risk,
            temperature=calibration.temperature if calibration else None,
            temperature_source=calibration.fitted_on if calibration else "",
            threshold=calibration.threshold if calibration and risk == calibration.risk else None,
        ),
    )
    if of_the_file := [*of_another_preparation(rows, answered), *imported.warnings]:
        results = results.model_copy(update={"warnings": (*results.warnings, *of_the_file)})
    return Scores(
        predictions,
        rows,
        answered,
        baselines,
        results,
        imported.columns or None,
        breakdowns,
        risk,
        imported.guess,
        imported.interchangeable,
    )


def baseline_answers(training_rows: Sequence[Example], examples: Sequence[Example]) -> dict[str, Sequence[Prediction]]:
    """Baseline name -> the answers of the training rows to these questions, without an image."""
    rows = ExampleTable.of(examples)
    used = np.flatnonzero(np.bincount(rows.questions.index, minlength=len(rows.questions.values)))
    question_of = np.zeros(len(rows.questions.values), np.intp)
    question_of[used] = np.arange(len(used))
    questions = [rows.questions.values[number] for number in used.tolist()]  # each of them is answered once
    queries = [Query(str(number), question, "", NO_PICTURE) for number, question in enumerate(questions)]
    lookup = QuestionLookup.fit(training_rows)
    majority = Majority(by_question=lookup.by_question, by_prefix=lookup.by_prefix, overall=lookup.overall)
    return {
        family.family: PredictionTable.repeated(
            rows.ids, family.answer(queries, Decoding()), question_of[rows.questions.index]
        )
        for family in (lookup, majority)
    }


def dataset_ref(data: SelectedDataset, split: Split) -> DatasetRef:
    """The rows of a split, as results describe them."""
    selection, manifest = data.selection, data.manifest
    custom_split = ""
    if selection.validation is None and split != "test":
        held_out = selection.validation_fraction
        fraction = held_out if split == "validation" else 1 - held_out
        custom_split = (
            f"Not a published split: {fraction:.0%} of the images (or patients) of {selection.train}, sampled at "
            f"random (seed {selection.seed})"
        )
    return DatasetRef(
        name=selection.dataset,
        split=split,
        where=dict(selection.where),
        custom_split=custom_split,
        manifest=manifest.digest,
        title=manifest.title,
        license=manifest.license,
        citation=manifest.citation,
        homepage=manifest.homepage,
    )

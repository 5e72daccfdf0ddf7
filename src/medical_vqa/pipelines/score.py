"""Score a predictions file next to its baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.errors import ConfigError
from medical_vqa.io import atomic_write
from medical_vqa.pipelines.queries import learnable
from medical_vqa.pipelines.runs import sibling
from medical_vqa.schema.records import Example, Prediction, Split, read_predictions
from medical_vqa.text import did_you_mean

if TYPE_CHECKING:
    from medical_vqa.evaluation.results import Results
    from medical_vqa.pipelines.inputs import AnsweredRows
    from medical_vqa.schema.selection import Selection


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score in [0, 1] with its confidence interval, clustered by image or patient."""

    value: float | None
    """The score; None where no row could be scored."""
    low: float | None
    """Lower bound; None where there is no interval."""
    high: float | None
    """Upper bound; None where there is no interval."""


@dataclass(frozen=True, slots=True)
class Scores:
    """A scored predictions file: the results, and the rows, answers and baselines that they come from.

    ``str(scores)`` is the result in one line, with intervals, number of questions, baseline and protocol.
    """

    file: Path
    """The predictions file."""
    data: SelectedDataset
    """Dataset and selection of the rows."""
    split: Split
    """Of which split."""
    examples: list[Example]
    """The rows themselves."""
    predictions: list[Prediction]
    """What the model answered."""
    baselines: Mapping[str, list[Prediction]]
    """What answers without looking are worth."""
    results: Results
    """The numbers."""
    options: tuple[str, ...] = ()
    """What was asked beside the file, as words of the command line."""

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
        metrics = {metric.name: metric for metric in (*self.results.metrics, *self.results.more)}
        if name not in metrics:
            raise ConfigError(f"unknown metric {name!r}; {did_you_mean(name, metrics)}")
        score = metrics[name].score
        return Estimate(score.value, score.interval.low, score.interval.high)

    def breakdowns(self, metric: str, facts: Sequence[tuple[str, ...]]) -> list[str]:
        """Tables of a metric by facts, for a terminal.

        Args:
            metric: Name of a metric: ``em``, ``laterality`` ..., or ``PROTOCOL.METRIC`` such as ``helm.bleu1``.
            facts: Facts to break down by; those of a tuple are crossed.

        Raises:
            ConfigError: The metric is unknown.
            DataError: A fact is unknown, or the metric applies to no row.
        """
        from medical_vqa.evaluation.reporting.breakdown_table import breakdown_texts
        from medical_vqa.evaluation.results import find_metric

        train_rows = learnable(self.data.rows("train"))
        chosen = find_metric(metric, train=train_rows, rows=self.examples)
        return breakdown_texts(chosen, facts, self.examples, self.predictions, self.baselines)

    def to_dict(self) -> dict[str, Any]:
        """The results as JSON values, in the layout of ``results.schema.json``."""
        return self.results.model_dump(mode="json")

    def write(self, path: Path | None = None) -> Path:
        """Write the results as JSON, by default next to the predictions file; returns the path."""
        path = path or sibling(self.file, "results", ".json")
        atomic_write(path, self.results.to_json() + "\n")
        return path

    def __str__(self) -> str:
        from medical_vqa.evaluation.results import headline

        return headline(self.results)


def score(
    predictions: Path,
    *,
    selection: Selection | None = None,
    split: Split | None = None,
    rows: AnsweredRows | None = None,
    protocols: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    crossed: Sequence[tuple[str, ...]] = (),
    risk: float = 0.1,
) -> Scores:
    """Score a predictions file under SQuAD v2's rule, beside the baselines counted on the training rows.

    Args:
        predictions: The predictions file.
        selection: Rows that a file without a card answers.
        split: Split of these rows.
        rows: The rows, where they are open already, in place of the two.
        protocols: Published rules to score by in addition.
        columns: Columns of another program's file that hold the answers (`evaluation.imports`).
        crossed: Breakdowns by several facts at once, in addition to those by every fact.
        risk: Tolerated fraction of wrong answers when the model may abstain.
    """
    from medical_vqa.evaluation.results import evaluate
    from medical_vqa.evaluation.statistics.breakdown import usual_cross
    from medical_vqa.pipelines.inputs import answered_rows, leaks_of, read_answers, shuffled_baseline

    ours = read_predictions(predictions) if columns is None else None
    rows = rows or answered_rows(predictions, selection, split)
    data, split, card = rows.data, rows.split, rows.card
    examples = rows.examples()
    answered = read_answers(predictions, columns, examples) if ours is None else ours
    train_rows = learnable(data.rows("train"))
    baselines = baseline_answers(train_rows, examples) | shuffled_baseline(predictions, card, examples)
    calibration = card.calibration if card else None
    results = evaluate(
        examples,
        answered,
        baselines=baselines,
        dataset=dataset_ref(data, split),
        model=card.model if card else None,
        crossed=[*usual_cross(examples), *crossed],
        protocols=protocols,
        train=train_rows,
        leaks=leaks_of(rows),
        temperature=calibration.temperature if calibration else None,
        temperature_from=calibration.fitted_on if calibration else "",
        risk=risk,
    )
    options = options_used(rows, columns, crossed, risk)
    return Scores(predictions, data, split, examples, answered, baselines, results, options)


def options_used(
    rows: AnsweredRows,
    columns: Mapping[str, str] | None,
    crossed: Sequence[tuple[str, ...]],
    risk: float,
) -> tuple[str, ...]:
    """The words of the command line that score a file again as it was scored."""
    from medical_vqa.evaluation.statistics.calibration import RISK

    said: list[str] = []
    selection, card = rows.data.selection, rows.card
    if card is None or (card.selection, card.split) != (selection, rows.split):
        said += ["--dataset", selection.dataset, "--root", str(selection.root), "--split", rows.split]
        said += [word for fact, value in selection.where.items() for word in ("--where", f"{fact}={value}")]
        said += ["--map", ",".join(f"{name}={column}" for name, column in columns.items())] if columns else []
    said += [word for facts in crossed for word in ("--by", ",".join(facts))]
    return tuple(said + (["--risk", f"{risk:g}"] if risk != RISK else []))


def baseline_answers(train_rows: Sequence[Example], examples: Sequence[Example]) -> dict[str, list[Prediction]]:
    """What the training rows answer to these questions without an image, under each baseline's name."""
    from medical_vqa.models.baselines import Majority, QuestionLookup
    from medical_vqa.models.queries import PictureQueries
    from medical_vqa.schema.bundle_card import Decoding

    asked = list(PictureQueries(examples, [e.image_id for e in examples], None))
    baselines = {"question-only": QuestionLookup, "majority": Majority}
    return {name: baseline.fit(train_rows).answer(asked, Decoding()) for name, baseline in baselines.items()}


def dataset_ref(data: SelectedDataset, split: Split) -> Any:
    """What results say about the rows they were computed on."""
    from medical_vqa.evaluation.results import DatasetRef

    manifest = data.manifest
    return DatasetRef(
        name=data.selection.dataset,
        split=split,
        where=dict(data.selection.where),
        drawn=drawn(data.selection, split),
        manifest=manifest.digest,
        title=manifest.title,
        license=manifest.license,
        citation=manifest.citation,
        homepage=manifest.homepage,
    )


def drawn(selection: Selection, split: Split) -> str:
    """How a split was drawn that is not the published one; empty for one that is."""
    if selection.validation is not None or split == "test":
        return ""
    share = selection.validation_fraction if split == "validation" else 1 - selection.validation_fraction
    return (
        f"Not a published split: {share:.0%} of the images (or patients) of {selection.train}, held apart by chance "
        f"(seed {selection.seed})"
    )

"""What a protocol is: a published scoring rule, as its authors compute it and with its defects repaired.

A published number compares only with numbers *as published*, defects included. What a scorer cannot reproduce (which
rows a model was trained on, which epoch was selected) is stated in `Protocol.caveat`.

A package adds a protocol by an entry point in the group ``medical_vqa.protocols`` that names a `Protocol`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from medical_vqa.evaluation.metrics.base import Mean, Metric, is_closed, is_open
from medical_vqa.schema.records import Example, Prediction

OptionalPairScore = Callable[[str, str], float | None]
"""Predicted and reference answer -> score in [0, 1]; None where the pair is not counted."""
RowFilter = Callable[[Example], bool]
YES_NO = frozenset({"yes", "no"})


@dataclass(frozen=True, slots=True)
class Context:
    """What a protocol may need besides single answers."""

    training_rows: Sequence[Example] = ()
    """Training rows, the label source of repaired rules."""
    scored_rows: Sequence[Example] = ()
    """The scored rows, the label source of some published rules."""

    @property
    def dataset(self) -> str:
        """Name of the dataset's format, the first part of its ids: ``slake``; empty without rows."""
        return self.scored_rows[0].id.partition("/")[0] if self.scored_rows else ""


@dataclass(frozen=True, slots=True)
class ProtocolMetric:
    """One number of a protocol."""

    published: Metric
    """The metric as its authors compute it."""
    repaired: Metric | None
    """The metric without the defect; None where it cannot be computed here."""
    defect: str = ""
    """What the defect changes, in one sentence; empty if there is none."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """A named scoring rule with its source."""

    name: str
    """The name on the command line: ``squad_v2``."""
    rule: str
    """What it does to an answer, in one sentence."""
    citation: str
    """Where the rule was published."""
    build: Callable[[Context], tuple[ProtocolMetric, ...]]
    """Makes its metrics; the first one is the headline."""
    caveat: str = ""
    """What else sets its published numbers apart, which no scorer can reproduce; empty if there is nothing."""
    datasets: tuple[str, ...] = ()
    """Datasets on which its authors publish numbers by it; empty where it belongs to no dataset."""

    def is_published_on(self, dataset: str) -> bool:
        """Whether its authors publish numbers by it on a dataset."""
        return not self.datasets or dataset in self.datasets

    def published_metrics(self, context: Context | None = None) -> tuple[Metric, ...]:
        """The metrics as published."""
        return tuple(metric.published for metric in self.build(context or Context()))


def best_answer_mean(name: str, label: str, score: OptionalPairScore, rows: RowFilter | None = None) -> Mean:
    """The mean of the best score over the accepted answers.

    Args:
        name: The key in results.json.
        label: The name for people.
        score: Scores one pair of answers; its function name stands in the signature.
        rows: The rows that count; all if None. Its function name stands in the signature.
    """

    def score_row(prediction: Prediction, example: Example) -> float | None:
        return _best(score, prediction.answer, example.answers) if rows is None or rows(example) else None

    counted = rows.__name__.removeprefix("is_") if rows else "all"
    return Mean(name, label, f"{score.__name__}|rows:{counted}|answers:max|v:1", score_row, by_text=True)


@lru_cache(maxsize=1 << 16)  # several numbers of a protocol score the same pairs of answers by one rule
def _best(score: OptionalPairScore, predicted: str, answers: tuple[str, ...]) -> float | None:
    scores = [score(predicted, answer) for answer in answers]
    return max((value for value in scores if value is not None), default=None)


def unchanged(metric: Metric) -> ProtocolMetric:
    """A number without a defect: published and repaired are the same."""
    return ProtocolMetric(metric, metric)


def overall_open_closed(
    published: OptionalPairScore, repaired: OptionalPairScore, defect: str = ""
) -> tuple[ProtocolMetric, ...]:
    """Three numbers under one score: over all rows, the open ones and the closed ones."""
    parts: tuple[tuple[str, RowFilter | None], ...] = (("overall", None), ("open", is_open), ("closed", is_closed))
    return tuple(
        ProtocolMetric(
            best_answer_mean(name, name, published, rows), best_answer_mean(name, name, repaired, rows), defect
        )
        for name, rows in parts
    )

"""One metric over one set of predictions: per-example counts, and the scores computed from their sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from medical_vqa.errors import ConfigError
from medical_vqa.evaluation.metrics.base import SCORED_FACTS, Counts, Mean, Metric, PairScore, best_score
from medical_vqa.evaluation.statistics.intervals import (
    Floats,
    cluster_numbers,
    clustered_bootstrap,
    count_clusters,
    wilson_of_groups,
)
from medical_vqa.schema.example_table import ExampleTable
from medical_vqa.schema.prediction_table import AnswersById, PredictionTable
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.schema.results import Bootstrap, Score

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of the examples a metric applies to, row by row."""

    metric: Metric
    """The metric whose counts these are."""
    examples: ExampleTable
    """The examples the metric applies to, in their order."""
    counts: Floats
    """Counts of each example, (examples, k)."""
    clusters: NDArray[np.intp]
    """Number of each example's group."""

    def total(self) -> float | None:
        """The metric's value over all rows; None if there are none.

        Raises:
            ConfigError: The metric gives what is no score.
        """
        value = self.metric.value(self.counts.sum(axis=0).tolist()) if len(self.counts) else math.nan
        if math.isnan(value):
            return None
        if not -_ROUNDING <= value <= 1 + _ROUNDING:
            name = self.metric.name
            raise ConfigError(f"the metric {name} gives {value:g}; expected a number from 0 to 1: correct its value()")
        return value

    def score(self, bootstrap: Bootstrap) -> Score:
        """The value with its interval; if all answers score 0, or all 1, Wilson's with whole groups as trials."""
        score = self._with_interval(self.total(), self.counts, per_resample(self.metric), bootstrap)
        if score.interval.low is not None or score.clusters < 2 or score.value not in (0.0, 1.0):
            return score
        is_mean = self.counts.shape[1] == 2 and bool((self.counts == (score.value, 1.0)).all())
        if not is_mean:
            return score
        interval = wilson_of_groups(score.value == 1.0, score.clusters, bootstrap.level)
        return score.model_copy(update={"interval": interval})

    def difference(self, other: Self, bootstrap: Bootstrap) -> Score:
        """This value minus that of another tally of the same examples, resampled as pairs.

        Raises:
            ValueError: If the two do not hold the same examples in the same order.
        """
        same = self.examples is other.examples
        if not same and list(self.examples.ids) != list(other.examples.ids):
            raise ValueError("a paired difference needs two tallies of the same examples in the same order")
        minuend, subtrahend = self.total(), other.total()
        difference = None if minuend is None or subtrahend is None else minuend - subtrahend
        values, width = per_resample(self.metric), self.counts.shape[1]

        def differences(totals: Floats) -> Floats:
            return values(totals[:, :width]) - values(totals[:, width:])

        return self._with_interval(difference, np.hstack([self.counts, other.counts]), differences, bootstrap)

    def right(self) -> NDArray[np.bool_]:
        """Whether each row has the full score, (examples,)."""
        right: NDArray[np.bool_] = per_resample(self.metric)(self.counts) == 1.0
        return right

    def subset(self, rows: Sequence[int] | NDArray[np.intp]) -> Tally:
        """The rows at these positions, in the given order."""
        index = np.asarray(rows, dtype=np.intp)
        return Tally(self.metric, self.examples.take(index), self.counts[index], self.clusters[index])

    def _with_interval(
        self, value: float | None, counts: Floats, values: Callable[[Floats], Floats], bootstrap: Bootstrap
    ) -> Score:
        interval = clustered_bootstrap(
            counts, self.clusters, values, resamples=bootstrap.resamples, level=bootstrap.level, seed=bootstrap.seed
        )
        return Score(value=value, interval=interval, n=len(counts), clusters=count_clusters(self.clusters))


class AnswerTable:
    """Rows with the predictions of one model, in which equal answers to equal references are scored once.

    Args:
        examples: The rows.
        predictions: Example id -> prediction; rows without one are left out.
        like: A table of other answers to the same rows, with which what depends on the rows alone is shared.
    """

    def __init__(
        self, examples: Sequence[Example], predictions: Mapping[str, Prediction], like: AnswerTable | None = None
    ) -> None:
        rows = ExampleTable.of(examples)
        if isinstance(predictions, AnswersById) and predictions.examples is rows:
            answers = predictions.predictions
        else:
            present = np.fromiter(map(predictions.__contains__, rows.ids), bool, len(rows))
            rows = rows.take(np.flatnonzero(present))
            answers = PredictionTable.of([predictions[id_] for id_ in rows.ids])
        other = like if like is not None and like.examples is rows else None
        self.examples: ExampleTable = rows
        self.clusters: NDArray[np.intp] = other.clusters if other else _cluster_numbers(rows)
        self.references: NDArray[np.intp] = other.references if other else _reference_numbers(rows)
        self.predictions: PredictionTable = answers
        self._parts: dict[bytes, tuple[ExampleTable, NDArray[np.intp]]] = other._parts if other else {}
        """Rows that a metric applies to, as bits -> these rows and their clusters: few are different."""
        pairs = self.references * max(len(answers.answers.values), 1) + answers.answers.index
        self.rows: NDArray[np.intp]
        """For each different answer the position of the first row that gives it."""
        self.answer_of: NDArray[np.intp]
        """For each row the position of its answer in `rows`."""
        _, self.rows, self.answer_of = np.unique(pairs, return_index=True, return_inverse=True)

    @cached_property
    def _different(self) -> list[tuple[Prediction, Example]]:
        """A row for each different answer."""
        return [(self.predictions[row], self.examples[row]) for row in self.rows.tolist()]

    def _pair_counts(self, score: PairScore) -> list[Counts | None]:
        """The counts of each different answer from the texts alone, without objects."""
        answers, references = self.predictions.answers, self.examples.answers
        texts = map(answers.values.__getitem__, answers.index[self.rows].tolist())
        accepted = map(references.values.__getitem__, references.index[self.rows].tolist())
        return [(best_score(score, text, of), 1.0) if of else None for text, of in zip(texts, accepted, strict=True)]

    def tally(self, metric: Metric) -> Tally:
        """Count every row that the metric applies to; raises `ConfigError` where its counts are no numbers."""
        once = getattr(metric, "by_text", False)
        if isinstance(metric, Mean) and metric.pair_score is not None:
            once, scores = True, self._pair_counts(metric.pair_score)
        else:
            pairs = self._different if once else zip(self.predictions, self.examples, strict=True)
            scores = [metric.counts(prediction, example) for prediction, example in pairs]
        width = next((len(score) for score in scores if score is not None), 1)
        no_score = (np.nan,) * width
        applies = np.array([score is not None for score in scores], bool)
        try:
            table = np.array([no_score if score is None else score for score in scores], float).reshape(-1, width)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"the metric {metric.name} gives what are not always {width} numbers; expected as many for every "
                "answer, or None where it does not apply: correct its counts()"
            ) from error
        if (unusable := np.flatnonzero(applies & np.isnan(table).any(axis=1))).size:
            row = self.rows[unusable[0]] if once else unusable[0]
            raise ConfigError(
                f"the metric {metric.name} gives {table[unusable[0]].tolist()} for the answer to "
                f"{self.examples.ids[row]}; expected numbers, or None where it does not apply: correct its counts()"
            )
        if once:
            table, applies = table[self.answer_of], applies[self.answer_of]
        if applies.all():
            return Tally(metric, self.examples, table, self.clusters)
        part = np.packbits(applies).tobytes()
        if part not in self._parts:
            applicable = np.flatnonzero(applies)
            self._parts[part] = self.examples.take(applicable), self.clusters[applicable]
        return Tally(metric, self._parts[part][0], table[applies], self._parts[part][1])


def _cluster_numbers(rows: ExampleTable) -> NDArray[np.intp]:
    """The number of each row's group, in the order of the sorted names of those that have rows."""
    used = np.flatnonzero(np.bincount(rows.groups.index, minlength=len(rows.groups.values)))
    number_of = np.zeros(len(rows.groups.values), np.intp)
    number_of[used] = cluster_numbers([rows.groups.values[number] for number in used.tolist()])
    return number_of[rows.groups.index]


def _reference_numbers(rows: ExampleTable) -> NDArray[np.intp]:
    """A number for each row, equal for rows with equal accepted answers and equal facts that a score may depend on."""
    numbers: dict[tuple[str | None, ...], int] = {}
    of_facts = [
        numbers.setdefault(tuple([facts.get(fact) for fact in SCORED_FACTS]), len(numbers))
        for facts in rows.facts.values
    ]
    return rows.answers.index * max(len(numbers), 1) + np.array(of_facts, np.intp)[rows.facts.index]


def tally(metric: Metric, examples: Sequence[Example], predictions: Mapping[str, Prediction]) -> Tally:
    """Count every example that has a prediction and that the metric applies to.

    Args:
        metric: What to count.
        examples: The rows.
        predictions: Example id -> prediction.
    """
    return AnswerTable(examples, predictions).tally(metric)


def per_resample(metric: Metric) -> Callable[[Floats], Floats]:
    """The metric's value of each row of totals: (resamples, k) -> (resamples,)."""
    if isinstance(metric, Mean):
        return _means
    return lambda totals: np.array([metric.value(row) for row in totals.tolist()])


def _means(totals: Floats) -> Floats:
    """The mean of each row of totals; nan where nothing was counted."""
    counted = totals[:, 1]
    means: Floats = np.full(len(totals), np.nan)
    np.divide(totals[:, 0], counted, out=means, where=counted > 0)
    return means

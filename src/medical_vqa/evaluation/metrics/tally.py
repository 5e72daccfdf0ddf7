"""One metric over one set of predictions: per-example counts, and the scores read off their sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from medical_vqa.evaluation.metrics.base import Metric
from medical_vqa.evaluation.statistics.intervals import Floats, Interval, clustered_bootstrap, wilson_of_groups
from medical_vqa.schema.records import Example, Prediction


@dataclass(frozen=True, slots=True)
class Score:
    """A number with what it needs to be understood."""

    value: float | None
    """In [0, 1], or in [-1, 1] for a difference; None where nothing could be scored."""
    interval: Interval
    """Resampled over groups."""
    n: int
    """Examples behind the number."""
    clusters: int
    """Groups (patients or images) those examples come from."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are drawn."""

    resamples: int = 2000
    """Number of resamples."""
    level: float = 0.95
    """Nominal coverage."""
    seed: int = 0
    """Of the draws."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of the examples a metric applies to, row by row."""

    metric: Metric
    """What was counted."""
    examples: tuple[Example, ...]
    """The examples the metric applies to, in their order."""
    counts: Floats
    """(examples, k)."""

    def total(self) -> float | None:
        """The metric's value over all rows; None where there are none."""
        value = self.metric.value(self.counts.sum(axis=0).tolist()) if len(self.counts) else math.nan
        return None if math.isnan(value) else value

    def score(self, bootstrap: Bootstrap) -> Score:
        """The value with its interval; where all answers score 0, or all 1, Wilson's with whole groups as trials."""
        values = per_resample(self.metric)
        found = self._with_interval(self.total(), self.counts, values, bootstrap)
        if found.interval.low is not None or found.clusters < 2 or not self._all_alike():
            return found
        return replace(found, interval=wilson_of_groups(found.value == 1.0, found.clusters, bootstrap.level))

    def difference(self, other: Self, bootstrap: Bootstrap) -> Score:
        """This value minus that of another tally of the same examples, resampled as pairs.

        Raises:
            ValueError: If the two do not hold the same examples in the same order.
        """
        if [e.id for e in self.examples] != [e.id for e in other.examples]:
            raise ValueError("a paired difference needs two tallies of the same examples in the same order")
        ours, theirs = self.total(), other.total()
        value = None if ours is None or theirs is None else ours - theirs
        values, width = per_resample(self.metric), self.counts.shape[1]
        paired = np.hstack([self.counts, other.counts])
        return self._with_interval(value, paired, lambda t: values(t[:, :width]) - values(t[:, width:]), bootstrap)

    def subset(self, rows: Sequence[int]) -> Tally:
        """The rows at these positions, in the order given."""
        index = np.asarray(rows, dtype=np.intp)
        return Tally(self.metric, tuple(self.examples[row] for row in rows), self.counts[index])

    def _all_alike(self) -> bool:
        """Whether this is a mean in which every answer scores 0, or every answer 1."""
        ends = ([0.0, 1.0], [1.0, 1.0])
        return self.counts.shape[1] == 2 and any(bool((self.counts == end).all()) for end in ends)

    def _with_interval(
        self, value: float | None, counts: Floats, values: Callable[[Floats], Floats], bootstrap: Bootstrap
    ) -> Score:
        groups = [example.group for example in self.examples]
        interval = clustered_bootstrap(
            counts, groups, values, resamples=bootstrap.resamples, level=bootstrap.level, seed=bootstrap.seed
        )
        return Score(value, interval, len(groups), len(set(groups)))


def tally(metric: Metric, examples: Sequence[Example], predictions: Mapping[str, Prediction]) -> Tally:
    """Count every example that has a prediction and to which the metric applies."""
    kept: list[Example] = []
    rows: list[tuple[float, ...]] = []
    for example in examples:
        prediction = predictions.get(example.id)
        counts = metric.counts(prediction, example) if prediction is not None else None
        if counts is not None:
            kept.append(example)
            rows.append(counts)
    return Tally(metric, tuple(kept), np.array(rows, dtype=float).reshape(len(rows), -1 if rows else 1))


def per_resample(metric: Metric) -> Callable[[Floats], Floats]:
    """The metric's value of each row of totals: (resamples, k) -> (resamples,)."""
    return lambda totals: np.array([metric.value(row) for row in totals.tolist()])

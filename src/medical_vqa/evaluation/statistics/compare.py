"""Prediction files of the same questions, paired by id: which model is better, by how much, and how surely.

The tests resample or swap whole groups (images or patients), because questions about one image are not independent;
McNemar's, which everybody quotes, takes questions as independent and stands beside them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from medical_vqa.errors import DataError
from medical_vqa.evaluation.metrics.base import Metric
from medical_vqa.evaluation.metrics.tally import Bootstrap, Score, Tally, per_resample, tally
from medical_vqa.evaluation.statistics.intervals import cluster_sums
from medical_vqa.schema.records import Example, Prediction

POWER = 0.8
SIGNIFICANT = 0.05
_SAME = 1e-12


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models under one metric, over the questions that both answered."""

    first: str
    """The name of one model."""
    second: str
    """The name of the other."""
    metric: str
    """``em``."""
    label: str
    """``EM``."""
    signature: str
    """Everything that moves the numbers."""
    scores: tuple[Score, Score]
    """Of both models, over the same questions."""
    difference: Score
    """First minus second, resampled as pairs of whole groups."""
    only_first: int
    """Questions that only the first has right."""
    only_second: int
    """Questions that only the second has right."""
    mcnemar: float
    """Two-sided exact p-value of those two counts, questions taken as independent."""
    permutation: float
    """Two-sided p-value when whole groups swap models."""
    holm: float
    """The same after Holm's correction over all comparisons of a table."""
    detectable: float | None
    """The difference that a test set like this one would show in four of five cases; None without an interval."""


def compare(
    metric: Metric,
    examples: Sequence[Example],
    models: Mapping[str, Sequence[Prediction]],
    bootstrap: Bootstrap | None = None,
) -> list[Comparison]:
    """Every two models, in the order given; only questions that all of them answered count.

    Raises:
        DataError: There are fewer than two models, or no question that all answered.
    """
    how = bootstrap or Bootstrap()
    if len(models) < 2:
        raise DataError(f"a comparison needs at least two prediction files, got {len(models)}; name another")
    rows = shared_rows(examples, models)
    tallies = {name: tally(metric, rows, {p.id: p for p in given}) for name, given in models.items()}
    pairs = [_compare(a, tallies[a], b, tallies[b], how) for a, b in itertools.combinations(tallies, 2)]
    corrected = holm([pair.permutation for pair in pairs])
    return [replace(pair, holm=p) for pair, p in zip(pairs, corrected, strict=True)]


def shared_rows(examples: Sequence[Example], models: Mapping[str, Sequence[Prediction]]) -> list[Example]:
    """The questions with an accepted answer that every model answered exactly once."""
    answered = [_once(given) for given in models.values()]
    rows = [example for example in examples if example.answers and all(example.id in ids for ids in answered)]
    if not rows:
        raise DataError(
            f"no question was answered by all of {', '.join(models)}; compare predictions of one dataset and split"
        )
    return rows


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value: how often a fair coin parts so many discordant questions at least so unevenly.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12
    (1947), with the binomial distribution in place of its approximation.
    """
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / (1 << n))


def permutation_test(first: Tally, second: Tally, *, resamples: int, seed: int) -> float:
    """Two-sided p-value of the difference when every group's answers change models with probability one half.

    The observed pairing is counted among the permutations, so the value is never 0.
    """
    groups = [example.group for example in first.examples]
    ours, theirs = cluster_sums(first.counts, groups), cluster_sums(second.counts, groups)
    rng = np.random.default_rng(seed)
    swap = rng.integers(0, 2, size=(resamples, len(ours))).astype(float)
    values = per_resample(first.metric)
    swapped = swap @ (theirs - ours)  # (resamples, k): what changing models moves
    drawn = np.abs(values(ours.sum(axis=0) + swapped) - values(theirs.sum(axis=0) - swapped))
    observed: float = abs((first.total() or 0.0) - (second.total() or 0.0))
    reached = int(np.count_nonzero(drawn >= observed - _SAME))
    return float(1 + reached) / (1 + resamples)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: each times the number of tests not yet decided, in order of size, never falling.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).
    """
    ranked = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(ranked):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def detectable(difference: Score) -> float | None:
    """The true difference at which a test on the interval's level finds one in four of five samples like this one.

    Taken from the width of the interval: (z of the level + z of the power) standard errors.
    """
    interval = difference.interval
    if interval.low is None or interval.high is None:
        return None
    level, power = NormalDist().inv_cdf(0.5 + interval.level / 2), NormalDist().inv_cdf(POWER)
    return (level + power) * (interval.high - interval.low) / (2 * level)


def verdict(pair: Comparison) -> str:
    """The comparison in one sentence."""
    size = pair.difference.value or 0.0
    if not size:
        return f"{pair.first} and {pair.second} have the same {pair.label}."
    better, worse = (pair.first, pair.second) if size > 0 else (pair.second, pair.first)
    points = f"{100 * abs(size):.1f} points {pair.label}"
    if pair.holm < SIGNIFICANT:
        return f"{better} is better than {worse} by {points}."
    return f"{better} is ahead of {worse} by {points}, which chance alone can give; {power(pair)}."


def power(pair: Comparison) -> str:
    """What these questions could show, as half a sentence."""
    if pair.detectable is None:
        return "what difference these questions could show is not known"
    return (
        f"these questions would show a difference of {100 * pair.detectable:.1f} points or more in four of five cases"
    )


def _compare(a: str, first: Tally, b: str, second: Tally, how: Bootstrap) -> Comparison:
    won, lost = _discordant(first, second)
    difference = first.difference(second, how)
    return Comparison(
        first=a,
        second=b,
        metric=first.metric.name,
        label=first.metric.label,
        signature=first.metric.signature(),
        scores=(first.score(how), second.score(how)),
        difference=difference,
        only_first=won,
        only_second=lost,
        mcnemar=mcnemar_exact(won, lost),
        permutation=permutation_test(first, second, resamples=how.resamples, seed=how.seed),
        holm=1.0,
        detectable=detectable(difference),
    )


def _discordant(first: Tally, second: Tally) -> tuple[int, int]:
    """Questions only the first has fully right, and only the second."""
    right = [np.array([t.metric.value(row) == 1.0 for row in t.counts.tolist()]) for t in (first, second)]
    return int(np.count_nonzero(right[0] & ~right[1])), int(np.count_nonzero(right[1] & ~right[0]))


def _once(predictions: Sequence[Prediction]) -> set[str]:
    seen: set[str] = set()
    twice: set[str] = set()
    for prediction in predictions:
        (twice if prediction.id in seen else seen).add(prediction.id)
    return seen - twice

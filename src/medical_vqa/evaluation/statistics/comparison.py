"""Prediction files of the same questions, paired by id: which model is better, by how much, and how certainly.

The tests resample or swap whole groups (images or patients), because questions about one image are not independent;
McNemar's, which is widely quoted, treats questions as independent and is reported in addition.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
from pydantic import BaseModel, ConfigDict

from medical_vqa.errors import DataError
from medical_vqa.evaluation.joining import AnsweredQuestions
from medical_vqa.evaluation.metrics.base import Metric
from medical_vqa.evaluation.statistics.intervals import cluster_sums
from medical_vqa.evaluation.statistics.tally import Tally, per_resample, tally
from medical_vqa.schema.records import Example
from medical_vqa.schema.results import Bootstrap, Score

POWER = 0.8
PERMUTATIONS_PER_PAIR = 400
"""Permutations for every pair of a table: Holm's factor times the smallest p-value is then at most 1/400."""
_MAX_SWAPS = 4_000_000  # permutations x groups held in memory together: 32 MB
SIGNIFICANCE = 0.05
_TOLERANCE = 1e-12


class Comparison(BaseModel):
    """Two models under one metric, over the questions that both answered."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    first: str
    """Name of the first model."""
    second: str
    """Name of the second model."""
    metric: str
    """Key of the metric: ``em``."""
    label: str
    """Name for people: ``EM``."""
    signature: str
    """Everything that affects the numbers."""
    scores: tuple[Score, Score]
    """Scores of both models, over the same questions."""
    difference: Score
    """First minus second, resampled as pairs of whole groups."""
    only_first_correct: int
    """Number of questions that only the first answers correctly."""
    only_second_correct: int
    """Number of questions that only the second answers correctly."""
    mcnemar_p: float
    """Two-sided exact p-value of those two counts, questions taken as independent."""
    permutation_p: float
    """Two-sided p-value when whole groups swap models."""
    holm_p: float
    """The permutation p-value after Holm's correction over all comparisons of a table."""
    detectable_difference: float | None
    """The difference that a test set like this one would show in four of five cases; null without an interval."""
    notes: tuple[str, ...] = ()
    """Sentences on the compared files: columns that were guessed, rows that are not scored, missing answers."""


def compare(
    metric: Metric,
    models: Mapping[str, AnsweredQuestions],
    bootstrap: Bootstrap | None = None,
) -> list[Comparison]:
    """Compare every two models, in the given order, over the questions that all of them answered.

    Args:
        metric: The metric.
        models: Model name -> its answers; all to the same split.
        bootstrap: How intervals are resampled.

    Raises:
        DataError: There are fewer than two models, or no question that all answered.
    """
    bootstrap = bootstrap or Bootstrap()
    if len(models) < 2:
        raise DataError(f"a comparison needs at least two prediction files, got {len(models)}; name another")
    rows = shared_rows(models)
    tallies = {name: tally(metric, rows, answered.answers) for name, answered in models.items()}
    combinations = list(itertools.combinations(tallies, 2))
    permutations = max(bootstrap.resamples, PERMUTATIONS_PER_PAIR * len(combinations))
    pairs = [
        _compare(first, tallies[first], second, tallies[second], bootstrap, permutations)
        for first, second in combinations
    ]
    corrected = holm([pair.permutation_p for pair in pairs])
    return [pair.model_copy(update={"holm_p": p}) for pair, p in zip(pairs, corrected, strict=True)]


def shared_rows(models: Mapping[str, AnsweredQuestions]) -> list[Example]:
    """The questions that are scored for every model; raises `DataError` if there are none."""
    first, *others = models.values()
    rows = [row for row in first.scored if all(row.id in answered.answers for answered in others)]
    if not rows:
        raise DataError(
            f"no question was answered by all of {', '.join(models)}; compare predictions of one dataset and split"
        )
    return rows


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value: how often a fair coin splits so many discordant questions at least as unevenly.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12
    (1947), with the binomial distribution in place of its approximation.
    """
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / (1 << n))


def permutation_test(first: Tally, second: Tally, *, resamples: int, seed: int) -> float:
    """Two-sided p-value of the difference when every group's answers change models with probability one half.

    The observed pairing is counted among the permutations, so the value is never 0.

    Args:
        first: Counts of the first model.
        second: Counts of the second model on the same examples.
        resamples: Number of random permutations.
        seed: Seed of the permutations.
    """
    first_sums = cluster_sums(first.counts, first.clusters)
    second_sums = cluster_sums(second.counts, first.clusters)
    differs = (first_sums != second_sums).any(axis=1)  # only these groups change anything when they swap
    changes = (second_sums - first_sums)[differs]
    rng = np.random.default_rng(seed)
    values = per_resample(first.metric)
    observed: float = abs((first.total() or 0.0) - (second.total() or 0.0))
    as_large, step = 0, max(1, _MAX_SWAPS // max(1, len(changes)))
    for start in range(0, resamples, step):
        swap = rng.integers(0, 2, size=(min(step, resamples - start), len(changes))).astype(float)
        swapped = swap @ changes  # (resamples, k): what the swapped groups add to the first model
        permuted = np.abs(values(first_sums.sum(axis=0) + swapped) - values(second_sums.sum(axis=0) - swapped))
        as_large += int(np.count_nonzero(permuted >= observed - _TOLERANCE))
    return float(1 + as_large) / (1 + resamples)


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


def detectable_difference(difference: Score) -> float | None:
    """The true difference at which a test on the interval's level finds one in four of five samples like this one.

    Computed from the width of the interval: (z of the level + z of the power) standard errors.
    """
    interval = difference.interval
    if interval.low is None or interval.high is None:
        return None
    z_level, z_power = NormalDist().inv_cdf(0.5 + interval.level / 2), NormalDist().inv_cdf(POWER)
    return (z_level + z_power) * (interval.high - interval.low) / (2 * z_level)


def _compare(
    first_name: str, first: Tally, second_name: str, second: Tally, bootstrap: Bootstrap, permutations: int
) -> Comparison:
    value = first.metric.value
    first_correct, second_correct = (
        np.array([value(row) == 1.0 for row in counted.counts.tolist()]) for counted in (first, second)
    )
    only_first = int(np.count_nonzero(first_correct & ~second_correct))
    only_second = int(np.count_nonzero(second_correct & ~first_correct))
    difference = first.difference(second, bootstrap)
    return Comparison(
        first=first_name,
        second=second_name,
        metric=first.metric.name,
        label=first.metric.label,
        signature=first.metric.signature(),
        scores=(first.score(bootstrap), second.score(bootstrap)),
        difference=difference,
        only_first_correct=only_first,
        only_second_correct=only_second,
        mcnemar_p=mcnemar_exact(only_first, only_second),
        permutation_p=permutation_test(first, second, resamples=permutations, seed=bootstrap.seed),
        holm_p=1.0,
        detectable_difference=detectable_difference(difference),
    )

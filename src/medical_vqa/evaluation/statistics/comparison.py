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
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from medical_vqa.errors import DataError
from medical_vqa.evaluation.joining import AnsweredQuestions
from medical_vqa.evaluation.metrics.base import Metric
from medical_vqa.evaluation.statistics.intervals import bundled, cluster_sums
from medical_vqa.evaluation.statistics.tally import Tally, per_resample, tally
from medical_vqa.schema.example_table import ExampleTable
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
    tallies = {name: tally(metric, rows, answered.answers.of_rows(rows)) for name, answered in models.items()}
    scores = {name: counted.score(bootstrap) for name, counted in tallies.items()}
    right = {name: counted.right() for name, counted in tallies.items()}
    combinations = list(itertools.combinations(tallies, 2))
    permutations = max(bootstrap.resamples, PERMUTATIONS_PER_PAIR * len(combinations))
    pairs = [
        _compare((first, second), tallies, scores, right, bootstrap, permutations) for first, second in combinations
    ]
    corrected = holm([pair.permutation_p for pair in pairs])
    return [pair.model_copy(update={"holm_p": p}) for pair, p in zip(pairs, corrected, strict=True)]


def shared_rows(models: Mapping[str, AnsweredQuestions]) -> ExampleTable:
    """The questions that are scored for every model; raises `DataError` if there are none."""
    first, *others = (answered.scored for answered in models.values())
    of_all = set(first.ids).intersection(*(scored.ids for scored in others if scored is not first))
    rows = first.take(np.flatnonzero(np.fromiter(map(of_all.__contains__, first.ids), bool, len(first))))
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
    n, fewer = only_first + only_second, min(only_first, only_second)
    log_of_largest = math.lgamma(n + 1) - math.lgamma(fewer + 1) - math.lgamma(n - fewer + 1) - n * math.log(2)
    k = np.arange(fewer, 0, -1)
    ratios = np.cumprod(k / (n - k + 1))  # of the terms for fewer - 1, fewer - 2 ... 0 to the largest, which is `fewer`
    return min(1.0, 2 * math.exp(log_of_largest) * (1.0 + float(ratios.sum())))


def permutation_test(first: Tally, second: Tally, *, resamples: int, seed: int) -> float:
    """Two-sided p-value of the difference when every group's answers change models with probability one half.

    The observed pairing is counted among the permutations, so the value is never 0. Of very many groups random bundles
    of them change models together.

    Args:
        first: Counts of the first model.
        second: Counts of the second model on the same examples.
        resamples: Number of random permutations.
        seed: Seed of the permutations.
    """
    width = first.counts.shape[1]
    sums = bundled(cluster_sums(np.hstack([first.counts, second.counts]), first.clusters), seed)
    first_sums, second_sums = sums[:, :width], sums[:, width:]
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
    names: tuple[str, str],
    tallies: Mapping[str, Tally],
    scores: Mapping[str, Score],
    right: Mapping[str, NDArray[np.bool_]],
    bootstrap: Bootstrap,
    permutations: int,
) -> Comparison:
    first, second = (tallies[name] for name in names)
    first_right, second_right = (right[name] for name in names)
    only_first = int(np.count_nonzero(first_right & ~second_right))
    only_second = int(np.count_nonzero(second_right & ~first_right))
    difference = first.difference(second, bootstrap)
    return Comparison(
        first=names[0],
        second=names[1],
        metric=first.metric.name,
        label=first.metric.label,
        signature=first.metric.signature(),
        scores=(scores[names[0]], scores[names[1]]),
        difference=difference,
        only_first_correct=only_first,
        only_second_correct=only_second,
        mcnemar_p=mcnemar_exact(only_first, only_second),
        permutation_p=permutation_test(first, second, resamples=permutations, seed=bootstrap.seed),
        holm_p=1.0,
        detectable_difference=detectable_difference(difference),
    )

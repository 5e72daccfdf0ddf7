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
from medical_vqa.evaluation.statistics.withheld import withheld_answers
from medical_vqa.schema.example_table import ExampleTable
from medical_vqa.schema.results import Bootstrap, Score, Withheld

POWER = 0.8
PERMUTATIONS_PER_PAIR = 400
"""Permutations for every pair of a table: Holm's factor times the smallest p-value is then at most 1/400."""
_MAX_SWAPS = 4_000_000  # permutations x groups, or x numbers of all pairs, held in memory together: 32 MB
_MAX_SWAPPED = 2_000
"""Groups that change models in a permutation; of more, bundles do, whose sums vary as those of the groups."""
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
    withheld: tuple[Withheld | None, Withheld | None] = (None, None)
    """What the guards withhold of both models' answers to these questions; null where a file has no decisions."""
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
    answers = {name: answered.answers.of_rows(rows) for name, answered in models.items()}
    tallies = {name: tally(metric, rows, of_name) for name, of_name in answers.items()}
    withheld = {
        name: withheld_answers(of_name.predictions, [tallies[name]], bootstrap) for name, of_name in answers.items()
    }
    scores = {name: counted.score(bootstrap) for name, counted in tallies.items()}
    right = {name: counted.right() for name, counted in tallies.items()}
    combinations = list(itertools.combinations(tallies, 2))
    p_values = permutation_tests(
        [(tallies[first], tallies[second]) for first, second in combinations],
        resamples=max(bootstrap.resamples, PERMUTATIONS_PER_PAIR * len(combinations)),
        seed=bootstrap.seed,
    )
    pairs = [
        _compare(names, tallies, scores, right, bootstrap, permutation_p=p, holm_p=corrected)
        for names, p, corrected in zip(combinations, p_values, holm(p_values), strict=True)
    ]
    return [pair.model_copy(update={"withheld": (withheld[pair.first], withheld[pair.second])}) for pair in pairs]


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


def permutation_tests(
    pairs: Sequence[tuple[Tally, Tally]], *, resamples: int, seed: int, most_groups: int = _MAX_SWAPPED
) -> list[float]:
    """Two-sided p-value of each pair's difference when every group's answers change models with probability one half.

    The observed pairing is counted among the permutations, so the value is never 0. Of very many groups random bundles
    of them change models together. All pairs are tested under the same permutations, which changes none of the values
    and takes one product of matrices in place of one for each pair.

    Args:
        pairs: Counts of the first and of the second model of each pair; all on the same examples.
        resamples: Number of random permutations.
        seed: Seed of the permutations.
        most_groups: Number of groups, or bundles of them, that change models at most.
    """
    tallies = {id(counted): counted for counted in itertools.chain.from_iterable(pairs)}
    sums = {
        key: bundled(cluster_sums(counted.counts, counted.clusters), seed, most_groups)
        for key, counted in tallies.items()
    }
    starts = [(sums[id(first)].sum(axis=0), sums[id(second)].sum(axis=0)) for first, second in pairs]
    changes = np.hstack([sums[id(second)] - sums[id(first)] for first, second in pairs])
    values = [per_resample(first.metric) for first, _ in pairs]
    widths = [first.counts.shape[1] for first, _ in pairs]
    observed = [abs((first.total() or 0.0) - (second.total() or 0.0)) - _TOLERANCE for first, second in pairs]
    groups = np.flatnonzero(changes.any(axis=1))  # only these change anything when they swap
    columns = np.flatnonzero(changes.any(axis=0))
    factors = changes[np.ix_(groups, columns)]
    rng = np.random.default_rng(seed)
    as_large = [0] * len(pairs)
    step = max(1, _MAX_SWAPS // max(1, len(groups), changes.shape[1]))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        bits = rng.integers(0, 256, size=(rows, (len(groups) + 7) // 8), dtype=np.uint8)
        swapped = np.zeros((rows, changes.shape[1]))  # what the swapped groups add to the first models
        swapped[:, columns] = np.unpackbits(bits, axis=1, count=len(groups)).astype(float) @ factors
        end = 0
        for number, (first_start, second_start) in enumerate(starts):
            begin, end = end, end + widths[number]
            of_pair = swapped[:, begin:end]
            permuted = np.abs(values[number](first_start + of_pair) - values[number](second_start - of_pair))
            as_large[number] += int(np.count_nonzero(permuted >= observed[number]))
    return [(1 + count) / (1 + resamples) for count in as_large]


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
    *,
    permutation_p: float,
    holm_p: float,
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
        permutation_p=permutation_p,
        holm_p=holm_p,
        detectable_difference=detectable_difference(difference),
    )

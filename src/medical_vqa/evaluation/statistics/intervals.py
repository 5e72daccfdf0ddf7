"""Bootstrap intervals that resample whole groups, because questions about one image depend on each other.

SLAKE asks eleven questions per image; an interval that resamples single questions comes out about half as
wide as it should.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from medical_vqa.errors import ConfigError

Floats = NDArray[np.float64]
METHOD = "percentile bootstrap over groups"
WILSON = "Wilson score interval"
WILSON_OF_GROUPS = "Wilson score interval, a group as one trial"
_DRAWS_AT_ONCE = 4_000_000  # resamples x groups held in memory together: 32 MB of weights
_MOST_CLUSTERS = 10_000
_SAME = 1e-12  # resampled values closer than this are one value


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval, or the reason why there is none."""

    low: float | None
    """Lower bound, in the units of the score; None where undefined."""
    high: float | None
    """Upper bound; None where undefined."""
    level: float
    """Nominal coverage: 0.95."""
    method: str
    """How it was computed."""
    reason: str | None = None
    """Why there is no interval; None where there is one."""


def clustered_bootstrap(
    counts: Floats,
    clusters: Sequence[str],
    value: Callable[[Floats], Floats],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of `value`, drawing whole clusters with replacement.

    Args:
        counts: Per-example counts, (examples, k).
        clusters: The group of each example; examples of one group are drawn together or not at all.
        value: Totals (resamples, k) -> scores (resamples,).
        resamples: How many times to draw as many clusters as there are.
        level: Nominal coverage in (0, 1).
        seed: Of the draws: equal input and seed give an equal interval.

    Returns:
        The interval; without bounds, and with a reason, for fewer than two clusters or where every resample
        gives the same score. There a width of zero would claim a certainty that the data do not have.

    Raises:
        ConfigError: If `resamples` or `level` is out of range.
        ValueError: If the lengths differ.

    Source: the cluster bootstrap of Field and Welsh, "Bootstrapping clustered data", J. R. Statist. Soc. B 69
    (2007).
    """
    _check(counts, clusters, resamples, level)
    sums = cluster_sums(counts, clusters)
    if len(sums) < 2:
        return _undefined(level, "fewer than two groups")
    sums = _merged(sums, np.random.default_rng(seed))
    drawn = np.concatenate([value(weights @ sums) for weights in _weights(seed, resamples, len(sums))])
    if np.ptp(drawn) < _SAME:
        return _undefined(level, "every resample gives the same score")
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, METHOD)


def cluster_sums(counts: Floats, clusters: Sequence[str]) -> Floats:
    """Counts added up per cluster, (clusters, k); in the order of the sorted cluster names."""
    names, index = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    sums = np.zeros((len(names), counts.shape[1]))
    np.add.at(sums, index, counts)
    return sums


def _weights(seed: int, resamples: int, clusters: int) -> Iterable[Floats]:
    """How often each cluster was drawn, (some resamples, clusters), until there were `resamples` of them."""
    small = resamples * clusters <= _DRAWS_AT_ONCE
    return _kept_weights(seed, resamples, clusters) if small else _draw(seed, resamples, clusters)


@lru_cache(maxsize=4)  # the metrics of one table resample the same groups: 32 MB each at most
def _kept_weights(seed: int, resamples: int, clusters: int) -> tuple[Floats, ...]:
    return tuple(_draw(seed, resamples, clusters))


def _draw(seed: int, resamples: int, clusters: int) -> Iterator[Floats]:
    rng, step = np.random.default_rng(seed), max(1, _DRAWS_AT_ONCE // clusters)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, clusters, size=(rows, clusters))
        drawn += np.arange(rows)[:, None] * clusters  # a separate range of bins per resample: one bincount for all
        yield np.bincount(drawn.ravel(), minlength=rows * clusters).reshape(rows, clusters).astype(float)


def _merged(sums: Floats, rng: np.random.Generator) -> Floats:
    """At most `_MOST_CLUSTERS` rows: more are added up in bundles drawn by chance.

    Sums of independent groups are independent, and so many of them vary as the single ones do: a million groups then
    cost no more than ten thousand, and the interval stays the same to the third digit.
    """
    if len(sums) <= _MOST_CLUSTERS:
        return sums
    bundle = rng.permutation(len(sums)) % _MOST_CLUSTERS
    merged = np.zeros((_MOST_CLUSTERS, sums.shape[1]))
    np.add.at(merged, bundle, sums)
    return merged


def _undefined(level: float, reason: str) -> Interval:
    return Interval(None, None, level, METHOD, reason)


def wilson(right: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of one proportion whose trials are independent.

    For questions that share images it is too narrow: it stands where each image occurs once, or for a handful of rows.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if not 0 <= right <= n or not 0 < level < 1:
        raise ConfigError(f"a proportion needs 0 <= right <= n and 0 < level < 1, got {right} of {n} and {level}")
    if n == 0:
        return Interval(None, None, level, WILSON, "nothing to count")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, spread = right / n, z * math.sqrt(right * (n - right) / n + z * z / 4) / (n + z * z)
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    return Interval(max(0.0, center - spread), min(1.0, center + spread), level, WILSON)


def wilson_of_groups(all_right: bool, groups: int, level: float = 0.95) -> Interval:
    """The interval of a share that is 0 or 1 in every group, which no resample can move.

    As many trials as groups, as if the questions of an image were one: wide rather than falsely sure.
    """
    return replace(wilson(groups if all_right else 0, groups, level), method=WILSON_OF_GROUPS)


def _check(counts: Floats, clusters: Sequence[str], resamples: int, level: float) -> None:
    if counts.ndim != 2 or len(counts) != len(clusters):
        raise ValueError(f"expected one row of counts per cluster name, got {counts.shape} and {len(clusters)} names")
    if resamples < 1 or not 0 < level < 1:
        raise ConfigError(f"an interval needs resamples >= 1 and 0 < level < 1, got {resamples} and {level}")

"""Bootstrap intervals that resample whole groups, because questions about one image depend on each other.

SLAKE asks eleven questions per image; an interval that resamples single questions has about half the right width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from medical_vqa.errors import ConfigError
from medical_vqa.schema.results import Interval

Floats = NDArray[np.float64]
Weights = NDArray[np.uint8]
"""How often each cluster is drawn, (resamples, clusters); 256 draws of one of many clusters do not occur."""
Clusters = Sequence[str] | NDArray[np.intp]
"""The cluster of each row, by name or by a number from 0."""
METHOD = "percentile bootstrap over groups"
WILSON = "Wilson score interval"
WILSON_OF_GROUPS = "Wilson score interval, a group as one trial"
WILSON_CLUSTERED = "Wilson score interval, trials divided by the design effect of groups"
_MAX_WEIGHTS = 4_000_000  # resamples x groups in one matrix product: 32 MB
_MAX_CACHED = 20_000_000  # resamples x groups kept for the next metric, a byte each
_MAX_CLUSTERS = 10_000
_TOLERANCE = 1e-12  # resampled values closer than this are one value


def clustered_bootstrap(
    counts: Floats,
    clusters: Clusters,
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
        seed: Seed of the draws: equal input and seed give an equal interval.

    Returns:
        The interval, of the resamples that have a score; without bounds, and with a reason, for fewer than two
        clusters or if every resample gives the same score. There a width of zero would claim a certainty that the
        data do not have.

    Raises:
        ConfigError: If `resamples` or `level` is out of range.
        ValueError: If the lengths differ.

    Source: the cluster bootstrap of Field and Welsh, "Bootstrapping clustered data", J. R. Statist. Soc. B 69
    (2007).
    """
    if counts.ndim != 2 or len(counts) != len(clusters):
        raise ValueError(f"expected one row of counts per cluster name, got {counts.shape} and {len(clusters)} names")
    if resamples < 1 or not 0 < level < 1:
        raise ConfigError(f"an interval needs resamples >= 1 and 0 < level < 1, got {resamples} and {level}")
    sums = cluster_sums(counts, clusters)
    if len(sums) < 2:
        return Interval(low=None, high=None, level=level, method=METHOD, reason="fewer than two groups")
    sums = bundled(sums, seed)
    fits_in_memory = resamples * len(sums) <= _MAX_CACHED
    draw: Callable[[int, int, int], Iterable[Weights]] = _cached_weights if fits_in_memory else _drawn_weights
    scores = np.concatenate([value(weights.astype(float) @ sums) for weights in draw(seed, resamples, len(sums))])
    scores = scores[~np.isnan(scores)]  # nothing was counted, such as four words in a row
    if not len(scores) or np.ptp(scores) < _TOLERANCE:
        reason = "every resample gives the same score" if len(scores) else "nothing to count"
        return Interval(low=None, high=None, level=level, method=METHOD, reason=reason)
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high), level=level, method=METHOD)


def cluster_sums(counts: Floats, clusters: Clusters) -> Floats:
    """Counts added up per cluster, (clusters, k); in the order of the sorted cluster names or numbers."""
    index = _without_gaps(clusters) if isinstance(clusters, np.ndarray) else cluster_numbers(clusters)
    if not len(index):
        return np.zeros((0, counts.shape[1]))
    return np.stack([np.bincount(index, column) for column in counts.T], axis=1)


def count_clusters(clusters: NDArray[np.intp]) -> int:
    """How many different clusters rows have."""
    return int(np.count_nonzero(np.bincount(clusters))) if len(clusters) else 0


def _without_gaps(clusters: NDArray[np.intp]) -> NDArray[np.intp]:
    """The same clusters in the same order, numbered from 0 without those that have no row."""
    has_rows = np.bincount(clusters) > 0
    return clusters if has_rows.all() else (np.cumsum(has_rows) - 1)[clusters]


def cluster_numbers(clusters: Sequence[str]) -> NDArray[np.intp]:
    """The number of each row's cluster, in the order of the sorted names."""
    number = {name: position for position, name in enumerate(sorted(set(clusters)))}
    return np.fromiter((number[name] for name in clusters), np.intp, len(clusters))


def wilson(right: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of one proportion whose trials are independent.

    For questions that share images it is too narrow; use it if each image occurs once, or for a handful of rows.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if not 0 <= right <= n or not 0 < level < 1:
        raise ConfigError(f"a proportion needs 0 <= right <= n and 0 < level < 1, got {right} of {n} and {level}")
    if n == 0:
        return Interval(low=None, high=None, level=level, method=WILSON, reason="nothing to count")
    return _wilson(right / n, n, level, WILSON)


def _wilson(rate: float, trials: float, level: float, method: str) -> Interval:
    z = NormalDist().inv_cdf(0.5 + level / 2)
    half_width = z * math.sqrt(rate * (1 - rate) * trials + z * z / 4) / (trials + z * z)
    center = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    return Interval(low=max(0.0, center - half_width), high=min(1.0, center + half_width), level=level, method=method)


def wilson_clustered(right: NDArray[np.bool_], clusters: NDArray[np.intp], level: float = 0.95) -> Interval:
    """Wilson's interval of a proportion whose trials depend on each other within clusters, of few trials too.

    The number of trials is divided by the design effect: the variance of the proportion over clusters, as a multiple of
    what independent trials would have; at least 1, and where all or none are right a cluster counts as one trial.

    Args:
        right: Whether each trial is a success, at least one trial.
        clusters: The cluster of each trial, by number.
        level: Nominal coverage in (0, 1).

    Source: Kish, "Survey sampling" (1965); Dean and Pagano, J. Surv. Stat. Methodol. 3 (2015), for Wilson's interval.
    """
    right_of, trials_of = cluster_sums(np.stack([right, np.ones(len(right))], axis=1), clusters).T
    trials, groups = float(trials_of.sum()), len(trials_of)
    rate = float(right_of.sum()) / trials
    largest = float((trials_of**2).sum()) / trials  # where all trials of a cluster have one outcome
    effect = largest
    if 0 < rate < 1 and groups > 1:
        variance = groups / (groups - 1) * float(((right_of - rate * trials_of) ** 2).sum()) / trials**2
        effect = min(max(variance * trials / (rate * (1 - rate)), 1.0), largest)
    return _wilson(rate, trials / effect, level, WILSON_CLUSTERED)


def wilson_of_groups(all_right: bool, groups: int, level: float = 0.95) -> Interval:
    """The interval of a proportion that is 0 or 1 in every group, which no resample can change.

    It counts as many trials as groups, as if the questions of an image were one: too wide rather than falsely certain.
    """
    interval = wilson(groups if all_right else 0, groups, level)
    return interval.model_copy(update={"method": WILSON_OF_GROUPS})


@lru_cache(maxsize=4)  # the metrics of one table resample the same groups: 20 MB each at most
def _cached_weights(seed: int, resamples: int, clusters: int) -> tuple[Weights, ...]:
    return tuple(_drawn_weights(seed, resamples, clusters))


def _drawn_weights(seed: int, resamples: int, clusters: int) -> Iterator[Weights]:
    """How often each cluster is drawn, in parts of (some resamples, clusters) until all resamples are there."""
    rng = np.random.default_rng(seed)
    step = max(1, _MAX_WEIGHTS // clusters)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        draws = rng.integers(0, clusters, size=(rows, clusters))
        draws += np.arange(rows)[:, None] * clusters  # a separate range of bins per resample: one bincount for all
        yield np.bincount(draws.ravel(), minlength=rows * clusters).reshape(rows, clusters).astype(np.uint8)


def bundled(sums: Floats, seed: int, most: int = _MAX_CLUSTERS) -> Floats:
    """The sums of so many random bundles of clusters; where there are no more clusters, the sums themselves.

    Sums of independent groups are independent, and so many of them vary as the single ones do: a million groups then
    cost no more than ten thousand, and the interval stays the same to the third digit.
    """
    if len(sums) <= most:
        return sums
    bundle = np.random.default_rng(seed).permutation(len(sums)) % most
    return np.stack([np.bincount(bundle, column, most) for column in sums.T], axis=1)

"""From which confidence a model may answer, so that a stated fraction of wrong answers is kept with 95 % confidence.

The lowest of hundreds of thresholds that looks good is good by chance too often, and questions about one image are not
independent. So the thresholds are tried in a fixed sequence, from few answers to many, each by a test at 5 % whose unit
is the image, and the search ends at the first that fails: the chance that the chosen one keeps the risk only by luck is
at most 5 %. Source: fixed-sequence testing as in Angelopoulos et al., "Learn then test" (2021); Clopper and Pearson,
Biometrika 26 (1934), with the number of trials divided by the design effect (Kish, "Survey sampling", 1965).
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from medical_vqa.errors import ConfigError
from medical_vqa.evaluation.statistics.intervals import cluster_numbers
from medical_vqa.schema.results import Abstention

Outcome = tuple[float, bool, str]
"""Confidence of an answer, whether it is right, and its group (image or patient)."""
LEVEL = 0.05
"""Chance that a chosen threshold does not keep the risk."""
_COARSE, _FINE = 0.05, 0.01
"""Steps of the sequence, as fractions of the answers: up to half of them, and beyond, where a test can tell more."""
_ERRORS_AT_FIRST = 2
"""Errors that the first test may have: without them one error among the surest answers would end the search."""
_MAX_EXACT = 20_000  # trials above which the normal approximation of the binomial distribution is close


def choose_threshold(outcomes: Sequence[Outcome], risk: float) -> Abstention | None:
    """The lowest threshold of a fixed sequence that keeps the risk; None if there is none.

    The sequence is the confidences above which 5, 10 ... 50, 51, 52 ... 100 % of the answers are, beginning where so
    many images are answered that the test could be passed with two errors; where there are fewer images in all, without
    one. It depends on the confidences alone.

    Args:
        outcomes: Confidence, correctness and group of each answer.
        risk: The tolerated fraction of wrong answers among those given.

    Raises:
        ConfigError: `risk` is not between 0 and 1.
    """
    if not 0 < risk < 1:
        raise ConfigError(f"the tolerated risk is {risk}; give a fraction between 0 and 1, such as 0.05")
    if not outcomes:
        return None
    arrays = _arrays(outcomes)
    ranked = np.sort(arrays[0])[::-1]
    fractions = [*np.arange(_COARSE, 0.5, _COARSE), *np.arange(0.5, 1 + _FINE / 2, _FINE)]
    positions = [max(1, round(len(ranked) * fraction)) for fraction in fractions]
    sizes = range(_ERRORS_AT_FIRST + 1, int(arrays[2].max()) + 2)
    enough = bisect_left(sizes, True, key=lambda groups: _at_most(_ERRORS_AT_FIRST, groups, risk) <= LEVEL)
    fewest_groups = sizes[enough] if enough < len(sizes) else math.log(LEVEL) / math.log(1 - risk)
    rule = None
    for threshold in dict.fromkeys(float(ranked[position - 1]) for position in positions):
        tried = _applied(arrays, threshold, risk, "these rows, in a fixed sequence of thresholds")
        if tried.groups < fewest_groups:
            continue
        if tried.risk_upper_bound > risk:
            break
        rule = tried
    return rule


def stored_threshold(threshold: float) -> float:
    """A threshold with four decimals, rounded down, so that the answer that it was chosen at is still given."""
    return math.floor(threshold * 1e4) / 1e4


def apply_threshold(outcomes: Sequence[Outcome], threshold: float, risk: float, *, chosen_on: str) -> Abstention:
    """What a threshold does on some rows.

    Args:
        outcomes: Confidence, correctness and group of each answer.
        threshold: Lowest confidence of an answer that is given.
        risk: The tolerated fraction of wrong answers among those given.
        chosen_on: The rows that it was chosen on.
    """
    return _applied(_arrays(outcomes), threshold, risk, chosen_on)


_Arrays = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]


def _arrays(outcomes: Sequence[Outcome]) -> _Arrays:
    """Confidence, 1 where wrong, and number of the group, of each answer."""
    confidence = np.array([value for value, *_ in outcomes], float)
    wrong = np.array([not right for _, right, _ in outcomes], float)
    return confidence, wrong, cluster_numbers([group for *_, group in outcomes])


def _applied(arrays: _Arrays, threshold: float, risk: float, chosen_on: str) -> Abstention:
    confidence, wrong, groups = arrays
    answered = confidence >= threshold
    size = int(groups.max()) + 1 if len(groups) else 0
    per_group = np.bincount(groups[answered], minlength=size).astype(float)
    wrong_per_group = np.bincount(groups[answered], wrong[answered], size).astype(float)
    has_answers = per_group > 0
    return Abstention(
        risk=risk,
        threshold=threshold,
        coverage=float(answered.mean()) if len(answered) else 0.0,
        answered=int(answered.sum()),
        wrong=int(wrong[answered].sum()),
        groups=int(has_answers.sum()),
        risk_upper_bound=clustered_upper_bound(wrong_per_group[has_answers], per_group[has_answers]),
        chosen_on=chosen_on,
    )


@lru_cache(maxsize=1 << 17)
def half_of(group: str) -> int:
    """The half, 0 or 1, that a group belongs to where one half decides and the other is measured."""
    return hashlib.sha256(group.encode()).digest()[0] % 2


def clustered_upper_bound(wrong: NDArray[np.float64], answered: NDArray[np.float64]) -> float:
    """One-sided 95 % upper bound of a fraction whose trials are dependent within groups.

    The binomial bound of the number of trials divided by the design effect, which is estimated with one more group of
    the mean size, all of it wrong: with few errors the observed ones say too little about their dependence.

    Args:
        wrong: Wrong answers of each group.
        answered: Answers of each group, at least 1.
    """
    groups, total = len(answered), float(answered.sum())
    if groups < 2:
        return 1.0
    mean = total / groups
    rate = (wrong.sum() + mean) / (total + mean)
    squares = float(((wrong - rate * answered) ** 2).sum()) + ((1 - rate) * mean) ** 2
    variance = squares * (groups + 1) / groups / (total + mean) ** 2
    independent = rate * (1 - rate) / (total + mean)
    design_effect = variance / independent if independent > 0 else math.inf
    design_effect = min(max(design_effect, 1.0), float((answered**2).sum()) / total)
    return _binomial_upper_bound(math.ceil(wrong.sum() / design_effect - 1e-9), int(total / design_effect))


def _binomial_upper_bound(wrong: int, trials: int) -> float:
    """The rate at which so few wrong ones have a chance of 5 % (Clopper and Pearson), by bisection."""
    if trials <= wrong:
        return 1.0
    low, high = wrong / trials, 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(wrong, trials, middle) > LEVEL else (low, middle)
    return high


def _at_most(wrong: int, trials: int, rate: float) -> float:
    """The chance of at most `wrong` of `trials` at a rate."""
    if trials > _MAX_EXACT:
        deviation = math.sqrt(trials * rate * (1 - rate))
        return 0.5 * math.erfc((trials * rate - wrong - 0.5) / deviation / math.sqrt(2))
    log_rate, log_rest = math.log(rate), math.log1p(-rate) if rate < 1 else -math.inf
    term = trials * log_rest
    total = math.exp(term)
    for k in range(1, wrong + 1):
        term += math.log((trials - k + 1) / k) + log_rate - log_rest
        total += math.exp(term)
    return total

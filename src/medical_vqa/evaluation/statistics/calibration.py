"""Whether confidence means what it says, and below which confidence a model should say that it does not know.

A temperature divides the log-odds of the confidence: above 1 it makes a model less sure. It changes no answer and no
order, only the numbers. Source: Guo et al., "On calibration of modern neural networks", ICML 2017; here of the
confidence alone, so that it fits any model whose predictions are known.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from medical_vqa.errors import ConfigError, DataError
from medical_vqa.evaluation.answers import Answered
from medical_vqa.evaluation.statistics.intervals import Interval, wilson
from medical_vqa.models.calibration import SURE, temperature_scaled

BINS = 10
RISK = 0.1
"""The share of wrong answers that is tolerated among those given, when nobody says otherwise."""
_MOST_POINTS = 100
_LEAST, _MOST = math.log(0.05), math.log(20.0)  # temperatures are sought between these
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of about equal confidence."""

    low: float
    """Lower bound, included."""
    high: float
    """Upper bound; included in the last bin only."""
    n: int
    """Answers."""
    confidence: float
    """Their mean confidence."""
    right: float
    """The share of them that is right."""
    interval: Interval
    """Wilson's, of that share."""


@dataclass(frozen=True, slots=True)
class Abstention:
    """From which confidence to answer, for a stated risk."""

    risk: float
    """The share of wrong answers among those given that is tolerated."""
    threshold: float
    """Answers of at least this confidence are given."""
    coverage: float
    """The share of questions that is answered so."""
    answered: int
    """How many that were."""
    wrong: int
    """How many of those were wrong."""
    upper: float
    """One-sided 95 % upper bound of their share, which is at most `risk`."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far confidence can be trusted."""

    n: int
    """Answers with a confidence."""
    without: int
    """Answers without one: in no number here."""
    accuracy: float
    """Share right."""
    confidence: float
    """Mean confidence."""
    ece: float
    """Expected calibration error: the mean distance of confidence and accuracy over ten bins of equal width."""
    brier: float
    """Mean squared distance of confidence and being right; 0 is best."""
    brier_base: float
    """The same for a model that always gives the accuracy as its confidence."""
    aurc: float
    """Area under the risk-coverage curve: the mean risk over all coverages; smaller is better."""
    bins: tuple[Bin, ...]
    """The reliability diagram; empty bins are left out."""
    curve: tuple[tuple[float, float], ...]
    """Risk-coverage: (share answered, share of those wrong), surest first."""
    temperature: float
    """Divides the log-odds."""
    temperature_from: str
    """What it was fitted on."""
    ece_after: float
    """The same error with the temperature applied."""
    brier_after: float
    """Likewise."""
    abstention: Abstention | None
    """When to answer, for a stated risk; None where no threshold gives so small a one."""


def calibrate(
    answered: Sequence[Answered],
    *,
    risk: float = RISK,
    temperature: float | None = None,
    source: str = "",
) -> Calibration | None:
    """Everything about the confidence of these answers; None where none has a confidence.

    Without a `temperature` each half of the images is scored with the one that fits the other half, so that the error
    afterwards is that of questions it was not fitted on.

    Args:
        answered: Judged answers.
        risk: The tolerated share of wrong answers among those given.
        temperature: From a bundle, fitted on other rows.
        source: What it was fitted on.

    Raises:
        ConfigError: `risk` is not between 0 and 1.
    """
    _check_risk(risk)
    sure = [(a.confidence, a.right, a.example.group) for a in answered if a.confidence is not None]
    if not sure:
        return None
    pairs = [(confidence, right) for confidence, right, _ in sure]
    if temperature is None:
        after, source = _cross_fitted(sure), "two halves of the images, each fitted on the other"
        temperature = fit_temperature(pairs)
    else:
        after = [(temperature_scaled(confidence, temperature), right) for confidence, right in pairs]
    accuracy = sum(right for _, right in pairs) / len(pairs)
    curve = risk_coverage(pairs)
    return Calibration(
        n=len(pairs),
        without=len(answered) - len(pairs),
        accuracy=accuracy,
        confidence=sum(confidence for confidence, _ in pairs) / len(pairs),
        ece=expected_error(pairs),
        brier=brier(pairs),
        brier_base=accuracy * (1 - accuracy),
        aurc=area(curve),
        bins=reliability(pairs),
        curve=_thinned(curve),
        temperature=temperature,
        temperature_from=source,
        ece_after=expected_error(after),
        brier_after=brier(after),
        abstention=abstention(pairs, risk),
    )


Pairs = Sequence[tuple[float, bool]]


def fit_temperature(pairs: Pairs) -> float:
    """The temperature under which the answers, right and wrong, are most likely; raises `DataError` without any."""
    if not pairs:
        raise DataError("no answer has a confidence, so no temperature fits; predict with a model that gives one")

    inside = np.clip([confidence for confidence, _ in pairs], SURE, 1 - SURE)
    odds = np.log(inside / (1 - inside)) * np.where([right for _, right in pairs], 1.0, -1.0)

    def surprise(log_temperature: float) -> float:
        """Of what came, right or wrong: the log-odds of wrong answers have their sign turned."""
        return float(np.logaddexp(0.0, -odds / math.exp(log_temperature)).sum())

    return math.exp(_minimum(surprise, _LEAST, _MOST))


def expected_error(pairs: Pairs) -> float:
    """ECE over ten bins of equal width."""
    return sum(one.n * abs(one.confidence - one.right) for one in reliability(pairs)) / len(pairs)


def brier(pairs: Pairs) -> float:
    """Mean squared distance of confidence and outcome. Source: Brier, Monthly Weather Review 78 (1950)."""
    return sum((confidence - right) ** 2 for confidence, right in pairs) / len(pairs)


def reliability(pairs: Pairs) -> tuple[Bin, ...]:
    """Confidence and accuracy in ten bins of equal width, empty ones left out."""
    inside: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for confidence, right in pairs:
        inside[min(int(confidence * BINS), BINS - 1)].append((confidence, right))
    return tuple(_bin(number, part) for number, part in enumerate(inside) if part)


def risk_coverage(pairs: Pairs) -> list[tuple[float, float]]:
    """(share answered, share of those wrong) as the threshold falls; answers of equal confidence go together."""
    ranked = sorted(pairs, key=lambda pair: -pair[0])
    points, wrong = [], 0
    for number, (confidence, right) in enumerate(ranked, 1):
        wrong += not right
        if number == len(ranked) or ranked[number][0] != confidence:
            points.append((number / len(ranked), wrong / number))
    return points


def area(curve: Sequence[tuple[float, float]]) -> float:
    """Mean risk over all coverages, each step at its risk."""
    before = [0.0, *(coverage for coverage, _ in curve)]
    return sum((coverage - last) * risk for last, (coverage, risk) in zip(before, curve, strict=False))


def abstention(pairs: Pairs, risk: float) -> Abstention | None:
    """The lowest threshold whose answers are wrong in at most a share `risk`, by Wilson's one-sided 95 % bound."""
    _check_risk(risk)
    ranked = sorted(pairs, key=lambda pair: -pair[0])
    best, wrong = None, 0
    for number, (confidence, right) in enumerate(ranked, 1):
        wrong += not right
        if number < len(ranked) and ranked[number][0] == confidence:
            continue
        upper = wilson(wrong, number, 0.9).high or 0.0
        if upper <= risk:
            best = Abstention(risk, confidence, number / len(ranked), number, wrong, upper)
    return best


def _bin(number: int, part: Pairs) -> Bin:
    right = sum(outcome for _, outcome in part)
    confidence = sum(value for value, _ in part) / len(part)
    return Bin(number / BINS, (number + 1) / BINS, len(part), confidence, right / len(part), wilson(right, len(part)))


def _cross_fitted(sure: Sequence[tuple[float, bool, str]]) -> list[tuple[float, bool]]:
    halves: tuple[list[tuple[float, bool]], list[tuple[float, bool]]] = ([], [])
    for confidence, right, group in sure:
        halves[hashlib.sha256(group.encode()).digest()[0] % 2].append((confidence, right))
    after = []
    for here, other in (halves, halves[::-1]):
        temperature = fit_temperature(other) if other else 1.0
        after += [(temperature_scaled(confidence, temperature), right) for confidence, right in here]
    return after


def _thinned(curve: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    if len(curve) <= _MOST_POINTS:
        return tuple(curve)
    kept = {round(n * (len(curve) - 1) / (_MOST_POINTS - 1)) for n in range(_MOST_POINTS)}
    return tuple(curve[index] for index in sorted(kept))


def _minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one valley is lowest, by golden section; to four digits."""
    while high - low > 1e-4:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if function(left) < function(right):
            high = right
        else:
            low = left
    return (low + high) / 2


def _check_risk(risk: float) -> None:
    if not 0 < risk < 1:
        raise ConfigError(f"the tolerated risk is {risk}; give a share between 0 and 1, such as 0.05")

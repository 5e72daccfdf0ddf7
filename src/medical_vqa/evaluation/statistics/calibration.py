"""Whether confidence can be trusted, and below which confidence a model should abstain.

A temperature divides the log-odds of the confidence: above 1 it makes a model less confident. It changes no answer and
no order, only the numbers. Source: Guo et al., "On calibration of modern neural networks", ICML 2017; here of the
confidence alone, so that it fits any model whose predictions are known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from medical_vqa.errors import DataError
from medical_vqa.evaluation.statistics.abstention import Outcome, apply_threshold, choose_threshold, half_of
from medical_vqa.evaluation.statistics.correctness import JudgedAnswer
from medical_vqa.evaluation.statistics.intervals import cluster_numbers, wilson_clustered
from medical_vqa.models.calibration import MIN_DISTANCE, temperature_scaled
from medical_vqa.schema.results import Abstention, Calibration, CalibrationBin

Outcomes = Sequence[tuple[float, bool]]
"""(confidence, correct) of each answer."""
BINS = 10
DEFAULT_RISK = 0.1
"""Fraction of wrong answers that is tolerated among those given, unless configured."""
_MAX_POINTS = 100
_TEMPERATURES = 0.05, 20.0  # the range that is searched
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def calibrate(
    answers: Sequence[JudgedAnswer],
    *,
    risk: float = DEFAULT_RISK,
    temperature: float | None = None,
    temperature_source: str = "",
    threshold: float | None = None,
) -> Calibration | None:
    """Everything about the confidence of these answers; None if none has a confidence.

    Without a `temperature` each half of the images is scored with the one that fits the other half, so that the scaled
    error is that of questions it was not fitted on. A threshold for abstaining is never stated on rows that it was
    chosen on: without a `threshold` one half of the images chooses it, and its numbers are of the other half.

    Args:
        answers: Judged answers.
        risk: The tolerated fraction of wrong answers among those given.
        temperature: From a bundle, fitted on other rows.
        temperature_source: What it was fitted on.
        threshold: Scaled confidence from which the bundle answers, chosen on other rows together with the temperature.

    Raises:
        ConfigError: `risk` is not between 0 and 1.
    """
    confident = [(a.confidence, a.correct, a.example.group) for a in answers if a.confidence is not None]
    if not confident:
        return None
    outcomes = [(confidence, correct) for confidence, correct, _ in confident]
    if temperature is None:
        scaled = _cross_fitted(confident)
        temperature = fit_temperature(outcomes)
        temperature_source = "two halves of the images, each fitted on the other"
    else:
        scaled = [(temperature_scaled(confidence, temperature), correct) for confidence, correct in outcomes]
    if threshold is None:
        abstention = abstention_on_other_images(confident, risk)
    else:
        as_scaled = [(value, right, group) for (value, right), (*_, group) in zip(scaled, confident, strict=True)]
        abstention = apply_threshold(as_scaled, threshold, risk, chosen_on=temperature_source)
    accuracy = sum(correct for _, correct in outcomes) / len(outcomes)
    curve = risk_coverage(outcomes)
    return Calibration(
        n=len(outcomes),
        without_confidence=len(answers) - len(outcomes),
        accuracy=accuracy,
        confidence=sum(confidence for confidence, _ in outcomes) / len(outcomes),
        ece=expected_calibration_error(outcomes),
        brier=brier_score(outcomes),
        brier_constant=accuracy * (1 - accuracy),
        aurc=area_under(curve),
        bins=reliability_bins(confident),
        risk_coverage=_thinned(curve),
        temperature=temperature,
        temperature_source=temperature_source,
        scaled_ece=expected_calibration_error(scaled),
        scaled_brier=brier_score(scaled),
        abstention=abstention,
    )


def fit_temperature(outcomes: Outcomes) -> float:
    """The temperature under which the outcomes are most likely; raises `DataError` without any."""
    if not outcomes:
        raise DataError("no answer has a confidence, so no temperature fits; predict with a model that gives one")
    confidence = np.clip([value for value, _ in outcomes], MIN_DISTANCE, 1 - MIN_DISTANCE)
    signs = np.where([correct for _, correct in outcomes], 1.0, -1.0)
    log_odds_of_outcome = np.log(confidence / (1 - confidence)) * signs

    def negative_log_likelihood(log_temperature: float) -> float:
        return float(np.logaddexp(0.0, -log_odds_of_outcome / math.exp(log_temperature)).sum())

    low, high = _TEMPERATURES
    return math.exp(_minimum(negative_log_likelihood, math.log(low), math.log(high)))


def expected_calibration_error(outcomes: Outcomes) -> float:
    """ECE over ten bins of equal width."""
    parts = [outcomes_of_bin for outcomes_of_bin in _binned(outcomes) if outcomes_of_bin]
    distances = (abs(sum(confidence for confidence, _ in part) - sum(right for _, right in part)) for part in parts)
    return sum(distances) / len(outcomes)


def brier_score(outcomes: Outcomes) -> float:
    """Mean squared distance of confidence and outcome. Source: Brier, Monthly Weather Review 78 (1950)."""
    return sum((confidence - correct) ** 2 for confidence, correct in outcomes) / len(outcomes)


def reliability_bins(outcomes: Sequence[Outcome]) -> tuple[CalibrationBin, ...]:
    """Confidence and accuracy in ten bins of equal width, without empty ones; intervals are clustered by group."""
    bins = []
    for number, part in enumerate(_binned(outcomes)):
        if part:
            right = np.array([correct for _, correct, _ in part], bool)
            bins.append(
                CalibrationBin(
                    low=number / BINS,
                    high=(number + 1) / BINS,
                    n=len(part),
                    confidence=sum(confidence for confidence, *_ in part) / len(part),
                    accuracy=float(right.mean()),
                    interval=wilson_clustered(right, cluster_numbers([group for *_, group in part])),
                )
            )
    return tuple(bins)


_AnyOutcome = TypeVar("_AnyOutcome", tuple[float, bool], Outcome)


def _binned(outcomes: Sequence[_AnyOutcome]) -> list[list[_AnyOutcome]]:
    """The outcomes of each of ten bins of equal width."""
    parts: list[list[_AnyOutcome]] = [[] for _ in range(BINS)]
    for outcome in outcomes:
        parts[min(int(outcome[0] * BINS), BINS - 1)].append(outcome)
    return parts


def risk_coverage(outcomes: Outcomes) -> list[tuple[float, float]]:
    """(fraction answered, fraction of those wrong) as the threshold falls; answers of equal confidence go together."""
    return [(answered / len(outcomes), wrong / answered) for answered, wrong, _ in _by_threshold(outcomes)]


def area_under(curve: Sequence[tuple[float, float]]) -> float:
    """Mean risk over all coverages, each step at its risk."""
    previous = [0.0, *(coverage for coverage, _ in curve)]
    return sum((coverage - last) * risk for last, (coverage, risk) in zip(previous, curve, strict=False))


def abstention_on_other_images(outcomes: Sequence[Outcome], risk: float) -> Abstention | None:
    """A threshold chosen on one half of the groups, and what it does on the other half; None if there is none."""
    halves: tuple[list[Outcome], list[Outcome]] = ([], [])
    for outcome in outcomes:
        halves[half_of(outcome[2])].append(outcome)
    rule = choose_threshold(halves[0], risk)
    if rule is None or not halves[1]:
        return None
    return apply_threshold(halves[1], rule.threshold, risk, chosen_on="the other half of the images")


def _by_threshold(outcomes: Outcomes) -> list[tuple[int, int, float]]:
    """(number answered, number of those wrong, threshold) for every distinct confidence, highest first."""
    ranked = sorted(outcomes, key=lambda outcome: -outcome[0])
    points, wrong = [], 0
    for answered, (confidence, correct) in enumerate(ranked, 1):
        wrong += not correct
        if answered == len(ranked) or ranked[answered][0] != confidence:
            points.append((answered, wrong, confidence))
    return points


def _cross_fitted(confident: Sequence[tuple[float, bool, str]]) -> list[tuple[float, bool]]:
    """Confidences of each half of the groups, scaled by the temperature that fits the other half."""
    halves: tuple[list[tuple[float, bool]], list[tuple[float, bool]]] = ([], [])
    for confidence, correct, group in confident:
        halves[half_of(group)].append((confidence, correct))
    scaled = []
    for half, other in (halves, halves[::-1]):
        temperature = fit_temperature(other) if other else 1.0
        scaled += [(temperature_scaled(confidence, temperature), correct) for confidence, correct in half]
    return scaled


def _thinned(curve: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """At most a hundred points of a curve, both ends among them."""
    if len(curve) <= _MAX_POINTS:
        return tuple(curve)
    positions = {round(n * (len(curve) - 1) / (_MAX_POINTS - 1)) for n in range(_MAX_POINTS)}
    return tuple(curve[position] for position in sorted(positions))


def _minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """The minimum of a unimodal function by golden-section search, to four digits."""
    while high - low > 1e-4:
        left, right = high - _GOLDEN_RATIO * (high - low), low + _GOLDEN_RATIO * (high - low)
        if function(left) < function(right):
            high = right
        else:
            low = left
    return (low + high) / 2

"""Confidence that means what it says, and a threshold for a stated risk."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medical_vqa.errors import ConfigError, DataError
from medical_vqa.evaluation.statistics.calibration import (
    area_under,
    brier_score,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
    risk_coverage,
)
from medical_vqa.evaluation.statistics.correctness import JudgedAnswer
from medical_vqa.models.calibration import temperature_scaled
from medical_vqa.schema.records import Example, Prediction

PAIRS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40)


def judged(pairs, per_image=1):
    return [
        JudgedAnswer(
            Example(str(n), f"scan-{n // per_image}", "?", ("yes",), f"scan-{n // per_image}"),
            Prediction(str(n), "yes", "yes", confidence),
            right,
        )
        for n, (confidence, right) in enumerate(pairs)
    ]


def sampled(n, temperature, seed=0):
    """Confidences of a model that is sure by `temperature` times too much log-odds."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(0.05, 0.95, n)
    return [(temperature_scaled(float(p), 1 / temperature), bool(rng.random() < p)) for p in true]


def test_two_bins_by_hand():
    pairs = [(0.95, True), (0.95, False), (0.15, False), (0.15, False)]
    assert [(one.n, one.confidence, one.accuracy) for one in reliability_bins([(*pair, "scan") for pair in pairs])] == [
        (2, pytest.approx(0.15), 0.0),
        (2, pytest.approx(0.95), 0.5),
    ]
    assert expected_calibration_error(pairs) == pytest.approx((2 * 0.15 + 2 * 0.45) / 4)
    assert brier_score(pairs) == pytest.approx((0.05**2 + 0.95**2 + 2 * 0.15**2) / 4)


def test_confidences_are_binned_with_both_ends_inside():
    first, last = reliability_bins([(1.0, True, "scan-1"), (0.05, False, "scan-2")])
    assert (first.low, first.n, first.accuracy) == (0.0, 1, 0.0)
    assert (last.high, last.n, last.accuracy) == (1.0, 1, 1.0)


def test_the_interval_of_a_bin_covers_its_accuracy_where_the_answers_about_an_image_depend_on_each_other():
    """Thirty images of ten answers, of which most are right or wrong together: single answers would cover half."""
    rng, covered = np.random.default_rng(3), 0
    for _ in range(400):
        image = rng.random(30) < 0.7
        right = [bool(image[n] if rng.random() < 0.8 else rng.random() < 0.7) for n in range(30) for _ in range(10)]
        (one,) = reliability_bins([(0.75, correct, f"scan-{n // 10}") for n, correct in enumerate(right)])
        covered += one.interval.low <= 0.7 <= one.interval.high
    assert 0.92 <= covered / 400 <= 0.98


def test_ece_equals_torchmetrics():
    import torch
    from torchmetrics.classification import BinaryCalibrationError

    pairs = sampled(500, 2.0)
    found = BinaryCalibrationError(n_bins=10, norm="l1")(
        torch.tensor([p for p, _ in pairs]), torch.tensor([int(right) for _, right in pairs])
    )
    assert expected_calibration_error(pairs) == pytest.approx(float(found), abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_recovered(temperature):
    assert fit_temperature(sampled(4000, temperature)) == pytest.approx(temperature, rel=0.12)


def test_a_model_that_is_too_sure_is_repaired_on_images_it_was_not_fitted_on():
    found = calibrate(judged(sampled(2000, 3.0), per_image=5))
    assert found.ece > 0.1 > 3 * found.scaled_ece
    assert found.scaled_brier < found.brier
    assert found.temperature == pytest.approx(3.0, rel=0.15)


def test_a_temperature_from_the_bundle_is_used_as_it_is():
    found = calibrate(judged(sampled(500, 2.0)), temperature=2.0, temperature_source="slake validation")
    assert (found.temperature, found.temperature_source) == (2.0, "slake validation")
    assert found.scaled_ece < found.ece


@given(PAIRS)
def test_risk_and_coverage_end_at_all_answers_and_their_share_wrong(pairs):
    curve = risk_coverage(pairs)
    assert curve[-1] == (1.0, pytest.approx(sum(not right for _, right in pairs) / len(pairs)))
    assert [coverage for coverage, _ in curve] == sorted(coverage for coverage, _ in curve)
    assert 0 <= area_under(curve) <= 1


@given(st.floats(0, 1), st.floats(0.05, 20))
def test_scaling_keeps_the_order_and_stays_inside(confidence, temperature):
    assert 0 < temperature_scaled(confidence, temperature) < 1
    assert temperature_scaled(0.5, temperature) == pytest.approx(0.5)


def test_nan_and_missing_confidences_are_counted_apart():
    given_pairs = [(math.nan, True), (None, True), (0.8, True), (0.3, False)]
    found = calibrate(judged(given_pairs))
    assert (found.n, found.without_confidence) == (2, 2)
    assert calibrate(judged([(None, True)])) is None
    assert calibrate([]) is None


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    found = calibrate(judged(sampled(3000, 1.0)))
    assert len(found.risk_coverage) <= 100
    assert found.risk_coverage[-1][0] == 1.0


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match="between 0 and 1"):
        calibrate(judged([(0.5, True)]), risk=1.0)
    with pytest.raises(DataError, match="no answer has a confidence"):
        fit_temperature([])

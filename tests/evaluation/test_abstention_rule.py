"""The threshold for abstaining keeps its promise: simulated at the tolerated risk, at a nominal 5 %."""

import numpy as np
import pytest

from medical_vqa.errors import ConfigError
from medical_vqa.evaluation.statistics.abstention import (
    apply_threshold,
    choose_threshold,
    clustered_upper_bound,
    stored_threshold,
)
from medical_vqa.evaluation.statistics.calibration import abstention_on_other_images

SIMULATIONS = 250


def simulated(rng, images, questions, dependence, risk):
    """Answers whose confidence says nothing: every threshold has exactly the tolerated risk."""
    group = np.repeat(np.arange(images), questions)
    own, shared = rng.random(len(group)), rng.random(images)[group]
    draws = np.where(rng.random(images)[group] < dependence, shared, own)
    return list(zip(rng.random(len(group)), draws >= risk, map(str, group), strict=True))


def chosen_although_too_risky(images, questions, dependence, risk):
    rng = np.random.default_rng(20)
    return sum(
        choose_threshold(simulated(rng, images, questions, dependence, risk), risk * 0.999) is not None
        for _ in range(SIMULATIONS)
    )


ALLOWED = SIMULATIONS * (0.05 + 1.65 * (0.05 * 0.95 / SIMULATIONS) ** 0.5)
"""Five per cent, and what chance adds to it in one of twenty runs."""


@pytest.mark.parametrize("dependence", [0.0, 0.5, 1.0])
def test_a_threshold_that_does_not_keep_the_risk_is_chosen_in_at_most_five_per_cent(dependence):
    assert chosen_although_too_risky(48, 6, dependence, 0.1) <= ALLOWED


@pytest.mark.slow
@pytest.mark.parametrize("risk", [0.05, 0.1, 0.2])
@pytest.mark.parametrize(
    ("images", "questions", "dependence"), [(200, 1, 0.0), (60, 8, 0.0), (60, 8, 0.5), (60, 8, 1.0), (90, 3, 1.0)]
)
def test_so_it_is_for_many_shapes_of_data(images, questions, dependence, risk):
    assert chosen_although_too_risky(images, questions, dependence, risk) <= ALLOWED


def test_a_model_that_knows_when_it_is_right_answers():
    rng = np.random.default_rng(0)
    confidence = rng.random(1000)
    outcomes = [(float(c), bool(rng.random() < c**0.1), f"scan-{n // 10}") for n, c in enumerate(confidence)]
    rule = choose_threshold(outcomes, 0.1)
    assert rule.coverage >= 0.5
    assert rule.wrong / rule.answered < rule.risk_upper_bound <= 0.1


def test_one_error_among_the_surest_answers_does_not_end_the_search():
    outcomes = [((1000 - n) / 1000, n != 3, f"scan-{n % 80}") for n in range(800)]
    rule = choose_threshold(outcomes, 0.1)
    assert rule.answered == 800


def test_beyond_half_of_the_answers_thresholds_are_tried_in_steps_of_one_percent():
    outcomes = [((1000 - n) / 1000, n < 700 or n % 2 == 0, f"scan-{n % 100}") for n in range(1000)]
    rule = choose_threshold(outcomes, 0.1)
    assert rule.answered == 820  # with a bound of 9.7 %
    assert apply_threshold(outcomes, 0.171, 0.1, chosen_on="these rows").risk_upper_bound > 0.1  # 830 answers


def test_the_bound_of_independent_answers_without_an_error_is_the_binomial_one():
    answered = np.ones(29)
    assert clustered_upper_bound(np.zeros(29), answered) == pytest.approx(1 - 0.05 ** (1 / 29), abs=1e-4)


def test_answers_about_one_image_count_as_one_where_they_are_wrong_together():
    wrong = np.array([10.0] * 4 + [0.0] * 36)
    together = clustered_upper_bound(wrong, np.full(40, 10.0))
    apart = clustered_upper_bound(np.ones(40), np.full(40, 10.0))
    assert together > apart + 0.05


def test_few_images_give_no_threshold_however_right_they_are():
    assert choose_threshold([(0.9, True, f"scan-{n % 10}") for n in range(1000)], 0.1) is None
    assert choose_threshold([], 0.1) is None
    with pytest.raises(ConfigError, match="between 0 and 1"):
        choose_threshold([(0.9, True, "a")], 0.0)


def test_what_a_threshold_does_is_stated_on_images_that_did_not_choose_it():
    outcomes = [(0.9 if n % 4 else 0.3, bool(n % 4), f"scan-{n // 4}") for n in range(1600)]
    rule = abstention_on_other_images(outcomes, 0.1)
    assert rule.chosen_on == "the other half of the images"
    assert 150 < rule.groups < 250  # of 400 images
    assert apply_threshold(outcomes, 0.9, 0.1, chosen_on="x").answered == 1200


def test_the_threshold_as_it_is_stored_gives_the_answer_that_it_was_chosen_at():
    assert stored_threshold(0.47889) == 0.4788
    rng = np.random.default_rng(3)
    for _ in range(20):
        outcomes = [(float(rng.random()), True, str(group)) for group in range(60)]
        rule = choose_threshold(outcomes, 0.1)
        given = apply_threshold(outcomes, stored_threshold(rule.threshold), 0.1, chosen_on="")
        assert given.answered >= rule.answered > 0

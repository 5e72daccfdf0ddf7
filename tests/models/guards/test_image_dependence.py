"""Image dependence is a distance between answers, whatever model gives them."""

import pytest

from medical_vqa.models.guards.pictures.image_dependence import (
    ImageDependence,
    answer_source,
    image_dependence,
    total_variation,
)
from medical_vqa.schema.records import Prediction


def answer(text, confidence, *alternatives):
    return Prediction("q", text, text, confidence, alternatives)


def test_the_same_answer_for_every_picture_scores_zero():
    measured = image_dependence(answer("No", 0.9, ("Yes", 0.1)), [answer("No", 0.9, ("Yes", 0.1))] * 6)
    assert (measured.score, measured.same_answer, measured.references) == (0.0, 1.0, 6)
    assert not measured.depends_on_image


def test_another_answer_for_every_picture_scores_one():
    measured = image_dependence(answer("Liver", 1.0), [answer("Lung", 1.0), answer("Heart", 1.0)])
    assert (measured.score, measured.same_answer) == (1.0, 0.0)
    assert measured.depends_on_image


def test_the_score_is_the_mean_over_the_reference_pictures():
    pictures = [answer("Yes", 0.8, ("No", 0.2)), answer("No", 0.6, ("Yes", 0.4))]
    assert image_dependence(answer("Yes", 0.8, ("No", 0.2)), pictures).score == pytest.approx((0 + 0.4) / 2)


def test_what_is_not_listed_counts_as_one_further_answer():
    assert total_variation({"Yes": 0.5}, {"Yes": 0.7}) == pytest.approx(0.2)
    assert total_variation({"Yes": 0.5}, {"No": 0.5}) == pytest.approx(0.5)  # the other halves may be equal


def test_without_reference_pictures_nothing_is_measured():
    assert image_dependence(answer("Yes", 0.9), []) is None


@pytest.mark.parametrize(("others", "score"), [(["Yes", "Yes"], 0.0), (["Yes", "No"], 0.5), (["No", "No"], 1.0)])
def test_without_confidence_the_answers_alone_are_compared(others, score):
    assert image_dependence(answer("Yes", None), [answer(text, None) for text in others]).score == score
    assert image_dependence(answer("Yes", 0.6), [answer(text, None) for text in others]).score == score


@pytest.mark.parametrize(
    ("text", "about_image", "source"),
    [("Lung", True, "picture"), ("No", True, "usual"), ("No", False, "knowledge")],
)
def test_a_shown_answer_says_where_it_comes_from(text, about_image, source):
    measured = image_dependence(answer(text, 1.0), [answer("No", 1.0)] * 3)
    assert answer_source(measured, about_image=about_image) == source
    assert answer_source(None, about_image=about_image) is None


def test_the_modality_is_read_from_the_picture_although_pictures_of_its_type_share_it():
    measured = ImageDependence(score=0.0, same_answer=1.0, references=6)
    assert answer_source(measured, about_image=True, names_image_type=True) == "picture"
    assert answer_source(measured, about_image=False, names_image_type=True) == "knowledge"

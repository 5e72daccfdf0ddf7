"""The shipped model, asked in other words than its training rows have."""

from pathlib import Path

import pytest

import medical_vqa as mv

IMAGE = Path(mv.__file__).parent / "assets/slake-mini/imgs/xmlab112/source.jpg"


@pytest.fixture(scope="module")
def shipped():
    return mv.load("shipped")


@pytest.fixture(scope="module")
def image():
    return IMAGE


def test_a_synonym_gets_the_answer_of_the_known_word(shipped, image):
    axial, transverse = shipped.ask_many(image, ["Is this an axial plane?", "Is this a transverse plane?"])
    assert (axial.text, axial.abstained) == (transverse.text, transverse.abstained)


def test_all_words_that_are_not_understood_are_named(shipped, image):
    reason = shipped.ask(image, "Is the zebra on the giraffe in a volcano?").reason
    assert all(word in reason for word in ("'zebra'", "'volcano'", "'giraffe'"))


def test_what_is_offered_is_answered_about_the_same_picture(shipped, image):
    answer = shipped.ask(image, "Is the gallbladder seen in this axial film?")
    assert answer.abstained
    assert 1 <= len(answer.suggestions) <= 3
    assert not any(other.abstained for other in shipped.ask_many(image, answer.suggestions))


def test_a_follow_up_repeats_the_question_before_it(shipped, image):
    _, follow_up = shipped.ask_many(image, ["Does the picture contain liver?", "and the spleen?"])
    assert follow_up.question == "Does the picture contain spleen?"


def test_a_follow_up_alone_is_refused_with_its_reason(shipped, image):
    assert "ask a whole question" in shipped.ask(image, "and the spleen?").reason


def test_why_is_declined(shipped, image):
    assert "cannot say why" in shipped.ask(image, "Why?").reason


def test_two_questions_in_one_are_offered_one_by_one(shipped, image):
    answer = shipped.ask(image, "What modality is used to take this image? Does the picture contain liver?")
    assert answer.reason.startswith("These are 2 questions")
    assert set(answer.suggestions) <= {"What modality is used to take this image?", "Does the picture contain liver?"}
    assert answer.suggestions


def test_a_question_for_yes_or_no_lists_no_other_alternatives(shipped, image):
    for answer in shipped.ask_many(
        image, ["Is there a tumor?", "Does the picture contain liver?", "Is the lung healthy?"]
    ):
        assert {text for text, _ in answer.alternatives} <= {"Yes", "No"}

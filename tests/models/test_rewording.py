"""Questions in other words."""

import random

import pytest

from medical_vqa.models.compact.rewording import reword, rule_phrases
from medical_vqa.models.vocabulary import words


def wordings(question, n=300):
    draw = random.Random(0)
    return {reword(question, draw.randrange) for _ in range(n)}


@pytest.mark.parametrize(
    "question",
    [
        "Does the picture contain liver?",
        "Where is/are the mass located?",
        "How many kidneys in this image?",
        "Is this a CT?",
    ],
)
def test_a_question_that_a_rule_matches_gets_many_wordings_about_the_same_entity(question):
    entities = {"contain": "liver", "located": "mass", "many": "kidneys"}
    entity = next((name for key, name in entities.items() if key in question), "ct")
    assert len(wordings(question)) > 10
    assert all(entity in wording for wording in wordings(question))


@pytest.mark.parametrize(
    "question", ["Can mass be observed on the lower left lung in this picture?", "Which is larger, 2 or 3?"]
)
def test_sides_and_numbers_are_never_touched(question):
    for wording in wordings(question):
        for word in ("left", "lower", "2", "3"):
            assert (word in words(wording)) == (word in words(question))


def test_healthy_never_becomes_its_opposite():
    assert all("abnormal" not in wording and "unhealthy" not in wording for wording in wordings("Is the lung healthy?"))


def test_a_chinese_question_stays():
    assert {wording.rstrip("?").split(", ")[-1].split(": ")[-1] for wording in wordings("肝在哪里")} <= {
        "肝在哪里", "can you tell me 肝在哪里", "tell me 肝在哪里",
    }  # fmt: skip


def test_every_word_of_every_wording_is_among_the_phrases_or_the_question():
    question = "What modality is used to take this image?"
    known = {word for phrase in rule_phrases() for word in words(phrase)} | set(words(question))
    assert {word for wording in wordings(question) for word in words(wording)} <= known

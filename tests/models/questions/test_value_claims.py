"""Yes or no questions that name a value of what training asks openly, and what follows from the open answer."""

from __future__ import annotations

import pytest

from medical_vqa.models.guards.contradiction import disagreement, opposite
from medical_vqa.models.guards.related_answers import following_related, leaves_no_answer
from medical_vqa.models.questions.image_kind import follows
from medical_vqa.models.questions.premises import organ_of_system
from medical_vqa.models.questions.value_claims import value_claims
from medical_vqa.schema.records import Prediction


@pytest.mark.parametrize(
    ("question", "open_question", "open_answer", "yes"),
    [
        ("Is the lung black?", "What color is the lung in the picture?", "Black", True),
        ("Does the lung show white color?", "What color is the lung in the picture?", "Black", False),
        ("Is the color of the liver grey?", "What color is the liver in the picture?", "Gray", True),
        ("Is the lung black?", "What color is the lung in the picture?", "Lung", None),
        ("Is the liver on the left side of the image?", "Where is the liver?", "Upper Left", True),
        ("The liver is on the right, right?", "Where is the liver?", "Left", False),
        ("Is the heart in the upper left?", "Where is the heart?", "Left", False),
        ("Is the liver on the left?", "Where is the liver?", "Not seen", None),
        ("Are both kidneys visible?", "How many kidneys in this image?", "2", True),
        ("Are there two lungs?", "How many lungs in this image?", "0", False),
        ("Do you see three lungs?", "How many lungs in this image?", "2", False),
        ("Is the lung the largest organ in the picture?", "What is the largest organ in the picture?", "Lung", True),
        ("The biggest organ is the liver.", "What is the largest organ in the picture?", "Lung", False),
        ("Is the liver bigger than the spleen?", "Which is bigger in this image, liver or spleen?", "Liver", True),
        ("Is the liver smaller than the spleen?", "Which is bigger in this image, liver or spleen?", "Liver", False),
        ("Is the liver smaller than the spleen?", "Which is bigger in this image, liver or spleen?", "Lung", None),
        ("Is the kidney oval?", "What is the shape of the kidney in the picture?", "Irregular", False),
        ("肝脏比脾脏大吗?", "图中肝脏和脾脏哪个更大?", "脾脏", False),
        ("肺是黑色的吗?", "图中的肺是什么颜色的?", "黑色", True),
        ("肝脏在左边吗?", "图中肝脏在哪?", "右侧", False),
        ("图中有两个肾脏吗?", "图中有多少个肾脏?", "2", True),
        ("肝脏是最大的器官吗?", "图片中最大的器官是什么?", "肺", False),
    ],
)
def test_what_follows_from_the_open_answer(question, open_question, open_answer, yes):
    claims = value_claims(question)
    assert {claim.open_question for claim in claims} == {open_question}
    assert follows(claims, {open_question: open_answer}) is yes
    assert leaves_no_answer(question, open_question, open_answer) is (yes is None)


@pytest.mark.parametrize(
    "question",
    [
        "Is the left lung visible?",
        "左肺在图中吗?",
        "Is there a black spot on the lung?",
        "Is the liver healthy?",
        "Is the liver bigger than normal?",
        "Is the liver or the spleen bigger?",
        "Is the tumor on the left?",
        "Is the liver not on the left?",
        "Where is the liver?",
        "Is the lung visible?",
    ],
)
def test_other_questions_name_no_value(question):
    assert value_claims(question) == ()


def test_the_answer_has_the_confidence_of_the_open_one():
    related = {"Which is bigger in this image, liver or spleen?": Prediction("2", "Liver", "Liver", 0.9, ())}
    wrong = Prediction("1", "Yes", "Yes", 0.8, (("No", 0.2),))
    followed = following_related("Is the liver smaller than the spleen?", wrong, related)
    assert (followed.answer, followed.confidence) == ("No", 0.9)


@pytest.mark.parametrize(
    ("question", "larger", "answer", "larger_answer", "code"),
    [
        ("Is the heart or the lung smaller?", "Is the heart or the lung bigger?", "Lung", "Lung", "contradiction"),
        ("Which is smaller, liver or lung?", "Which is bigger, liver or lung?", "Liver", "Lung", None),
        ("Which is smaller, liver or lung?", "Which is bigger, liver or lung?", "Equal", "Equal", None),
        ("小肠和肝脏哪个体积更小?", "小肠和肝脏哪个体积更大?", "肝脏", "肝脏", "contradiction"),
    ],
)
def test_the_smaller_of_two_is_not_the_larger(question, larger, answer, larger_answer, code):
    assert opposite(question) == larger
    assert disagreement(question, answer, larger, larger_answer) == code


@pytest.mark.parametrize(
    ("question", "both"),
    [
        ("Does the heart belong to the digestive system?", "heart and digestive system"),
        ("肺属于呼吸系统吗?", "lung and respiratory system"),
        ("Which organs belong to the digestive system?", None),
        ("Do any of the organs in the picture belong to the digestive system?", None),
    ],
)
def test_whether_an_organ_belongs_to_a_system(question, both):
    assert organ_of_system(question) == both

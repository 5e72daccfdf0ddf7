"""What an open question asks for, by its words."""

import pytest

from medical_vqa.models.guards.alternatives import of_asked_form
from medical_vqa.models.questions.aspects import (
    asked_aspect,
    asks_meaning,
    asks_where_taken,
    existence_noun,
    names_no_subject,
)
from medical_vqa.models.questions.bank import QuestionBank, TrainingQuestion
from medical_vqa.models.questions.image_kind import kind_claims, kind_question
from medical_vqa.models.questions.premises import counted_topic
from medical_vqa.models.questions.presence import names_organ, presence_wording
from medical_vqa.schema.records import Prediction


@pytest.mark.parametrize(
    ("question", "aspect"),
    [
        ("Which sequence is this?", "weighting"),
        ("MR weighting?", "weighting"),
        ("What type of MRI is shown in this image?", "weighting"),
        ("T2 weighting?", None),
        ("In what plane is this image scanned?", "plane"),
        ("Name the plane", "plane"),
        ("axial plane?", None),
        ("MRI imaging modality used?", "modality"),
        ("MRI imaging modality used for this image?", "modality"),
        ("MRI sequence used?", "weighting"),
        ("MRI used?", None),
        ("How was this image taken?", "modality"),
        ("What kind of scan is this?", "modality"),
        ("Which part of the body does this image belong to?", "body part"),
        ("Which part is enhancing?", None),
        ("What is the largest organ in this T1 image?", "organ"),
        ("What organ is the gray part on the left side of the image?", "organ"),
        ("Where is the liver?", "place"),
        ("liver location", "place"),
        ("is the liver on the left or on the right?", "side"),
        ("Which is bigger, liver or spleen?", None),
        ("How many kidneys are there?", "number"),
        ("What color is the lung?", "color"),
        ("What is the function of the organ on the left?", "function"),
        ("Which lung is larger?", "side"),
        ("What symptoms would this patient present with?", "symptoms"),
        ("What density is the abnormality?", "density"),
        ("Is the abnormality hyperdense or hypodense?", "density"),
        ("Is the plane axial?", None),
        ("哪个肺更大?", "side"),
        ("这是什么序列?", "weighting"),
        ("图中肝脏在哪?", "place"),
        ("图中有多少个肾脏?", "number"),
        ("这张图片的成像方式是什么?", "modality"),
        ("肺是什么颜色的?", "color"),
        ("图片中包含肝脏吗?", None),
    ],
)
def test_what_a_question_asks_for(question, aspect):
    assert asked_aspect(question) == aspect


@pytest.mark.parametrize(
    ("question", "nothing"),
    [
        ("how many?", True),
        ("Where is the patient?", True),
        ("left or right?", True),
        ("What is shown?", True),
        ("哪一侧?", True),
        ("How many organs are there?", False),
        ("Where does the picture show?", False),
        ("Where is the abnormality?", False),
        ("What modality is this?", False),
        ("Which organ is this?", False),
        ("What was used to take this?", False),
        ("Is it there?", True),
        ("Is it on the left?", True),
        ("Are there any organs?", True),
        ("Is the picture black?", True),
        ("Is this image normal?", False),
        ("Is this T1?", False),
        ("Do the organs in the image exist in the head?", False),
        ("What caused this?", True),
        ("How to treat the disease in this image?", False),
        ("plane?", False),
        ("图像展示的位置是?", False),
    ],
)
def test_a_question_without_a_subject(question, nothing):
    assert names_no_subject(question) is nothing


@pytest.mark.parametrize(
    ("question", "is_place"),
    [
        ("Where was this image taken?", True),
        ("这张图片是在哪家医院拍的?", False),  # an unknown word already
        ("这张图片是在哪里拍摄的?", True),
        ("Where in the body was this taken?", False),
        ("How was this image taken?", False),
        ("Where is the lesion?", False),
    ],
)
def test_where_a_picture_was_taken(question, is_place):
    assert asks_where_taken(question) is is_place


@pytest.mark.parametrize(
    ("question", "topic"),
    [
        ("How many slices are shown?", "slice"),
        ("How many kidneys and lungs?", "kidney and lung"),
        ("How many lungs are in the chest and abdomen?", "lung"),
        ("How many organs are there in this image?", "organ"),
        ("How many are there?", None),
        ("How many organs are on the left?", "organ on one side"),
        ("How many kidneys are left?", "kidney"),
        ("图中有多少个器官?", "器官"),
        ("图中有多少个肺和肾脏?", "kidney and lung"),
    ],
)
def test_what_a_question_counts(question, topic):
    assert counted_topic(question) == topic


@pytest.mark.parametrize(
    ("question", "thing"),
    [
        ("Is there blood present?", "blood"),
        ("Is/Are there food in the stomach?", "food"),
        ("Is there a liver?", None),
        ("Is there a tumor?", None),
        ("Are there organs that can detoxicate?", None),
        ("Is there anything abnormal?", None),
        ("Is the blood red?", None),
    ],
)
def test_what_a_question_asks_whether_there_is(question, thing):
    assert existence_noun(question) == thing


def test_a_question_for_the_meaning_of_a_word():
    assert asks_meaning("What is an MRI?")
    assert not asks_meaning("What is the organ on the left?")


def test_a_noun_without_a_value_asks_and_claims_nothing():
    assert kind_claims("MR weighting?") == ()
    assert kind_question("MR weighting?").open_question == "What is the mr weighting in this image?"
    assert [claim.value for claim in kind_claims("T2 weighting?")] == ["t2", "mri"]
    assert kind_question("T2 weighting?") is None
    assert kind_question("What plane is the tumor in?") is None


@pytest.mark.parametrize(
    ("question", "organ"),
    [
        ("Lungs?", "lung"),
        ("Is this the brain?", "brain"),
        ("这是肝脏吗?", "liver"),
        ("liver ok?", None),
        ("Is this the liver ok?", None),
        ("Is this liver normal?", None),
        ("left lung?", None),
    ],
)
def test_the_bare_name_of_an_organ_asks_whether_it_is_shown(question, organ):
    assert names_organ(question) == organ
    assert (presence_wording(question) is None) is (organ is None)


@pytest.mark.parametrize(
    ("question", "given", "shown"),
    [
        ("Which sequence is this?", ("CT", (("T2", 0.2),)), ("T2", 0.2)),
        ("Where is the liver?", ("Yes", (("CT", 0.3), ("Left", 0.1))), ("Left", 0.1)),
        ("Where is the liver?", ("CT", (("Yes", 0.3),)), ("CT", 0.0)),
        ("Lungs?", ("2", (("Yes", 0.2),)), ("Yes", 0.2)),
        ("How many lungs?", ("Left", (("Yes", 0.2),)), ("Left", 0.6)),  # training counts nothing here
    ],
)
def test_an_answer_is_one_that_training_gave_to_a_question_for_the_same(question, given, shown):
    bank = QuestionBank(
        [
            TrainingQuestion("What is the mr weighting in this image?", "Modality", 9, ("t2", "t1")),
            TrainingQuestion("Where is the spleen?", "Position", 9, ("right", "left")),
        ]
    )
    answer, alternatives = given
    prediction = of_asked_form(question, Prediction("1", answer, answer, 0.6, alternatives), bank)
    assert (prediction.answer, prediction.confidence) == shown

"""A question about an organ is withheld where the picture shows another part of the body."""

import pytest

from medical_vqa.models.questions.disease_knowledge import is_knowledge
from medical_vqa.models.questions.premises import (
    counted_topic,
    impossible_structure,
    lacks_presence,
    patient_side,
    presence_questions,
    takes_for_granted,
)


@pytest.mark.parametrize(
    ("question", "answer", "shown", "name"),
    [
        ("Where is the liver?", "Left", "MRI, Brain_Tissue", "liver"),
        ("Is there a tumor in the liver?", "No", "An axial CT of the head.", "liver"),
        ("Does the patient have pneumonia?", "No", "MRI of the pelvis", "pneumonia"),
        ("Is the liver visible?", "Yes", "brain", "liver"),
        ("脑部正常吗?", "是", "CT, Abdomen", "brain"),
        ("Are there gallstones?", "Yes", "Head", "gallstone"),
        ("How many kidneys are there?", "2", "MRI, Brain", "kidney"),
        ("图中有几个肾脏?", "2", "脑部", "kidney"),
        ("What color does the left lung show in the picture?", "Black", "CT, Brain_Tissue", "lung"),
        ("Which is smaller in this image, kidney or liver?", "Kidney", "MRI, Brain_Tissue", "kidney"),
        ("图中肺和肝脏哪个更大?", "肺", "CT, Brain_Tissue", "lung"),
        ("What is the largest organ in the picture?", "Liver", "CT, Head", "liver"),
        ("What diseases are included in the picture?", "Pneumonia", "MRI, Brain", "pneumonia"),
        ("Which organs in the picture belong to the respiratory system?", "Lung", "MRI, Brain", "lung"),
        ("图片中哪个器官属于呼吸系统?", "肺", "CT, Head", "lung"),
        ("Is the liver bigger than the spleen?", "No", "MRI, Brain", "liver"),
    ],
)
def test_what_the_body_part_cannot_show_is_named(question, answer, shown, name):
    assert impossible_structure(question, answer, shown).name == name


@pytest.mark.parametrize(
    ("question", "answer", "shown"),
    [
        ("Is the liver visible?", "No", "brain"),
        ("How many kidneys are there?", "0", "MRI, Brain"),
        ("Is there a tumor in the liver?", "Yes", "Chest X-ray"),
        ("Does the patient have pneumonia?", "No", "an abdominal CT"),
        ("What is the function of the liver?", "Metabolism", "head"),
        ("Is there a tumor?", "Yes", "head"),
        ("Is the spinal cord normal?", "Yes", "Neck"),
        ("Where is the liver?", "Left", "I cannot say"),
        ("Where is the liver?", "Left", ""),
        ("Which is bigger, brain or liver?", "Brain", "MRI, Brain"),
        ("Which organ belongs to the circulatory system?", "Heart", "MRI, Brain"),
        ("What is the function of the lung in this picture?", "Breathe", "MRI, Brain"),
        ("Which organs in the picture belong to the nervous system?", "Brain", "MRI, Brain"),
        ("Which part of the body does this image belong to?", "Chest", "CT, Head"),
        ("What do you see?", "The picture of the head shows no liver.", "CT, Head"),
        ("What do you see?", "A brain; the liver lies elsewhere in the body.", "CT, Head"),
    ],
)
def test_what_a_picture_may_show_at_its_edge_or_nothing_is_known_of_passes(question, answer, shown):
    assert impossible_structure(question, answer, shown) is None


def test_presence_and_knowledge_take_nothing_for_granted():
    assert not takes_for_granted("Is the liver in this picture visible?")
    assert not takes_for_granted("What does the liver do to prevent disease?")
    assert takes_for_granted("Is the liver healthy?")
    assert is_knowledge("肝脏的功能是什么?")


@pytest.mark.parametrize(
    ("question", "needed"),
    [
        ("Where is the spleen?", ["Does the picture contain spleen?"]),
        ("What color is the left lung?", ["Does the picture contain lung?"]),
        ("How many kidneys are in this image?", ["Does the picture contain kidney?"]),
        ("Is the kidney on the right side of the picture?", ["Does the picture contain kidney?"]),
        (
            "Is the liver smaller than the spleen?",
            ["Does the picture contain liver?", "Does the picture contain spleen?"],
        ),
        ("Is the heart bigger than normal?", ["Does the picture contain heart?"]),
        ("脾脏在哪里?", ["Does the picture contain spleen?"]),
        ("Does the picture contain spleen?", []),
        ("Which is bigger, liver or spleen?", []),
        ("What is the function of the spleen?", []),
        ("Where is the tumor?", []),
    ],
)
def test_an_organ_that_a_question_takes_for_granted_must_be_seen(question, needed):
    assert list(presence_questions(question)) == needed


@pytest.mark.parametrize(
    ("question", "answer", "presence", "lacks"),
    [
        ("Where is the spleen?", "Lower Right", "No", True),
        ("Where is the spleen?", "Lower Right", "Yes", False),
        ("脾脏在哪里?", "右下", "否", True),
        ("How many kidneys are there?", "2", "No", True),
        ("How many kidneys are there?", "0", "No", False),
        ("Is the spleen on the left?", "No", "No", False),
        ("Is the liver smaller than the spleen?", "No", "No", True),
    ],
)
def test_an_answer_that_affirms_an_organ_contradicts_its_absence(question, answer, presence, lacks):
    assert lacks_presence(question, answer, presence) is lacks


@pytest.mark.parametrize(
    ("question", "topic"),
    [
        ("How many livers are there?", "liver"),
        ("图中有几个肾脏?", "kidney"),
        ("How many tumors are there?", "tumor"),
        ("How many organs are there in this image?", "organ"),
        ("How many kinds of abnormalities are there?", "abnormality"),
        ("Where are the kidneys?", None),
    ],
)
def test_what_a_question_counts(question, topic):
    assert counted_topic(question) == topic


@pytest.mark.parametrize(
    ("question", "side"),
    [
        ("Is the heart on the right side of the patient?", "right side of the patient"),
        ("Is the heart on the patient's left?", "patient's left"),
        ("心脏在患者的右侧吗?", "患者的右侧"),
        ("Is the patient's left lung healthy?", None),
        ("What is the organ on the left side of the body in this image?", None),
    ],
)
def test_a_side_of_the_patient_is_not_that_of_the_picture(question, side):
    assert patient_side(question) == side


@pytest.mark.parametrize(
    "question", ["Is this the head?", "Is this a head CT?", "这是头部吗?", "Is this an MRI of the brain?"]
)
def test_what_body_part_a_picture_is_of_can_be_asked_of_any_picture(question):
    assert not takes_for_granted(question)
    assert impossible_structure(question, "No", "CT, Abdomen") is None

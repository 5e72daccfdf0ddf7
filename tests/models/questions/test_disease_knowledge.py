"""Questions for the treatment, prevention, symptoms or cause of the disease that a picture shows."""

import pytest

from medical_vqa.models.questions.bank import QuestionBank, TrainingQuestion
from medical_vqa.models.questions.disease_knowledge import disease_question, is_knowledge
from medical_vqa.models.questions.premises import impossible_structure, takes_for_granted


@pytest.mark.parametrize(
    ("question", "aspect", "organ"),
    [
        ("How to treat the disease located on the left of lung in this image?", "treatment", "lung"),
        ("How to treat the most severe disease in this image?", "treatment", ""),
        ("How to prevent the occurrence of the disease on the heart in this image?", "prevention", "heart"),
        ("What kind of symptoms will the disease on the top of brain bring to the patient?", "symptoms", "brain"),
        ("What is the cause of the heart disease?", "cause", "heart"),
        ("What is the treatment for the lesion?", "treatment", ""),
        ("图中左下肺的疾病会给病人带来什么样的症状?", "symptoms", "lung"),
        ("如何治疗这张图片中脑左侧的疾病?", "treatment", "brain"),
        ("如何预防肺部右上叶病变的发生?", "prevention", "lung"),
    ],
)
def test_the_disease_of_the_picture(question, aspect, organ):
    assert disease_question(question) == (aspect, organ)
    assert not is_knowledge(question)
    assert takes_for_granted(question)


@pytest.mark.parametrize(
    "question",
    [
        "What are the symptoms of pneumonia?",
        "How can pneumonia be prevented?",
        "What is the function of the main organ in this picture?",
        "How much damage will be caused to the body taking such an image?",
        "Should this tumor be treated?",
        "Where is the tumor in this image?",
        "肺炎的症状是什么?",
        "肝脏的功能是什么?",
    ],
)
def test_no_disease_of_the_picture(question):
    assert disease_question(question) is None


@pytest.mark.parametrize(
    "question",
    [
        "How to prevent the occurrence of the disease on the lower left lobe of lung in this image?",
        "What kind of symptoms will the disease on the right of chest bring to the patient?",
        "图中左下肺的疾病会给病人带来什么样的症状?",
    ],
)
def test_an_organ_of_another_body_part_is_no_place_of_a_disease(question):
    assert impossible_structure(question, "keep healthy", "MRI, Head") is not None
    assert impossible_structure(question, "keep healthy", "X-Ray, Chest") is None


def test_answers_are_those_of_the_same_organ_or_else_of_the_same_aspect():
    bank = QuestionBank(
        [
            TrainingQuestion("How to treat the disease on the left of lung in this image?", "KG", 2, ("surgery",)),
            TrainingQuestion("How to treat the disease on the brain in this image?", "KG", 1, ("rehabilitation",)),
            TrainingQuestion("如何治疗图中肺部左侧的疾病?", "KG", 1, ("手术",)),
            TrainingQuestion("Which plane is this?", "Plane", 9, ("coronal plane",)),
        ]
    )
    assert bank.disease_answers("How to treat the disease on the right of lung in this picture?") == {"surgery"}
    assert bank.disease_answers("How to treat the liver disease here?") == {"surgery", "rehabilitation"}
    assert bank.disease_answers("如何治疗图中脑部的疾病?") == {"手术"}
    assert bank.disease_answers("What is the cause of the heart disease?") is None
    assert bank.disease_answers("Which plane is this?") is None

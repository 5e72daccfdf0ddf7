"""From probabilities to predictions."""

from __future__ import annotations

import numpy as np
import pytest

from medical_vqa.models.base import Query
from medical_vqa.models.compact.postprocess import rank_answers
from medical_vqa.models.questions.bank import QuestionBank, TrainingQuestion
from medical_vqa.models.vocabulary import AnswerVocabulary

ANSWERS = AnswerVocabulary(("肝", "Liver", "MRI"))
PROBABILITIES = np.array([[0.6, 0.3, 0.1]])


def queries(question: str) -> list[Query]:
    return [Query("q", question, "i", np.zeros((1, 1, 1), np.uint8))]


@pytest.mark.parametrize(
    ("question", "answer", "confidence"), [("Which organ is it?", "Liver", 0.3), ("这是什么器官?", "肝", 0.6)]
)
def test_an_answer_is_one_that_the_person_can_read(question, answer, confidence):
    prediction = rank_answers(queries(question), PROBABILITIES, ANSWERS, 1)[0]
    assert (prediction.answer, prediction.confidence) == (answer, pytest.approx(confidence))


def test_a_chinese_question_may_have_a_latin_answer():
    assert rank_answers(queries("是什么模态?"), np.array([[0.1, 0.2, 0.7]]), ANSWERS, 0)[0].answer == "MRI"


def test_a_model_of_chinese_alone_answers_in_chinese():
    chinese = AnswerVocabulary(("肝", "肺"))
    assert rank_answers(queries("Which organ?"), np.array([[0.1, 0.9]]), chinese, 0)[0].answer == "肺"


def test_alternatives_are_readable_too():
    prediction = rank_answers(queries("Which organ is it?"), PROBABILITIES, ANSWERS, 1)[0]
    assert [text for text, _ in prediction.alternatives] == ["MRI"]


def test_a_question_that_offers_choices_gets_one_of_them_or_an_answer_that_is_no_entity():
    answers = AnswerVocabulary(("Bladder", "Liver", "Both", "Spleen"))
    probabilities = np.array([[0.5, 0.1, 0.15, 0.25]])
    prediction = rank_answers(queries("Which is larger, liver or spleen?"), probabilities, answers, 1)[0]
    assert (prediction.answer, prediction.alternatives) == ("Spleen", (("Both", 0.15),))
    assert rank_answers(queries("Which organ is it?"), probabilities, answers, 0)[0].answer == "Bladder"


def test_the_cause_of_a_disease_is_no_plane():
    answers = AnswerVocabulary(("Coronal Plane", "Hypertension", "Bacterial infection"))
    probabilities = np.array([[0.6, 0.1, 0.3]])
    bank = QuestionBank(
        [
            TrainingQuestion(
                "What is the main cause of the disease on the left of the heart?", "KG", 1, ("hypertension",)
            ),
            TrainingQuestion("What is the main cause of the disease on the lung?", "KG", 1, ("bacterial infection",)),
            TrainingQuestion("Which plane is it?", "Plane", 1, ("coronal plane",)),
        ]
    )
    heart = rank_answers(queries("What is the cause of the heart disease?"), probabilities, answers, 2, bank)[0]
    brain = rank_answers(queries("What is the cause of the disease in this image?"), probabilities, answers, 2, bank)[0]
    assert (heart.answer, brain.answer) == ("Hypertension", "Bacterial infection")
    assert rank_answers(queries("Which plane is it?"), probabilities, answers, 0, bank)[0].answer == "Coronal Plane"

"""Soft accuracy of VQA v2, for questions that several people answered."""

from __future__ import annotations

from medical_vqa.evaluation.metrics.base import Mean
from medical_vqa.evaluation.protocols.vqa_normalizer import vqa_normalize
from medical_vqa.schema.records import Example, Prediction

_MIN_ANSWERS = 3


def soft_accuracy() -> Mean:
    """Mean over the annotators of min(1, number of the others who gave this answer / 3).

    Only questions with three answers or more are counted; as in the published code, answers are normalized only where
    they differ.

    Source: ``VQAEval.evaluate`` of the VQA evaluation code (GT-Vision-Lab/VQA, vqaEval.py); Antol et al., "VQA: Visual
    question answering", ICCV 2015.
    """

    def score(prediction: Prediction, example: Example) -> float | None:
        answers = [answer.replace("\n", " ").replace("\t", " ").strip() for answer in example.answers]
        if len(answers) < _MIN_ANSWERS:
            return None
        predicted = prediction.answer.replace("\n", " ").replace("\t", " ").strip()
        if len(set(answers)) > 1:
            answers = [vqa_normalize(answer) for answer in answers]
            predicted = vqa_normalize(predicted)
        matching = answers.count(predicted)
        others = [matching - (answer == predicted) for answer in answers]
        return sum(min(1.0, count / 3) for count in others) / len(answers)

    rule = "rows:three answers or more|norm:vqa where answers differ|min(1, others/3)|v:1"
    return Mean("vqa_soft", "VQA soft accuracy", rule, score, by_text=True)

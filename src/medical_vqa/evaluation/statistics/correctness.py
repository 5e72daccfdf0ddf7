"""Which answers are correct, one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medical_vqa.evaluation.joining import AnsweredQuestions
from medical_vqa.evaluation.metrics.base import Metric
from medical_vqa.evaluation.statistics.tally import AnswerTable
from medical_vqa.schema.records import Example, Prediction


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """A question with the model's answer and whether it is correct."""

    example: Example
    """The question."""
    prediction: Prediction
    """The model's answer."""
    correct: bool
    """Whether the metric gives the full score."""

    @property
    def confidence(self) -> float | None:
        """The model's confidence, in [0, 1]; None if it gives none or one that is not finite."""
        value = self.prediction.confidence
        return value if value is not None and math.isfinite(value) else None


def judge(metric: Metric, answered: AnsweredQuestions) -> list[JudgedAnswer]:
    """The scored questions that the metric applies to, in order."""
    counted = AnswerTable(answered.scored, answered.answers).tally(metric)
    return [
        JudgedAnswer(example, answered.answers[example.id], correct)
        for example, correct in zip(counted.examples, counted.right().tolist(), strict=True)
    ]

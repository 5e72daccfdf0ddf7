"""What the rules for multiple choice share: the fraction of questions whose right letter a rule reads from the text."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from medical_vqa.evaluation.metrics.base import Mean
from medical_vqa.evaluation.metrics.multiple_choice import choice_of, choices_of, has_choices, multiple_choice
from medical_vqa.evaluation.protocols.base import ProtocolMetric
from medical_vqa.schema.records import Example, Prediction

ChoiceRule = Callable[[str, Mapping[str, str]], str]
"""Text of an answer, and letter -> text of the choices in order -> the letter that it chooses; empty for none."""


def choice_metric(
    rule: ChoiceRule, defect: str, *, name: str = "choice", label: str = "multiple choice"
) -> ProtocolMetric:
    """A published rule for multiple choice with the repaired one.

    Args:
        rule: Reads the chosen letter; its function name stands in the signature.
        defect: What it gets wrong, in one sentence.
        name: The key in results.json.
        label: The name for people.
    """

    def score(prediction: Prediction, example: Example) -> float | None:
        if not has_choices(example) or not choice_of(example):
            return None
        return float(rule(prediction.answer, choices_of(example)) == choice_of(example))

    published = Mean(name, label, f"{rule.__name__}|rows:with choices|v:1", score, by_text=True)
    return ProtocolMetric(published, multiple_choice(name), defect)

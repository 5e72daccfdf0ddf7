"""Answers that name the wrong side of the body."""

from __future__ import annotations

from medical_vqa.evaluation.metrics.base import Mean
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.text import tokens

_CHINESE_SIDES = {"左": "left", "右": "right"}


def laterality_errors() -> Mean:
    """Fraction of answers that name the wrong side, where the reference names exactly one; lower is better."""

    def score(prediction: Prediction, example: Example) -> float | None:
        gold = sides(example.answers[0])
        if len(gold) != 1:
            return None
        predicted = sides(prediction.answer)
        return float(bool(predicted) and not predicted & gold)

    return Mean(
        "laterality", "wrong side", "rows:one side in the reference|wrong:only the other side|v:1", score, by_text=True
    )


def sides(answer: str) -> frozenset[str]:
    """``left`` and ``right``, as far as an English or Chinese answer names them."""
    words = set(tokens(answer))
    english = {side for side in ("left", "right") if side in words or f"{side}sided" in words}
    chinese = {side for character, side in _CHINESE_SIDES.items() if character in answer}
    return frozenset(english | chinese)

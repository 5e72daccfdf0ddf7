"""Answers that list several items, in any order."""

from __future__ import annotations

import re

from medical_vqa.evaluation.metrics.base import Mean
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.text import squad_normalize

_SEPARATORS = re.compile(r"[,;，、；]|\band\b", re.IGNORECASE)


def list_match() -> Mean:
    """Order-free equality with a reference that lists several items: ``"Heart, Liver"`` is ``"liver, heart"``."""

    def score(prediction: Prediction, example: Example) -> float | None:
        references = [list_items(answer) for answer in example.answers]
        lists = [items for items in references if len(items) > 1]
        return float(list_items(prediction.answer) in lists) if lists else None

    return Mean(
        "list",
        "lists, any order",
        "rows:comma lists|separators:,、，;and|order:free|items:squad|v:1",
        score,
        by_text=True,
    )


def list_items(answer: str) -> tuple[str, ...]:
    """The items of an answer, normalized and sorted."""
    items = (squad_normalize(item) for item in _SEPARATORS.split(answer))
    return tuple(sorted(item for item in items if item))

"""Questions that mean the opposite of each other: both cannot be answered alike."""

from __future__ import annotations

import re

_OPPOSITES = (
    ("healthy", "unhealthy"),
    ("unhealthy", "healthy"),
    ("abnormal", "normal"),
    ("normal", "abnormal"),
)
_FREE_OF = re.compile(r"\bfree of\b", re.IGNORECASE)
_YES_NO = frozenset(("yes", "no"))


def opposite(question: str) -> str | None:
    """The question that asks for the opposite (``Is the lung healthy?``, ``Is the lung unhealthy?``); None for none.

    Questions that offer a choice (``normal or abnormal``) or negate (``not``) have none.
    """
    lower = question.lower()
    if re.search(r"\b(or|not|no|which|what|where|how)\b", lower) or _FREE_OF.search(lower):
        return None
    for word, other in _OPPOSITES:
        if len(re.findall(rf"\b{word}\b", lower)) == 1 and not re.search(rf"\b{other}\b", lower):
            return re.sub(rf"\b{word}\b", other, question, flags=re.IGNORECASE)
    return None


def contradict(answer: str, opposite_answer: str) -> bool:
    """Whether answers to a question and its opposite are the same yes or no."""
    one, other = answer.strip().lower(), opposite_answer.strip().lower()
    return one in _YES_NO and one == other

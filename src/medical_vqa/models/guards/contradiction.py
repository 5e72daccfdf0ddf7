"""Wordings of one claim and its opposite: a model that answers them so that they exclude each other knows neither."""

from __future__ import annotations

import re
from typing import Literal

from medical_vqa.models.questions.claims import claim_of
from medical_vqa.text import squad_normalize

Disagreement = Literal["contradiction", "paraphrase_disagrees"]
"""Code of the reason: the opposite question gets the same answer, or the same question in other words another one."""

_OPPOSITES = (
    ("healthy", "unhealthy"),
    ("unhealthy", "healthy"),
    ("diseased", "healthy"),
    ("abnormal", "normal"),
    ("normal", "abnormal"),
)
_CHINESE_OPPOSITES = (
    ("不健康", "健康"),
    ("健康", "不健康"),
    ("不正常", "正常"),
    ("正常", "不正常"),
    ("异常", "正常"),
)
_FREE_OF = re.compile(r"\bfree of\b|\bin size\b|\bsize\b|\bthan (?:normal|usual)\b", re.IGNORECASE)
_YES_NO = frozenset(("yes", "no"))
_SMALLER_OF = re.compile(
    r"\b(?:which|what|or)\b.*\bsmall(?:er|est)\b|\bsmall(?:er|est)\b.*\bor\b|(?:哪|什么).*[更最]小|[更最]小.*(?:哪|什么)"
)
"""A choice of the smaller one, or the smallest."""
_ALL_ALIKE = frozenset(("both", "neither", "none", "equal", "same", "almost same", "相等", "几乎相等", "一样"))


def opposite(question: str) -> str | None:
    """The question that asks for the opposite (``Is the lung healthy?``, ``Is the lung unhealthy?``); None for none.

    Questions that offer a choice (``normal or abnormal``) or negate (``not``) have none, except those for the smaller
    of several, which training asks far less than those for the larger.
    """
    lower = question.lower()
    if _SMALLER_OF.search(lower) is not None:
        larger = re.sub("small(?=er|est)", "bigg", question, flags=re.IGNORECASE)
        return larger.replace("更小", "更大").replace("最小", "最大")
    if re.search(r"\b(or|not|no|which|what|where|how)\b", lower) or _FREE_OF.search(lower):
        return None
    for word, other in _OPPOSITES:
        if len(re.findall(rf"\b{word}\b", lower)) == 1 and not re.search(rf"\b{other}\b", lower):
            return re.sub(rf"\b{word}\b", other, question, flags=re.IGNORECASE)
    claim = claim_of(question)
    if claim is None or not claim.chinese or claim.attribute != "state" or "有" in question or "存在" in question:
        return None
    return next((question.replace(word, other) for word, other in _CHINESE_OPPOSITES if word in question), None)


def related_questions(question: str) -> tuple[str, ...]:
    """Questions whose answers must agree with that to a question: its opposite, and its claim in canonical words."""
    claim = claim_of(question)
    texts = (opposite(question), *(claim.canonical_questions() if claim is not None else ()))
    return tuple(dict.fromkeys(text for text in texts if text is not None and text != question))


def disagreement(question: str, answer: str, related: str, related_answer: str) -> Disagreement | None:
    """Why the answers to a question and to a related one exclude each other; None where they do not.

    Args:
        question: The question.
        answer: Its answer.
        related: One of its `related_questions`.
        related_answer: The answer to that.
    """
    claim, other = claim_of(question), claim_of(related)
    if _SMALLER_OF.search(question.lower()) is not None:
        one, second = (squad_normalize(text) for text in (answer, related_answer))
        return "contradiction" if one == second and one not in _ALL_ALIKE else None
    if claim is None or other is None:
        return "contradiction" if contradict(answer, related_answer) else None
    says, other_says = claim.says_normal(answer), other.says_normal(related_answer)
    if says is None or other_says is None or says == other_says:
        return None
    return "paraphrase_disagrees" if claim.yes_means_normal == other.yes_means_normal else "contradiction"


def contradict(answer: str, opposite_answer: str) -> bool:
    """Whether answers to a question and its opposite are the same yes or no."""
    one, other = answer.strip().lower(), opposite_answer.strip().lower()
    return one in _YES_NO and one == other

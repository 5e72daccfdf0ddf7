"""Questions to offer in place of one that is not answered: near in meaning, and answered about the same picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from medical_vqa.models.questions.form import questions_in

if TYPE_CHECKING:
    from medical_vqa.models.base import Query
    from medical_vqa.models.questions.bank import QuestionBank

MOST_SUGGESTIONS = 3
_CANDIDATES = 12
"""Questions that are tried; each costs an answer, in one batch."""


def suggested_questions(
    bank: QuestionBank | None, query: Query, is_answered: Callable[[Sequence[Query]], Sequence[bool]]
) -> tuple[str, ...]:
    """At most three questions that may be offered in place of a query's.

    Args:
        bank: The training questions; None for a model that carries none.
        query: The question that is not answered, and the picture.
        is_answered: Whether the model answers these queries without abstaining, in order.

    Returns:
        The questions of a text that asks several, otherwise training questions, the nearest in meaning first.
    """
    parts = questions_in(query.question)
    candidates = parts if len(parts) > 1 else bank.nearest(query.question, _CANDIDATES) if bank is not None else []
    if not candidates:
        return ()
    queries = [dataclasses.replace(query, question=candidate) for candidate in candidates]
    answered = [text for text, answers in zip(candidates, is_answered(queries), strict=True) if answers]
    return tuple(answered[:MOST_SUGGESTIONS])

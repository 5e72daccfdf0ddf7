"""Questions to offer in place of one that is not answered: near in meaning, and answered about the same picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from medical_vqa.models.questions.form import questions_in
from medical_vqa.text import is_chinese

if TYPE_CHECKING:
    from medical_vqa.models.base import Query
    from medical_vqa.models.questions.bank import QuestionBank

MOST_SUGGESTIONS = 3
_NEAREST, _COMMONEST = 12, 6
"""Questions that are tried at most, near ones and common ones; each costs an answer."""
_BATCH = 4
"""Questions that are tried together, until enough of them are answered."""


def suggested_questions(
    bank: QuestionBank | None,
    query: Query,
    are_answered: Callable[[Sequence[Query]], Sequence[bool]],
    may_be_answered: Callable[[str], bool] | None = None,
) -> tuple[str, ...]:
    """At most three questions that may be offered in place of a query's.

    Args:
        bank: The training questions; None for a model that carries none.
        query: The question that is not answered, and the picture.
        are_answered: Whether the model answers these queries without abstaining, in order.
        may_be_answered: Whether it is worth trying a question; None: all are.

    Returns:
        The questions of a text that asks several, otherwise training questions: the nearest in meaning first, and after
        them the commonest.
    """
    parts = questions_in(query.question)
    if len(parts) > 1:
        return answerable_questions(parts, query, are_answered)
    if bank is None:
        return ()
    nearest = bank.nearest(query.question, _NEAREST, may_be_answered)
    common = bank.commonest(_COMMONEST, chinese=is_chinese(query.question), accept=may_be_answered)
    return answerable_questions([*nearest, *common], query, are_answered)


def answerable_questions(
    questions: Sequence[str],
    query: Query,
    are_answered: Callable[[Sequence[Query]], Sequence[bool]],
    limit: int = MOST_SUGGESTIONS,
) -> tuple[str, ...]:
    """The first of these questions that the model answers about a query's picture.

    Args:
        questions: The questions, the best first.
        query: A question about the picture; it is not offered itself.
        are_answered: Whether the model answers these queries without abstaining, in order.
        limit: Most questions.
    """
    candidates = [text for text in dict.fromkeys(questions) if text != query.question]
    answerable: list[str] = []
    for start in range(0, len(candidates), _BATCH):
        part = candidates[start : start + _BATCH]
        answered = are_answered([dataclasses.replace(query, question=text) for text in part])
        answerable += [text for text, is_answered in zip(part, answered, strict=True) if is_answered]
        if len(answerable) >= limit:  # most answers come with the first batch, and the rest need not be tried
            break
    return tuple(answerable[:limit])

"""Questions to offer in place of one that is not answered: near in meaning, and answered about the same picture."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from cachetools import LRUCache

from medical_vqa.models.guards.pictures.picture import visual_features
from medical_vqa.models.questions.form import questions_in
from medical_vqa.text import is_chinese

if TYPE_CHECKING:
    from medical_vqa.data.imaging.picture_statistics import PictureContext
    from medical_vqa.models.base import Query
    from medical_vqa.models.questions.bank import QuestionBank

MOST_SUGGESTIONS = 3
_NEAREST, _COMMONEST = 12, 6
"""Questions that are tried at most, near ones and common ones; each costs an answer."""
_BATCH = 4
"""Questions that are tried together, until enough of them are answered."""
_CACHED_OFFERS = 8192
"""Training questions about a picture of which is kept whether they can be offered."""


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
        answered = are_answered([query.alone(text) for text in part])
        answerable += [text for text, is_answered in zip(part, answered, strict=True) if is_answered]
        if len(answerable) >= limit:  # most answers come with the first batch, and the rest need not be tried
            break
    return tuple(answerable[:limit])


class Offers:
    """Remembers which training questions can be offered about a picture: many refusals offer the same ones."""

    def __init__(self, bank: QuestionBank | None) -> None:
        """Remember questions of a bank only: a person's own words are not kept; None: none at all."""
        self._bank = bank
        self._answered: LRUCache[tuple[str, bytes, str, str], bool] = LRUCache(_CACHED_OFFERS)
        self._lock = threading.Lock()  # a server forgets pictures while it answers

    def are_answered(
        self,
        queries: Sequence[Query],
        contexts: Mapping[str, PictureContext] | None,
        ask: Callable[[Sequence[Query]], Sequence[bool]],
    ) -> list[bool]:
        """Whether each query is answered without abstaining.

        Args:
            queries: The questions that might be offered.
            contexts: A query's ``image`` -> what is known of that picture.
            ask: Finds out which of some queries are answered, in order.
        """
        keys = [_offer_key(query, (contexts or {}).get(query.image)) for query in queries]
        with self._lock:
            known = {key: self._answered[key] for key in keys if key in self._answered}
        missing = {key: query for key, query in zip(keys, queries, strict=True) if key not in known}
        answered = ask(list(missing.values())) if missing else []
        for (key, query), is_answered in zip(missing.items(), answered, strict=True):
            known[key] = is_answered
            if key[1] and self._bank is not None and self._bank.offers(query.question):
                with self._lock:
                    self._answered[key] = is_answered
        return [known[key] for key in keys]

    def forget(self, image: str) -> None:
        """Remove what is kept of pictures whose key begins so."""
        with self._lock:
            for key in [key for key in self._answered if key[0].startswith(image)]:
                del self._answered[key]


def _offer_key(query: Query, context: PictureContext | None) -> tuple[str, bytes, str, str]:
    """The picture by name and by content, for a name may be used again; what is known of it; and the question."""
    visual = query.visual
    content = visual if isinstance(visual, np.ndarray) else visual_features(visual)
    digest = b"" if content is None else hashlib.sha256(content.tobytes()).digest()[:16]
    return query.image, digest, context.digest if context is not None else "", query.question

"""The answers of one model that were computed before, by what they depend on: images, question, conversation."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from cachetools import TTLCache

if TYPE_CHECKING:
    from medical_vqa.models.base import Query
    from medical_vqa.serving.engine.answers import ModelAnswer


class Key(NamedTuple):
    """What an answer depends on."""

    image: str
    """Key of the first image."""
    question: str
    """In words."""
    surroundings: tuple[Any, ...] = ()
    """`Query.surroundings` of a question that is not a single one."""
    others: tuple[str, ...] = ()
    """Digests of the further images."""
    check_image: bool = False
    """Whether it was asked about an even gray picture too, which only a remote model does on request."""

    @classmethod
    def of(cls, query: Query, *, check_image: bool = False) -> Self:
        """The key of a query's answer."""
        surroundings = () if query.is_single and not query.note else query.surroundings
        return cls(query.image, query.question, surroundings, query.other_images, check_image)

    def names(self, image: str) -> bool:
        """Whether one of the images has a key that begins so."""
        return any(name.startswith(image) for name in (self.image, *self.others))


class AnswerCache:
    """Answers by what they depend on; safe to use from several threads."""

    def __init__(self, size: int, seconds: float | None) -> None:
        """Set the bounds.

        Args:
            size: Most answers; 0: none is cached.
            seconds: How long an answer is cached at most; None: until there are too many.
        """
        self._answers: TTLCache[Key, ModelAnswer] = TTLCache(size, math.inf if seconds is None else seconds)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: Key) -> ModelAnswer | None:
        """The answer to a question; None: it is not cached."""
        with self._lock:
            return self._answers.get(key)

    def update(self, answers: Mapping[Key, ModelAnswer], is_deleted: Callable[[Key], bool]) -> None:
        """Add answers, except of images that were deleted while they were computed.

        Args:
            answers: By what they depend on.
            is_deleted: Asked while nothing can be forgotten, so that a deletion comes either before it or after all.
        """
        if self._answers.maxsize:
            with self._lock:
                self._answers.update({key: answer for key, answer in answers.items() if not is_deleted(key)})

    def forget(self, image: str) -> None:
        """Remove the answers about images whose key begins so."""
        with self._lock:
            for key in [key for key in self._answers if key.names(image)]:
                del self._answers[key]

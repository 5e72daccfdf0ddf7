"""The answers of one model that were computed before, by image and question."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping

from cachetools import TTLCache

from medical_vqa.serving.engine.answers import ModelAnswer

Key = tuple[str, str]
"""Key of an image, and a question."""


class AnswerCache:
    """Answers by the key of their image and the question; safe to use from several threads."""

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

    def get(self, image: str, question: str) -> ModelAnswer | None:
        """The answer to a question about an image; None: it is not cached."""
        with self._lock:
            return self._answers.get((image, question))

    def update(self, answers: Mapping[Key, ModelAnswer], is_deleted: Callable[[Key], bool]) -> None:
        """Add answers, except of images that were deleted while they were computed.

        Args:
            answers: By image and question.
            is_deleted: Asked while nothing can be forgotten, so that a deletion comes either before it or after all.
        """
        if self._answers.maxsize:
            with self._lock:
                self._answers.update({key: answer for key, answer in answers.items() if not is_deleted(key)})

    def forget(self, image: str) -> None:
        """Remove the answers about images whose key begins so."""
        with self._lock:
            for key in [key for key in self._answers if key[0].startswith(image)]:
                del self._answers[key]

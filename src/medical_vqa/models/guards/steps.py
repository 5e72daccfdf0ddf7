"""Model calls that are small enough for other work to go between two of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_LEAST, _MOST = 8, 64  # items in a step: fewer cost more than they save others
_TOO_LONG = 1.5  # times the time of a step


class Steps:
    """Divides what a model is asked into calls of a bounded time."""

    def __init__(
        self,
        pause: Callable[[], None] = lambda: None,
        seconds: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Set the size of a step.

        Args:
            pause: Called before each step.
            seconds: Time of a step, whose size follows from it; None: everything in one.
            clock: Measures a step, in seconds.
        """
        self.pause = pause
        self._clock = clock
        self._seconds = seconds
        self._size = None if seconds is None else _LEAST

    def run(self, function: Callable[[list[T]], Sequence[R]], items: Sequence[T]) -> list[R]:
        """What a function that treats every item by itself makes of some items.

        Args:
            function: Called with some of the items at a time.
            items: In order.

        Returns:
            One result per item, in their order.
        """
        results: list[R] = []
        while len(results) < len(items):
            self.pause()
            part = list(items[len(results) : len(results) + (self._size or len(items))])
            start = self._clock()
            results += function(part)
            self._adapt(len(part), self._clock() - start)
        return results

    def _adapt(self, items: int, seconds: float) -> None:
        """Halve or double the size of a step by the time that one has taken."""
        if self._seconds is None or self._size is None:
            return
        if seconds > _TOO_LONG * self._seconds and items <= self._size:
            self._size = max(_LEAST, self._size // 2)
        elif seconds < self._seconds / 2 and items == self._size:
            self._size = min(_MOST, self._size * 2)

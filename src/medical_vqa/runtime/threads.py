"""The same call on many items by all cores, a few of them at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_IN_FLIGHT = 32  # items whose results exist or are computed, at most


def in_threads(
    call: Callable[[Item], Result], items: Iterable[Item], *, threads: int | None = None
) -> Iterator[Result]:
    """The results of a call on each item, in order, for calls that release the interpreter's lock.

    Args:
        call: Called once per item, in any of the threads; its exception is raised where its result would come.
        items: The items, read as they are needed: few of them and of their results are in memory at once.
        threads: Number of threads; by default one per core.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(call, item))
                if len(waiting) >= _IN_FLIGHT:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

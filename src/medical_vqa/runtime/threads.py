"""Calls in threads: the same one on many items by all cores, and a pool for which no interpreter waits."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")
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


_Calls = SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]


class DaemonThreads(Executor):
    """A pool of threads for which an interpreter that exits does not wait, unlike for those of `ThreadPoolExecutor`.

    Their calls wait for other processes and servers, for seconds or minutes. Where nobody has closed the pool, nobody
    awaits the results.
    """

    def __init__(self, threads: int, name: str) -> None:
        """Set up the queue; a thread starts where a call would wait for one.

        Args:
            threads: How many, at most.
            name: With which the names of the threads begin.
        """
        self._most = threads
        self._name = name
        self._calls: _Calls = SimpleQueue()
        self._idle = threading.Semaphore(0)  # counts the threads that wait for a call
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._closed = False
        weakref.finalize(self, self._calls.put, None).atexit = False  # the threads of a pool that is forgotten end

    def submit(
        self, call: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """Call it in one of the threads; raises `RuntimeError` once the pool is closed."""
        future: Future[Result] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("expected an open pool of threads, got one that was shut down")
            self._calls.put((future, partial(call, *args, **kwargs)))
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._most:
                name = f"{self._name}-{len(self._threads)}"
                thread = threading.Thread(target=_make_calls, args=(self._calls, self._idle), name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, seconds: float | None = None) -> None:
        """Accept no further calls, and end the threads after those that were accepted.

        Args:
            wait: Whether to return only then.
            cancel_futures: Whether to cancel the calls that have not begun.
            seconds: How long to wait, at most; None: until the threads have ended.
        """
        until = None if seconds is None else time.monotonic() + seconds
        with self._lock:
            self._closed = True
            while cancel_futures and not self._calls.empty():
                waiting = self._calls.get()
                if waiting is not None:
                    waiting[0].cancel()
            self._calls.put(None)
        for thread in self._threads if wait else ():
            thread.join(None if until is None else max(0.0, until - time.monotonic()))


def _make_calls(calls: _Calls, idle: threading.Semaphore) -> None:
    """The life of a thread: it ends at None, which it leaves for the next one."""
    while True:
        try:
            waiting = calls.get_nowait()
        except Empty:
            idle.release()
            waiting = calls.get()
        if waiting is None:
            calls.put(None)
            return
        future, call = waiting
        if future.set_running_or_notify_cancel():
            try:
                result = call()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
                del result
        del waiting, future, call  # or they would live until the next call

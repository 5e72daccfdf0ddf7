"""A question that is being answered: one thread per backend, the text so far, and cancellation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from medical_vqa.app.client import BackendError
from medical_vqa.serving.schema.answers import Answer

Reply = Answer | BackendError
OnText = Callable[[str], None]
Worker = Callable[[OnText, threading.Event], Reply]
"""Asks one backend: receives where the text so far goes, and the event that cancels it."""


@dataclass(slots=True)
class _Progress:
    text: str = ""
    reply: Reply | None = None


@dataclass(slots=True, eq=False)
class Asking:
    """One question to one or several backends, in the background."""

    question: str
    """The question, on one line."""
    started: float = field(default_factory=time.monotonic)
    """When it was asked (`time.monotonic`)."""
    _progress: list[_Progress] = field(default_factory=list)
    _canceled: threading.Event = field(default_factory=threading.Event)
    _done: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, workers: Sequence[Worker]) -> None:
        """Ask every backend."""
        self._progress = [_Progress() for _ in workers]
        for worker, progress in zip(workers, self._progress, strict=True):
            threading.Thread(target=self._ask, args=(worker, progress), daemon=True).start()

    def cancel(self) -> None:
        """Stop waiting; connections are closed, so that a server can stop its engine."""
        with self._lock:
            self._canceled.set()
            for progress in self._progress:
                progress.reply = progress.reply or BackendError("canceled", "canceled by the visitor")
            self._done.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether every backend has replied, after at most this time; None: without a limit."""
        return self._done.wait(seconds)

    @property
    def seconds(self) -> float:
        """Time since the question was asked."""
        return time.monotonic() - self.started

    @property
    def texts(self) -> list[str]:
        """What each backend has written so far."""
        return [p.reply.answer if isinstance(p.reply, Answer) else p.text for p in self._progress]

    @property
    def replies(self) -> list[Reply]:
        """The replies, once `wait` is true."""
        return [progress.reply for progress in self._progress if progress.reply is not None]

    def _ask(self, worker: Worker, progress: _Progress) -> None:
        def show(text: str) -> None:
            progress.text = text

        reply = worker(show, self._canceled)
        with self._lock:
            progress.reply = progress.reply or reply
            if all(other.reply is not None for other in self._progress):
                self._done.set()

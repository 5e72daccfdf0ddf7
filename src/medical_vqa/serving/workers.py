"""Several processes of one server: they accept from one socket, and one that dies is replaced.

Python runs one thread at a time in a process, and an answer of the guards is mostly Python, so that a second core needs
a second process. The first process only listens, starts the others and waits; it loads no model.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import structlog

from medical_vqa.errors import ConfigError

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Variable of prometheus-client: the folder in which the processes of a server count together."""
Work = Callable[..., None]
"""What a worker does: called with the settings, the socket, and what it calls once it accepts connections."""
_LOG = structlog.get_logger("medical_vqa.serving")
_spawn = multiprocessing.get_context("spawn")  # nothing that the first process has opened is inherited


@dataclass
class _Worker:
    process: SpawnProcess
    ready: connection.Connection
    """Receives a message once the worker accepts connections."""
    was_ready: bool = False


class Workers:
    """The processes of a server; used from the main thread."""

    def __init__(self, work: Work, settings: Any, listener: socket.socket, count: int) -> None:
        """Name what they do.

        Args:
            work: A function of a module, as the processes import it.
            settings: Passed to it; must be picklable.
            listener: The socket from which all accept.
            count: How many processes.
        """
        self._work = work
        self._settings = settings
        self._listener = listener
        self._count = count
        self._stopping = False
        self._workers: list[_Worker] = []

    def run(self, on_ready: Callable[[], None], stop_seconds: float) -> None:
        """Keep the processes running until SIGTERM or SIGINT; they then answer what they have accepted.

        Args:
            on_ready: Called once all of them accept connections.
            stop_seconds: How long a worker may take to stop before it is killed.

        Raises:
            ConfigError: A worker cannot start; it has printed why.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        with _counting_together():
            try:
                for _ in range(self._count):
                    self._workers.append(self._start())  # one by one: where one cannot start, those before it end
                self._watch(on_ready)
            finally:
                self._listener.close()  # so that the last worker closes the socket
                self._end(stop_seconds)

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _start(self) -> _Worker:
        ready, ready_here = _spawn.Pipe(duplex=False)
        process = _spawn.Process(target=_run, args=(self._work, self._settings, self._listener, ready_here))
        process.start()
        ready_here.close()
        return _Worker(process, ready)

    def _watch(self, on_ready: Callable[[], None]) -> None:
        announced = False
        while not self._stopping:
            waiting = [worker.ready for worker in self._workers if not worker.was_ready]
            connection.wait([*waiting, *(worker.process.sentinel for worker in self._workers)], timeout=0.5)
            for number, worker in enumerate(self._workers):
                if not worker.was_ready and worker.ready.poll():
                    with contextlib.suppress(EOFError):
                        worker.was_ready = bool(worker.ready.recv())
                if worker.process.exitcode is None or self._stopping:
                    continue
                if not worker.was_ready:
                    raise ConfigError(f"a worker has ended with status {worker.process.exitcode} before it was ready")
                _LOG.error("a worker has ended, another one starts", status=worker.process.exitcode)
                _forget_gauges(worker.process)
                self._workers[number] = self._start()
            if not announced and all(worker.was_ready for worker in self._workers):
                announced = True
                on_ready()

    def _end(self, stop_seconds: float) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(stop_seconds)
            if worker.process.exitcode is None:
                worker.process.kill()
                worker.process.join()


def _run(work: Work, settings: Any, listener: socket.socket, ready: connection.Connection) -> None:
    """The life of a worker: it ends as after SIGTERM when the first process is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process receives it too, and stops the others
    threading.Thread(target=_follow_parent, daemon=True).start()
    work(settings, listener, lambda: ready.send(True))


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    signal.raise_signal(signal.SIGTERM)


@contextlib.contextmanager
def _counting_together() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="medical-vqa-metrics-") as folder:
        os.environ[METRICS_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[METRICS_FOLDER]


def _forget_gauges(process: SpawnProcess) -> None:
    """Remove the gauges of a process that has ended; what it has counted stays."""
    for path in Path(os.environ[METRICS_FOLDER]).glob(f"gauge_live*_{process.pid}.db"):
        path.unlink(missing_ok=True)

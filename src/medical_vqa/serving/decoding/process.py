"""A decoding process: the side of its parent, which starts and kills it, and its own, bounded in memory."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import util
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Protocol, TypeVar

from medical_vqa.errors import ImageError, MedicalVqaError, TooLargeError
from medical_vqa.serving.decoding.upload import UPLOAD_NAME
from medical_vqa.serving.errors import deadline_exceeded

_START_TIMEOUT = 60.0  # seconds
Result_co = TypeVar("Result_co", covariant=True)
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # each thread reserves address space


class Job(Protocol[Result_co]):
    """Something to decode, which travels to the decoding process."""

    @property
    def size(self) -> int:
        """Bytes of its files."""

    def run(self) -> Result_co:
        """Decode it in this process; raises `MedicalVqaError`."""


class DecoderProcess:
    """One process, started with the first upload unless `start` was called, and again after it has died."""

    def __init__(self, memory_bytes: int, timeout: float, advice: str = "make it smaller") -> None:
        self._memory_bytes = memory_bytes
        self._timeout = timeout
        self._advice = advice  # where the time is over
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._kill: Callable[[], object] = lambda: None

    def start(self) -> None:
        """Start the process in the background, unless it runs, so that the next upload does not wait for it."""
        if self._process is None:
            threading.Thread(target=self._start_early, daemon=True).start()

    def _start_early(self) -> None:
        with self._lock:
            if self._closed:
                return
            try:
                self._ready_pipe()
            except (OSError, EOFError):  # the first upload tries again
                self.stop()

    def decode(self, job: Job[Any], remaining: float) -> Any:
        """Decode within the time limit or the `remaining` seconds of its request, whichever is less."""
        with self._lock:
            try:
                pipe = self._ready_pipe()
                pipe.send(job)
                if not pipe.poll(min(self._timeout, remaining)):
                    if remaining < self._timeout:
                        raise deadline_exceeded(self._timeout)
                    limit = f"{self._timeout:g} s"
                    raise TooLargeError(f"{UPLOAD_NAME}: takes more than {limit} to decode; {self._advice}")
                result = pipe.recv()
            except (EOFError, OSError) as error:
                self.stop()
                raise ImageError(f"{UPLOAD_NAME}: expected a complete picture, but the decoder crashed") from error
            except BaseException:
                self.stop()  # what it still sends would be taken for the answer to the next upload
                raise
        if isinstance(result, Exception):
            raise result
        return result

    def _ready_pipe(self) -> Connection:
        """The pipe to a process that has started; raises `OSError` when it does not start."""
        if self._pipe is not None and self._process is not None and self._process.is_alive():
            return self._pipe
        self.stop()
        if self._closed:
            raise OSError("the decoder is closed")
        context = multiprocessing.get_context("spawn")
        self._pipe, child_end = context.Pipe()
        with child_end:
            process = context.Process(target=_decode_jobs, args=(child_end, self._memory_bytes), daemon=True)
            # Also where nobody closes the pool. An interpreter that exits, or a process of `multiprocessing` that ends,
            # sends its children SIGTERM, which this one ignores, and waits for them. Only these finalizers run before.
            self._kill = util.Finalize(self, _kill, args=(process,), exitpriority=0)
            with _environment(_ONE_THREAD):
                process.start()
            self._process = process
        if self._closed:  # meanwhile
            raise OSError("the decoder is closed")
        if not self._pipe.poll(_START_TIMEOUT):
            raise OSError("the decoder does not start")
        self._pipe.recv()  # sent once it is ready: its start must not count as somebody's decoding
        return self._pipe

    def close(self) -> None:
        """Kill the process, also one that decodes or is being started, and start no other."""
        self._closed = True
        self._kill()  # so that whoever decodes ends, and releases the lock
        with self._lock:
            self.stop()

    def stop(self) -> None:
        """Kill the process, if there is one."""
        if self._process is not None:
            self._kill()
            self._process.kill()  # `close` may have come before its start
            self._process.join()
            self._process = None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


def _kill(process: SpawnProcess) -> None:
    if process.pid is not None:  # None: it was never started
        process.kill()


_ENVIRONMENT_LOCK = threading.Lock()


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables that a child process inherits."""
    with _ENVIRONMENT_LOCK:
        before = {name: os.environ.get(name) for name in values}
        os.environ.update(values)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _decode_jobs(pipe: Connection, memory_bytes: int) -> None:
    """Decode one job after another until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides when this process ends
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _import_readers()
    _limit_memory(memory_bytes)  # beyond that of the decoders, which this module has imported with `upload`
    pipe.send(None)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            result: Any = job.run()
        except MedicalVqaError as error:
            result = type(error)(str(error))  # without its causes, which may not be picklable
        except Exception as error:
            reason = type(error).__name__
            result = ImageError(f"{UPLOAD_NAME}: expected a complete picture, but it cannot be decoded ({reason})")
        del job
        pipe.send(result)
        del result


def _import_readers() -> None:
    """Import what reads the formats of hospitals: on a busy machine that takes seconds, which no file must wait for."""
    for module in ("dicom.slices", "nifti"):
        with contextlib.suppress(ImportError):  # packages of an extra, whose absence the first such file reports
            importlib.import_module(f"medical_vqa.data.imaging.{module}")


def _end_with_parent() -> None:
    """End this process, in the middle of an upload too, once its parent was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _limit_memory(memory_bytes: int) -> None:
    """Bound the address space of this process, on Linux."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return
    if not Path("/proc/self/statm").exists():
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

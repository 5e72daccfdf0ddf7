"""Uploads are decoded in processes of their own, with bounded memory and time: `Decoders`.

A file that makes a decoder take too much, take too long or die costs that one request its answer and nobody else
anything: the process is replaced. Only the prepared picture and a lossless copy of at most `KEPT_SIDE` pixels a side
come back; the upload itself stays in the decoder, and is gone with the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from medical_vqa.data.imaging.decode import IngestLimits, ingest
from medical_vqa.data.imaging.pictures import PictureSpec, prepare_picture
from medical_vqa.errors import ImageError, MedicalVqaError, TooLargeError, UnsupportedImageError
from medical_vqa.serving.errors import RefusedError, overloaded, past_deadline

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEPT_SIDE = 2048
"""Pixels; larger pictures are kept smaller, which no model sees."""
_WAITING_BYTES = 256 << 20  # of uploads that wait for a decoder, or are in one
_NAME = "the upload"
_START_SECONDS = 60.0
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # each thread reserves address space


@dataclass(frozen=True, slots=True)
class Job:
    """One upload."""

    data: bytes
    """As it came."""
    limits: IngestLimits
    """What is refused."""
    spec: PictureSpec | None
    """How the model wants its picture; None when it never looks."""
    frame: int | None = None
    """Of several, which one."""
    window: tuple[float, float] | None = None
    """Center and width, for DICOM and NIfTI."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What is kept of an upload."""

    digest: str
    """SHA-256 of the normalized pixels and their shape."""
    png: bytes
    """The normalized picture."""
    picture: NDArray[np.uint8]
    """Prepared for the model, (height, width, channels)."""
    about: Mapping[str, Any]
    """width, height, format, frames, dropped, facts, burned_in."""


def decode(job: Job) -> Decoded:
    """Decode one upload here and now; raises `ImageError`."""
    found = ingest(job.data, limits=job.limits, frame=job.frame, window=job.window, name=_NAME)
    image = found.image
    digest = hashlib.sha256(repr(found.picture.shape).encode())
    digest.update(np.ascontiguousarray(found.picture).data)
    about = {
        "width": found.width,
        "height": found.height,
        "format": found.format,
        "frames": found.frames,
        "dropped": list(found.dropped),
        "facts": {**found.facts, **_window_facts(found.window)},
        "burned_in": found.burned_in,
    }
    return Decoded(digest.hexdigest(), _png(image), prepared(image, job.spec), about)


def _window_facts(window: tuple[float, float] | None) -> dict[str, str]:
    """The window that was used, under DICOM's names, so that a client can offer another."""
    return {} if window is None else {"WindowCenter": f"{window[0]:g}", "WindowWidth": f"{window[1]:g}"}


def prepared(image: Image.Image, spec: PictureSpec | None) -> NDArray[np.uint8]:
    """The picture as the model sees it; one black pixel where it never looks."""
    return np.zeros((1, 1, 1), np.uint8) if spec is None else prepare_picture(image, spec)


def _png(image: Image.Image) -> bytes:
    if max(image.size) > KEPT_SIDE:
        image = image.copy()
        image.thumbnail((KEPT_SIDE, KEPT_SIDE))
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


class Decoders:
    """As many decoding processes as asked for; 0 means threads of this process."""

    def __init__(self, processes: int, *, memory: int, timeout: float, waiting: int, deadline: float) -> None:
        """`waiting` uploads may wait, `deadline` seconds each; decoding one may take `timeout` seconds."""
        self._timeout, self._places, self._most, self._deadline = timeout, max(1, processes), waiting, deadline
        self._threads = ThreadPoolExecutor(self._places, "decode")
        self._idle: SimpleQueue[_Child | None] = SimpleQueue()
        for _ in range(self._places):
            self._idle.put(_Child(memory, timeout) if processes else None)
        self._waiting, self._bytes = 0, 0

    async def decode(self, job: Job) -> Decoded:
        """Decode an upload beside the event loop. Raises `RefusedError`: 400, 413, 415, or 429 when too many wait."""
        if self._waiting >= self._most or (self._waiting and self._bytes + len(job.data) > _WAITING_BYTES):
            raise overloaded(self._deadline / 2)
        self._waiting, self._bytes = self._waiting + 1, self._bytes + len(job.data)
        until = time.monotonic() + self._deadline
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, job, until)
        except MedicalVqaError as error:
            raise refused(error) from error
        finally:
            self._waiting, self._bytes = self._waiting - 1, self._bytes - len(job.data)

    def _run(self, job: Job, until: float) -> Decoded:
        child = self._idle.get()
        try:
            if time.monotonic() > until:
                raise past_deadline(self._deadline / 2)
            return decode(job) if child is None else child.decode(job)
        finally:
            self._idle.put(child)

    def close(self) -> None:
        """End the processes, after what they are decoding."""
        self._threads.shutdown()
        for _ in range(self._places):
            child = self._idle.get()
            if child is not None:
                child.end()


class _Child:
    """One process, started when it is first needed and again after it has died."""

    def __init__(self, memory: int, timeout: float) -> None:
        self._memory, self._timeout = memory, timeout
        self._process: Any = None
        self._pipe: Connection | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._start_early, daemon=True).start()

    def _start_early(self) -> None:
        with contextlib.suppress(OSError), self._lock:
            self._ready()

    def decode(self, job: Job) -> Decoded:
        with self._lock:
            try:
                pipe = self._ready()
                pipe.send(job)
                if not pipe.poll(self._timeout):
                    raise ImageError(f"{_NAME}: takes more than {self._timeout:g} s to decode; make it smaller")
                answer = pipe.recv()
            except (EOFError, OSError) as error:
                self.end()
                raise ImageError(f"{_NAME}: expected a whole picture, but no decoder survives it") from error
            except ImageError:
                self.end()
                raise
        if isinstance(answer, Decoded):
            return answer
        raise answer

    def _ready(self) -> Connection:
        if self._pipe is None or not self._process.is_alive():
            self.end()
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs, self._memory), daemon=True)
            with _environment(_ONE_THREAD):
                self._process.start()
            theirs.close()
            if not self._pipe.poll(_START_SECONDS):
                raise OSError("the decoder does not start")
            self._pipe.recv()  # says that it is ready: its start must not count as somebody's decoding
        return self._pipe

    def end(self) -> None:
        """Kill the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


_START = threading.Lock()


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    with _START:
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


def _serve(pipe: Connection, memory: int) -> None:
    """What a decoding process does until its pipe is closed."""
    import signal  # noqa: PLC0415 - only here

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides when
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _limit(memory)
    pipe.send(None)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            answer: Decoded | MedicalVqaError = decode(job)
        except MedicalVqaError as error:
            answer = type(error)(str(error))  # without its causes, which may not travel
        except Exception as error:
            answer = ImageError(f"{_NAME}: expected a whole picture, but it cannot be decoded ({type(error).__name__})")
        del job
        pipe.send(answer)
        del answer


def _limit(memory: int) -> None:
    try:
        import resource  # noqa: PLC0415 - not everywhere
    except ImportError:
        return
    if not Path("/proc/self/statm").exists():
        return
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def refused(error: MedicalVqaError) -> RefusedError:
    """413 for what is too large, 415 for a known format that is not read, 400 for what is no picture."""
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, TooLargeError):
        return RefusedError(413, "too_large", str(error))
    if isinstance(error, UnsupportedImageError):
        return RefusedError(415, "unsupported_media_type", str(error))
    return RefusedError(400, "not_an_image", str(error))

"""Uploads are decoded in separate processes with bounded memory and time: `DecoderPool`.

A file that makes a decoder use too much memory, take too long or crash costs that one request its answer and no other
request anything: the process is replaced. Only the prepared picture and a lossless copy of at most `MAX_SIDE` pixels a
side are returned; the upload itself stays in the decoder, and is gone with the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import multiprocessing
import os
import signal
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from PIL import Image

from medical_vqa.data.imaging.decode import decode_image
from medical_vqa.data.imaging.decoded_frame import DecodedFrame, DecodeLimits, WindowSource
from medical_vqa.data.imaging.picture_statistics import NO_CONTEXT, PictureContext
from medical_vqa.data.imaging.preprocessing import PictureSpec, prepare_picture
from medical_vqa.data.imaging.stack import read_stack, storable
from medical_vqa.data.imaging.volume import Volume
from medical_vqa.data.imaging.windowed_channels import windowed_image
from medical_vqa.errors import DicomwebError, ImageError, MedicalVqaError, TooLargeError, UnsupportedImageError
from medical_vqa.serving.clients import current_client
from medical_vqa.serving.errors import ApiError, deadline_exceeded, overloaded
from medical_vqa.serving.fair_queue import FairQueue
from medical_vqa.serving.image_facts import facts_of_picture, facts_of_volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medical_vqa.data.imaging.planes import Plane
    from medical_vqa.serving.schema import ImageFacts

MAX_SIDE = 2048
"""Pixels; the copy of a larger picture is scaled down to it. No model sees more."""
_MAX_QUEUED_BYTES = 256 << 20  # of uploads that wait for a decoder, or are in one
_UPLOAD_NAME = "the upload"  # in messages: a client's file name is never repeated
_START_TIMEOUT = 60.0  # seconds
Result_co = TypeVar("Result_co", covariant=True)
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # each thread reserves address space


@dataclass(frozen=True, slots=True)
class DecodeJob:
    """One upload to decode."""

    data: bytes
    """The file."""
    limits: DecodeLimits
    """Bounds on bytes, pixels and frames."""
    spec: PictureSpec | None
    """How the model needs its picture; None for a model that uses no image."""
    frame: int | None = None
    """Which of several frames, from 0; None: the middle one."""
    window: tuple[float, float] | None = None
    """Center and width, for values of more than 8 bits."""
    keep_values: bool = False
    """Whether the values of more than 8 bits are returned too, to be stored."""
    keep_sources: bool = False
    """Whether what a DICOM report must repeat is returned too, to be stored."""

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.data)

    def run(self) -> DecodedImage:
        """Decode the file in this process; raises `ImageError`."""
        return decode(self)


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Facts about an uploaded file, as the client receives them."""

    width: int
    """Pixels, in upright orientation."""
    height: int
    """Pixels, in upright orientation."""
    format: str
    """File format, such as ``DICOM``."""
    frames: int
    """Frames or slices in the file."""
    removed_metadata: list[str]
    """Parts of the file that are not stored, such as ``EXIF``."""
    header_fields: dict[str, str]
    """Allow-listed header fields under their DICOM names, with the window that was applied."""
    burned_in_annotation: bool | None
    """Whether the header declares text in the pixels; None: it does not say."""
    spacing: tuple[float, float] | None = None
    """Distance of rows and of columns in millimeters; None: the file does not say."""
    frame: int = 0
    """The frame that was decoded, from 0."""
    window_source: WindowSource | None = None
    """Where the window came from."""
    plane: str | None = None
    """Plane nearest to the picture."""
    warnings: list[str] = field(default_factory=list)
    """Sentences on what could not be used, or what to be careful about."""


@dataclass(slots=True)
class DecodedImage:
    """An upload after decoding."""

    digest: str
    """SHA-256 of the normalized pixels and their shape."""
    png: bytes
    """The normalized picture, at most `MAX_SIDE` pixels a side."""
    picture: NDArray[np.uint8]
    """Prepared for the model, (height, width, channels)."""
    info: ImageInfo
    """Facts about the file."""
    context: PictureContext = NO_CONTEXT
    """What the guards check before any answer."""
    volume: Volume | None = None
    """The values, where they are stored; from `values.storable`."""
    facts: ImageFacts | None = None
    """What can be shown of the image, where it is stored."""
    sources: str = ""
    """What a DICOM report must repeat, from `StoredSources.to_json`; empty: it is not stored."""


def info_of(frame: DecodedFrame, header_fields: Mapping[str, str]) -> ImageInfo:
    """Facts about a file, from its decoded frame; `header_fields` are those that a client sees."""
    return ImageInfo(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        frames=frame.frames,
        removed_metadata=list(frame.removed_metadata),
        header_fields=dict(header_fields),
        burned_in_annotation=frame.burned_in_annotation,
        spacing=frame.spacing,
        frame=frame.frame,
        window_source=frame.window_source,
        plane=frame.plane,
        warnings=list(frame.warnings),
    )


def decode(job: DecodeJob) -> DecodedImage:
    """Decode one upload in this process; raises `ImageError`."""
    frame = decode_image(job.data, limits=job.limits, frame=job.frame, window=job.window, name=_UPLOAD_NAME)
    digest = hashlib.sha256(repr(frame.pixels.shape).encode())
    digest.update(np.ascontiguousarray(frame.pixels).data)
    header_fields = dict(frame.header_fields)
    if frame.window is not None:  # so that a client can offer another one
        center, width = frame.window
        header_fields |= {"WindowCenter": f"{center:g}", "WindowWidth": f"{width:g}"}
    info = info_of(frame, header_fields)
    picture = prepare_for_model(_for_model(job, frame), job.spec)
    stack = read_stack(job.data, frame, limits=job.limits) if job.keep_values else None
    volume = None if stack is None else storable(stack)
    if volume is None:
        facts = facts_of_picture(frame.header_fields, frame.window, list(frame.warnings))
    else:
        facts = facts_of_volume(volume, frame=frame.frame)
    sources = ""
    if job.keep_sources and frame.format == "DICOM":
        slices = range(frame.frames) if volume is not None else [frame.frame]
        sources = read_sources({0: lambda: job.data}, [(0, number) for number in slices])
        facts = facts.model_copy(update={"dicom_report": bool(sources)})
    context = PictureContext.of(frame)
    return DecodedImage(digest.hexdigest(), png_of(frame.image), picture, info, context, volume, facts, sources)


def read_sources(files: Mapping[int, Callable[[], bytes]], slices: Sequence[tuple[int, int]]) -> str:
    """What a DICOM report about a series or a file must repeat, as text; empty where the files do not have it.

    Args:
        files: Functions that return the bytes of a file, by its number.
        slices: Number of the file and frame, from 0, of each slice of the stored plane.
    """
    from medical_vqa.data.imaging.dicom_export.stored_sources import StoredSources  # noqa: PLC0415 - pydicom: an extra

    sources = StoredSources.read(files, slices)
    return "" if sources is None else sources.to_json()


def _for_model(job: DecodeJob, frame: DecodedFrame) -> Image.Image:
    """The frame as the model was trained to see it: in its own windows, unless the client chose one."""
    if job.spec is None or not job.spec.windows or job.window is not None:
        return frame.image

    def decode_window(window: tuple[float, float] | None) -> DecodedFrame:
        if window is None:
            return frame
        return decode_image(job.data, limits=job.limits, frame=job.frame, window=window, name=_UPLOAD_NAME)

    return windowed_image(decode_window, job.spec).image


def prepare_for_model(image: Image.Image, spec: PictureSpec | None) -> NDArray[np.uint8]:
    """The picture as the model sees it; one black pixel for a model that uses no image."""
    return np.zeros((1, 1, 1), np.uint8) if spec is None else prepare_picture(image, spec)


def prepared_slice(
    volume: Volume,
    index: int | None,
    plane: Plane | None,
    window: tuple[float, float] | None,
    spec: PictureSpec | None,
) -> tuple[DecodedFrame, NDArray[np.uint8]]:
    """One slice as a person sees it and as the model does: in its own windows, unless one was chosen.

    Args:
        volume: The values.
        index: The slice; None: the middle one.
        plane: Its plane; None: that of the stored slices.
        window: Center and width to show; None: the default.
        spec: How the model needs its picture; None for a model that uses no image.

    Raises:
        ImageError: There is no such slice.
    """
    frame = volume.view(index, plane=plane, window=window)
    picture = frame
    if spec is not None and window is None:
        picture = windowed_image(
            lambda own: frame if own is None else volume.view(index, plane=plane, window=own), spec
        )
    return frame, prepare_for_model(picture.image, spec)


def png_of(image: Image.Image) -> bytes:
    """A picture as PNG, of at most `MAX_SIDE` pixels a side."""
    if max(image.size) > MAX_SIDE:
        image = image.copy()
        image.thumbnail((MAX_SIDE, MAX_SIDE))
    out = io.BytesIO()
    # Runs alone are matched: of a CT slice a third faster than zlib's usual strategy, and not larger.
    image.save(out, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return out.getvalue()


# --- in the server ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DecoderLimits:
    """Bounds of a `DecoderPool`."""

    memory_bytes: int
    """Address space that one process may use beyond what it has at its start."""
    timeout: float
    """Seconds for decoding one upload."""
    queue_size: int
    """Uploads that may wait, or be decoded, at once."""
    deadline: float
    """Seconds in which an upload is decoded or refused, the wait for a decoder included."""


class Job(Protocol[Result_co]):
    """Something to decode, which travels to the decoding process."""

    @property
    def size(self) -> int:
        """Bytes of its files."""

    def run(self) -> Result_co:
        """Decode it in this process; raises `MedicalVqaError`."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """An upload that waits for a decoder."""

    job: Job[Any]
    deadline: float
    future: asyncio.Future[Any]
    sender: str


class DecoderPool:
    """A number of decoding processes, or one thread of this process; fair among clients by the time that they use."""

    def __init__(self, processes: int, limits: DecoderLimits, *, start_early: bool = True) -> None:
        """Set up the queue.

        Args:
            processes: How many; 0 decodes in a thread of this process, without a bound on memory or time.
            limits: Bounds of each.
            start_early: Whether the processes start now, and not with the first upload.
        """
        self._limits = limits
        self._threads = ThreadPoolExecutor(max(1, processes), "decode")
        self._processes = [
            _DecoderProcess(limits.memory_bytes, limits.timeout, start_early=start_early) for _ in range(processes)
        ]
        self._idle: list[_DecoderProcess | None] = [*self._processes] if processes else [None]
        self._queue: FairQueue[_Waiting] = FairQueue()
        self._running: set[asyncio.Task[None]] = set()
        self._queued = 0
        self._queued_bytes = 0

    async def decode(self, job: Job[Result_co], *, client: str = "", received: float | None = None) -> Result_co:
        """Decode an upload outside the event loop.

        Args:
            job: The upload.
            client: Whose upload it is; the decoders are shared fairly among clients.
            received: When the request arrived (`time.monotonic`): its deadline counts from there; None: now.

        Raises:
            ApiError: 400, 413 or 415 for the upload, 429 when too many wait or the deadline has passed.
        """
        size = job.size
        if self._queued >= self._limits.queue_size or (self._queued and self._queued_bytes + size > _MAX_QUEUED_BYTES):
            raise overloaded(self._limits.deadline / 2)
        self._queued += 1
        self._queued_bytes += size
        start = time.monotonic() if received is None else received
        loop = asyncio.get_running_loop()
        sender = current_client()
        waiting = _Waiting(job, start + self._limits.deadline, loop.create_future(), sender.name)
        self._queue.push(client, waiting, sender.weight, client=sender.name)
        self._start_next()
        try:
            async with asyncio.timeout(waiting.deadline - time.monotonic()):
                result: Result_co = await waiting.future
                return result
        except TimeoutError:
            raise deadline_exceeded(self._limits.deadline / 2) from None
        except MedicalVqaError as error:
            raise to_api_error(error) from error
        finally:
            self._queued -= 1
            self._queued_bytes -= size

    def _start_next(self) -> None:
        """Give the idle processes the uploads that are next."""
        while self._idle and len(self._queue):
            client, waiting = self._queue.pop()
            if waiting.future.done():  # its client has disconnected, or its deadline has passed
                continue
            task = asyncio.get_running_loop().create_task(self._decode_next(client, waiting, self._idle.pop()))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _decode_next(self, client: str, waiting: _Waiting, process: _DecoderProcess | None) -> None:
        start = time.monotonic()
        try:
            work = asyncio.get_running_loop().run_in_executor(self._threads, self._run, waiting, process)
            image = await work
            if not waiting.future.done():
                waiting.future.set_result(image)
        except Exception as error:
            if not waiting.future.done():
                waiting.future.set_exception(error)
        finally:
            self._queue.charge(client, time.monotonic() - start, client=waiting.sender)
            self._idle.append(process)
            self._start_next()

    def _run(self, waiting: _Waiting, process: _DecoderProcess | None) -> Any:
        remaining = waiting.deadline - time.monotonic()
        if remaining <= 0:
            raise deadline_exceeded(self._limits.deadline / 2)
        return waiting.job.run() if process is None else process.decode(waiting.job, remaining)

    def close(self) -> None:
        """Stop the processes, after the uploads that they are decoding."""
        self._threads.shutdown()
        for process in self._processes:
            process.close()


def to_api_error(error: MedicalVqaError) -> ApiError:
    """413 for what is too large, 415 for a known format that is not supported, 422 where another server failed, 400 for
    anything else."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, TooLargeError):
        return ApiError(413, "too_large", str(error))
    if isinstance(error, UnsupportedImageError):
        return ApiError(415, "unsupported_media_type", str(error))
    if isinstance(error, DicomwebError):
        return ApiError(422, "source_failed", str(error))
    return ApiError(400, "not_an_image", str(error))


class _DecoderProcess:
    """One process, started in advance and again after it has died."""

    def __init__(self, memory_bytes: int, timeout: float, *, start_early: bool) -> None:
        self._memory_bytes = memory_bytes
        self._timeout = timeout
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._kill: Callable[[], object] = lambda: None
        if start_early:
            threading.Thread(target=self._start_early, daemon=True).start()

    def _start_early(self) -> None:
        with contextlib.suppress(OSError, EOFError), self._lock:
            if not self._closed:
                self._ready_pipe()

    def decode(self, job: Job[Any], remaining: float) -> Any:
        """Decode within the time limit or the `remaining` seconds of its request, whichever is less."""
        with self._lock:
            try:
                pipe = self._ready_pipe()
                pipe.send(job)
                if not pipe.poll(min(self._timeout, remaining)):
                    if remaining < self._timeout:
                        raise deadline_exceeded(self._timeout)
                    raise ImageError(f"{_UPLOAD_NAME}: takes more than {self._timeout:g} s to decode; make it smaller")
                result = pipe.recv()
            except (EOFError, OSError) as error:
                self.stop()
                raise ImageError(f"{_UPLOAD_NAME}: expected a complete picture, but the decoder crashed") from error
            except (ImageError, ApiError):
                self.stop()
                raise
        if isinstance(result, Exception):
            raise result
        return result

    def _ready_pipe(self) -> Connection:
        """The pipe to a process that has started; raises `OSError` when it does not start."""
        if self._pipe is not None and self._process is not None and self._process.is_alive():
            return self._pipe
        self.stop()
        context = multiprocessing.get_context("spawn")
        self._pipe, child_end = context.Pipe()
        self._process = context.Process(target=_decode_jobs, args=(child_end, self._memory_bytes), daemon=True)
        with _environment(_ONE_THREAD):
            self._process.start()
        # Also where nobody closes the pool: the process ignores the signal by which an interpreter ends its children.
        self._kill = weakref.finalize(self, self._process.kill)
        child_end.close()
        if not self._pipe.poll(_START_TIMEOUT):
            raise OSError("the decoder does not start")
        self._pipe.recv()  # sent once it is ready: its start must not count as somebody's decoding
        return self._pipe

    def close(self) -> None:
        """Kill the process, also one that is being started, and start no other."""
        self._closed = True
        with self._lock:
            self.stop()

    def stop(self) -> None:
        """Kill the process, if there is one."""
        if self._process is not None:
            self._kill()
            self._process.join()
            self._process = None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


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


# --- in a decoding process --------------------------------------------------------------------------------------------


def _decode_jobs(pipe: Connection, memory_bytes: int) -> None:
    """Decode one job after another until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides when this process ends
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _limit_memory(memory_bytes)
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
            result = ImageError(f"{_UPLOAD_NAME}: expected a complete picture, but it cannot be decoded ({reason})")
        del job
        pipe.send(result)
        del result


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

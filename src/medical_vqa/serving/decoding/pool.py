"""Uploads are decoded in separate processes with bounded memory and time: `DecoderPool`.

A file that makes a decoder use too much memory, take too long or crash costs that one request its answer and no other
request anything: the process is replaced. Only the prepared picture and a lossless copy of at most `MAX_SIDE` pixels a
side are returned; the upload itself stays in the decoder, and is gone with the next one.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from medical_vqa.errors import DicomwebError, MedicalVqaError, TooLargeError, UnsupportedImageError
from medical_vqa.runtime.threads import DaemonThreads
from medical_vqa.serving.clients import current_client
from medical_vqa.serving.decoding.process import DecoderProcess, Job, Result_co
from medical_vqa.serving.errors import ApiError, deadline_exceeded, overloaded
from medical_vqa.serving.fair_queue import FairQueue

_MAX_QUEUED_BYTES = 256 << 20  # of uploads that wait for a decoder, or are in one


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
    timeout_setting: str = "MEDICAL_VQA_DECODE_TIMEOUT"
    """The setting that raises `timeout`."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """An upload that waits for a decoder."""

    job: Job[Any]
    deadline: float
    future: asyncio.Future[Any]
    sender: str


class DecoderPool:
    """A number of decoding processes, or one thread of this process; fair among clients by the time that they use."""

    def __init__(self, processes: int, limits: DecoderLimits) -> None:
        """Set up the queue; a process starts with `start`, or with the first upload.

        Args:
            processes: How many; 0 decodes in a thread of this process, without a bound on memory or time.
            limits: Bounds of each.
        """
        self._limits = limits
        self._threads = DaemonThreads(max(1, processes), "decode")
        advice = f"make it smaller, or raise {limits.timeout_setting}"
        self._processes = [DecoderProcess(limits.memory_bytes, limits.timeout, advice) for _ in range(processes)]
        self._idle: list[DecoderProcess | None] = [*self._processes] if processes else [None]
        self._queue: FairQueue[_Waiting] = FairQueue()
        self._running: set[asyncio.Task[None]] = set()
        self._queued = 0
        self._queued_bytes = 0

    def start(self) -> None:
        """Start the processes in the background, so that the first uploads do not wait for them."""
        for process in self._processes:
            process.start()

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
        if self._queue.is_full_for(client, max(1, self._limits.queue_size - len(self._running))) or (
            self._queued and self._queued_bytes + size > _MAX_QUEUED_BYTES
        ):
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
            if waiting.future.cancelled():  # nobody awaits it any more, and it holds the upload
                self._queue.remove(lambda other: other.future.cancelled())
            self._queued -= 1
            self._queued_bytes -= size
            del waiting, job  # or a failure, whose traceback has this frame, would hold the upload until a collection

    def _start_next(self) -> None:
        """Give the idle processes the uploads that are next."""
        while self._idle and len(self._queue):
            client, waiting = self._queue.pop()
            if waiting.future.done():  # its client has disconnected, or its deadline has passed
                continue
            task = asyncio.get_running_loop().create_task(self._decode_next(client, waiting, self._idle.pop()))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _decode_next(self, client: str, waiting: _Waiting, process: DecoderProcess | None) -> None:
        start = time.monotonic()
        try:
            image = await asyncio.get_running_loop().run_in_executor(self._threads, self._run, waiting, process)
            if not waiting.future.done():
                waiting.future.set_result(image)
        except Exception as error:
            if isinstance(error, MedicalVqaError):  # the frames of where it was raised hold the upload
                error.__cause__ = error.__context__ = error.__traceback__ = None
            if not waiting.future.done():
                waiting.future.set_exception(error)
        finally:
            self._queue.charge(client, time.monotonic() - start, client=waiting.sender)
            del waiting
            self._idle.append(process)
            self._start_next()

    def _run(self, waiting: _Waiting, process: DecoderProcess | None) -> Any:
        remaining = waiting.deadline - time.monotonic()
        if remaining <= 0:
            raise deadline_exceeded(self._limits.deadline / 2)
        return waiting.job.run() if process is None else process.decode(waiting.job, remaining)

    def close(self) -> None:
        """Kill the processes, in the middle of an upload too: a server that closes them awaits no upload any more."""
        for process in self._processes:
            process.close()
        self._threads.shutdown()


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

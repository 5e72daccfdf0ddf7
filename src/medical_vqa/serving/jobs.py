"""Jobs: many questions in one request, answered next to the others and kept until their client removes them.

    JOBS/ID/job.json       who asked, and when; removed first
    JOBS/ID/input.jsonl    one question per line, as received
    JOBS/ID/output.jsonl   one answer or error per line, in the order of the questions
    JOBS/ID/lock           held by the server that works on the job

Line n of the output belongs to line n of the input, so that a job resumes after a crash behind the last complete line:
nothing is answered twice, and nothing is left out. Questions of a job wait in the same fair queue as all others, as
those of a client of its own within the tenant. Files are read line by line, and by threads, so that neither the memory
nor the event loop notices how large they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import secrets
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import structlog
from pydantic import ValidationError

from medical_vqa.errors import ConfigError, DataError
from medical_vqa.io import atomic_write, remove_half_line, sync_folder, try_lock
from medical_vqa.serving.clients import Client, current_client, set_current_client
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.image_store.base import store_unavailable
from medical_vqa.serving.models import Models
from medical_vqa.serving.problems import to_api_error, validation_message
from medical_vqa.serving.schema.jobs import JobInfo, JobQuestion, JobState

MAX_JOBS = 100
"""Jobs of one tenant at once."""
MAX_LINES = 50_000
"""Questions of one job."""
_MAX_LINE = 16 * 1024  # bytes: the longest question, escaped, and more
_AT_ONCE = 8  # questions of a job that wait for the model
_JOBS_AT_ONCE = 8  # of one tenant; others wait
_BLOCK = 256 * 1024  # bytes of a file that are read at once
_SYNCED_LINES = 200  # after which the output is on the disk, and not only in the system's cache
_SCAN_SECONDS = 5.0  # between two searches for jobs that another server has left
_SERVER_ERROR = 500
_RETRY_SECONDS = 1.0  # after a refusal for want of time
_ID = re.compile(r"[0-9a-f]{32}")
_LOG = structlog.get_logger("medical_vqa.serving")


@dataclass(frozen=True, slots=True)
class Job:
    """One job's folder."""

    folder: Path
    """With the files above."""
    client: Client
    """Who asked."""
    total: int
    """Questions."""
    created_at: float
    """Unix time."""

    @property
    def id(self) -> str:
        """The job's id."""
        return self.folder.name

    @property
    def output(self) -> Path:
        """Where the answers are."""
        return self.folder / "output.jsonl"

    def open_questions(self, skip: int) -> BinaryIO:
        """The file of the questions, one on each line, behind the first `skip`."""
        file = (self.folder / "input.jsonl").open("rb")
        for _ in itertools.islice(file, skip):
            pass
        return file


class Jobs:
    """The jobs in a folder, which several servers may share; used from the event loop alone."""

    def __init__(self, folder: Path, models: Models) -> None:
        """Use a folder.

        Args:
            folder: Created where there is none.
            models: Answer the questions.

        Raises:
            ConfigError: The folder cannot be written.
        """
        self._folder = folder
        self._models = models
        self._running: dict[str, asyncio.Task[None]] = {}
        self._owners: Counter[str] = Counter()  # of the jobs that run here
        self._done: dict[str, int] = {}  # lines of the output, of the jobs that run here
        self._complete: set[str] = set()
        self._counts = _LineCounts()
        self._reading = asyncio.Semaphore(1)  # bodies, each of which takes some times its bytes while it is checked
        self._ended = asyncio.Event()
        self._scanning: asyncio.Task[None] | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            message = f"jobs {folder}: cannot be written ({error.strerror}); choose another folder"
            raise ConfigError(message) from error

    def start(self) -> None:
        """Resume the jobs that are not complete."""
        self._scanning = asyncio.create_task(self._scan())

    async def close(self) -> None:
        """Interrupt the jobs; the next server resumes them."""
        tasks = [task for task in (self._scanning, *self._running.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def create(self, body: bytes) -> JobInfo:
        """Accept the questions of a JSONL body: once this returns, they will be answered; raises `ApiError` (422)."""
        client = current_client()
        if len(await asyncio.to_thread(self._jobs_of, client.owner)) >= MAX_JOBS:
            raise ApiError(422, "invalid", f"there are {MAX_JOBS} jobs already; delete some")
        folder = self._folder / secrets.token_hex(16)
        try:
            async with self._reading:
                lines = await asyncio.to_thread(read_questions, body)
                await asyncio.to_thread(self._write, folder, client, lines)
        except (DataError, OSError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise store_unavailable() from error
        job = _read(folder)
        assert job is not None
        self._begin(job)
        return await asyncio.to_thread(self._info, job)

    def _write(self, folder: Path, client: Client, lines: Sequence[bytes]) -> None:
        folder.mkdir(mode=0o700)
        sync_folder(folder.parent)
        atomic_write(folder / "input.jsonl", b"".join(lines), durable=True, private=True)
        record = {
            "client": client.name,
            "tenant": client.tenant,
            "weight": client.weight,
            "total": len(lines),
            "created_at": time.time(),
        }
        atomic_write(folder / "job.json", json.dumps(record).encode(), durable=True, private=True)

    async def own_jobs(self) -> list[JobInfo]:
        """The client's jobs, the newest first."""
        owner = current_client().owner

        def read() -> list[JobInfo]:
            return [self._info(job) for job in sorted(self._jobs_of(owner), key=lambda job: -job.created_at)]

        return await asyncio.to_thread(read)

    async def get(self, job_id: str) -> JobInfo:
        """How far a job of the client is; raises `ApiError` (404)."""
        job = await self._own(job_id)
        return await asyncio.to_thread(self._info, job)

    async def output(self, job_id: str) -> AsyncIterator[bytes]:
        """The complete lines of a job's output so far, in blocks; raises `ApiError` (404)."""
        job = await self._own(job_id)
        return self._blocks(job.output, await asyncio.to_thread(self._counts.complete_bytes, job.output))

    async def _blocks(self, path: Path, remaining: int) -> AsyncIterator[bytes]:
        if not remaining:
            return
        with await asyncio.to_thread(path.open, "rb") as file:
            while remaining > 0 and (block := await asyncio.to_thread(file.read, min(_BLOCK, remaining))):
                remaining -= len(block)
                yield block

    async def delete(self, job_id: str) -> None:
        """Cancel a job, and remove it with its answers; raises `ApiError` (404)."""
        job = await self._own(job_id)
        await asyncio.to_thread(self._forget, job.folder)
        self._counts.forget(job.output)
        if (task := self._running.get(job.id)) is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._ended.set()
        await asyncio.to_thread(shutil.rmtree, job.folder, ignore_errors=True)

    def _forget(self, folder: Path) -> None:
        """Remove what makes a folder a job: whoever works on it notices, and a power failure does not bring it back."""
        with contextlib.suppress(FileNotFoundError):
            (folder / "job.json").unlink()
            sync_folder(folder)

    async def _own(self, job_id: str) -> Job:
        job = await asyncio.to_thread(_read, self._folder / job_id) if _ID.fullmatch(job_id) else None
        if job is None or job.client.owner != current_client().owner:
            raise ApiError(404, "not_found", "there is no such job; see GET /jobs")
        return job

    def _all(self) -> Iterator[Job]:
        for folder in self._folder.iterdir():
            job = _read(folder) if _ID.fullmatch(folder.name) else None
            if job is not None:
                yield job

    def _jobs_of(self, owner: str) -> list[Job]:
        return [job for job in self._all() if job.client.owner == owner]

    def _info(self, job: Job) -> JobInfo:
        done = self._done.get(job.id)
        done = self._counts.lines(job.output) if done is None else done
        state: JobState = "complete" if done >= job.total else "running" if job.id in self._running else "waiting"
        return JobInfo(id=job.id, state=state, total=job.total, done=done, created_at=job.created_at)

    async def _scan(self) -> None:
        """Begin what no server works on: after a start, when another job has ended, or another server has gone."""
        while True:
            self._ended.clear()
            try:
                await self._begin_waiting()
            except OSError as error:  # the folder cannot be read now
                _LOG.error("jobs not searched", reason=type(error).__name__)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SCAN_SECONDS):
                    await self._ended.wait()

    async def _begin_waiting(self) -> None:
        for job in await asyncio.to_thread(self._oldest_first):
            if job.id in self._running or job.id in self._complete:
                continue
            if (await asyncio.to_thread(self._info, job)).state == "complete":
                self._complete.add(job.id)
            else:
                self._begin(job)

    def _oldest_first(self) -> list[Job]:
        return sorted(self._all(), key=lambda job: job.created_at)

    def _begin(self, job: Job) -> None:
        """Work on a job, unless its tenant has enough that run."""
        if job.id in self._running or self._owners[job.client.owner] >= _JOBS_AT_ONCE:
            return
        task = asyncio.create_task(self._run(job))
        self._running[job.id] = task
        self._owners[job.client.owner] += 1

        def ended(_: asyncio.Task[None]) -> None:
            self._running.pop(job.id, None)
            self._done.pop(job.id, None)
            self._owners[job.client.owner] -= 1

        task.add_done_callback(ended)

    async def _run(self, job: Job) -> None:
        with try_lock(job.folder / "lock") as locked:
            if not locked:
                return
            set_current_client(job.client)
            try:
                await self._answer(job)
                self._ended.set()  # the next of this tenant may begin
            except OSError as error:
                _LOG.error("job interrupted", reason=type(error).__name__, job=job.id[:8])

    async def _answer(self, job: Job) -> None:
        """Answer what has no line in the output yet, and append the lines in order."""
        remove_half_line(job.output)
        done = self._done[job.id] = await asyncio.to_thread(self._counts.lines, job.output)
        remaining = await asyncio.to_thread(job.open_questions, done)
        with remaining, job.output.open("ab") as file:
            ahead: list[asyncio.Task[dict[str, Any]]] = []
            try:
                while True:
                    while len(ahead) < _AT_ONCE and (question := remaining.readline()):
                        ahead.append(asyncio.create_task(self._line(JobQuestion.model_validate_json(question))))
                    if not ahead:
                        break
                    line = await ahead.pop(0)
                    file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
                    file.flush()
                    self._done[job.id] += 1
                    if self._done[job.id] % _SYNCED_LINES == 0:
                        await asyncio.to_thread(os.fsync, file.fileno())
                        if not (job.folder / "job.json").exists():  # deleted on another server
                            return
            finally:
                for task in ahead:
                    task.cancel()
            await asyncio.to_thread(os.fsync, file.fileno())

    async def _line(self, question: JobQuestion) -> dict[str, Any]:
        """An answer or an error; what is refused for want of time is asked again."""
        while True:
            try:
                service = self._models.choose(question.model, question.image_id)
                answer = await service.questions.ask(question.image_id, question.question)
                return {"id": question.id, "answer": answer.model_dump(mode="json")}
            except OSError:
                raise
            except Exception as exception:
                error = to_api_error(exception)
                if error.status not in (429, 503):
                    if error is not exception and error.status >= _SERVER_ERROR:
                        _LOG.error("unhandled exception", exc_info=exception)
                    return {"id": question.id, "error": {"code": error.code, "message": error.message}}
            await asyncio.sleep(_RETRY_SECONDS)


def read_questions(body: bytes) -> list[bytes]:
    """The questions of a JSONL body, checked, one on each line; raises `ApiError` (422) for the first that is none."""
    if body.count(b"\n") > MAX_LINES:
        raise ApiError(422, "invalid", f"the body has more than {MAX_LINES:,} lines; send several jobs")
    lines = []
    for number, line in enumerate(body.split(b"\n"), 1):
        if not line.strip():
            continue
        if len(line) > _MAX_LINE:
            raise ApiError(422, "invalid", f"line {number}: expected at most {_MAX_LINE:,} bytes, got {len(line):,}")
        try:
            lines.append(JobQuestion.model_validate_json(line).model_dump_json().encode() + b"\n")
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            first["loc"] = ("body", *first["loc"])
            raise ApiError(422, "invalid", f"line {number}: {validation_message([first])}") from None
    if not lines:
        raise ApiError(422, "invalid", "expected one JSON object with image_id and question per line, got none")
    return lines


def _read(folder: Path) -> Job | None:
    try:
        record = json.loads((folder / "job.json").read_bytes())
        client = Client(name=f"{record['client']} (jobs)", tenant=record["tenant"], weight=record["weight"])
        return Job(folder, client, record["total"], record["created_at"])
    except (OSError, ValueError, TypeError, KeyError):  # being written or removed, or not written by a server
        return None


class _LineCounts:
    """How many complete lines some files have, which only grow: what was counted once is not read again."""

    def __init__(self) -> None:
        self._counted: dict[Path, tuple[int, int]] = {}  # lines, and the bytes of them

    def lines(self, path: Path) -> int:
        """How many complete lines a file has; 0 where there is none."""
        return self._count(path)[0]

    def complete_bytes(self, path: Path) -> int:
        """How many bytes they have."""
        return self._count(path)[1]

    def forget(self, path: Path) -> None:
        """The file is gone."""
        self._counted.pop(path, None)

    def _count(self, path: Path) -> tuple[int, int]:
        lines, size = self._counted.get(path, (0, 0))
        try:
            with path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < size:  # another file of that name
                    lines, size = 0, 0
                file.seek(size)
                position = size
                while block := file.read(_BLOCK):
                    if ends := block.count(b"\n"):
                        lines += ends
                        size = position + block.rindex(b"\n") + 1
                    position += len(block)
        except FileNotFoundError:
            return 0, 0
        self._counted[path] = lines, size
        return lines, size

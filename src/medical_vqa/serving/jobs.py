"""Jobs: many questions in one request, answered next to the others and kept until their client removes them.

    JOBS/ID/job.json       who asked, and when; removed first
    JOBS/ID/input.jsonl    one question per line, as received
    JOBS/ID/output.jsonl   one answer or error per line, in the order of the questions
    JOBS/ID/lock           held by the server that works on the job

Line n of the output belongs to line n of the input, so that a job resumes after a crash behind the last complete line:
nothing is answered twice, and nothing is left out. Questions of a job wait in the same fair queue as all others, as
those of a client of its own within the tenant.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError

from medical_vqa.errors import ConfigError, DataError
from medical_vqa.io import atomic_write, remove_half_line, sync_folder, try_lock
from medical_vqa.serving.clients import Client, current_client, set_current_client
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.image_store.base import store_unavailable
from medical_vqa.serving.models import Models
from medical_vqa.serving.schema import JobInfo, JobQuestion, JobState

MAX_JOBS = 100
"""Jobs of one tenant at once."""
MAX_LINES = 50_000
"""Questions of one job."""
_AT_ONCE = 8  # questions of a job that wait for the model
_SYNCED_LINES = 200  # after which the output is on the disk, and not only in the system's cache
_SCAN_SECONDS = 5.0  # between two searches for jobs that another server has left
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

    def questions(self) -> list[JobQuestion]:
        """The questions in their order."""
        lines = (self.folder / "input.jsonl").read_bytes().splitlines()
        return [JobQuestion.model_validate_json(line) for line in lines]


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
        self._done: dict[str, int] = {}  # lines of the output, of the jobs that run here
        self._complete: set[str] = set()
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
        questions = await asyncio.to_thread(read_questions, body)
        client = current_client()
        if len([job for job in self._all() if job.client.owner == client.owner]) >= MAX_JOBS:
            raise ApiError(422, "invalid", f"there are {MAX_JOBS} jobs already; delete some")
        folder = self._folder / secrets.token_hex(16)
        try:
            await asyncio.to_thread(self._write, folder, client, questions)
        except (DataError, OSError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise store_unavailable() from error
        job = _read(folder)
        assert job is not None
        self._begin(job)
        return self._info(job)

    def _write(self, folder: Path, client: Client, questions: Sequence[JobQuestion]) -> None:
        folder.mkdir(mode=0o700)
        sync_folder(folder.parent)
        lines = b"".join(question.model_dump_json().encode() + b"\n" for question in questions)
        atomic_write(folder / "input.jsonl", lines, durable=True, private=True)
        record = {
            "client": client.name,
            "tenant": client.tenant,
            "weight": client.weight,
            "total": len(questions),
            "created_at": time.time(),
        }
        atomic_write(folder / "job.json", json.dumps(record).encode(), durable=True, private=True)

    def own_jobs(self) -> list[JobInfo]:
        """The client's jobs, the newest first."""
        own = [job for job in self._all() if job.client.owner == current_client().owner]
        return [self._info(job) for job in sorted(own, key=lambda job: -job.created_at)]

    def get(self, job_id: str) -> JobInfo:
        """How far a job of the client is; raises `ApiError` (404)."""
        return self._info(self._own(job_id))

    async def output(self, job_id: str) -> bytes:
        """The complete lines of a job's output so far; raises `ApiError` (404)."""
        path = self._own(job_id).output
        with contextlib.suppress(FileNotFoundError):
            content = await asyncio.to_thread(path.read_bytes)
            return content[: content.rfind(b"\n") + 1]
        return b""

    async def delete(self, job_id: str) -> None:
        """Cancel a job, and remove it with its answers; raises `ApiError` (404)."""
        job = self._own(job_id)
        await asyncio.to_thread(self._forget, job.folder)
        if (task := self._running.get(job.id)) is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(shutil.rmtree, job.folder, ignore_errors=True)

    def _forget(self, folder: Path) -> None:
        """Remove what makes a folder a job: whoever works on it notices, and a power failure does not bring it back."""
        with contextlib.suppress(FileNotFoundError):
            (folder / "job.json").unlink()
            sync_folder(folder)

    def _own(self, job_id: str) -> Job:
        job = _read(self._folder / job_id) if _ID.fullmatch(job_id) else None
        if job is None or job.client.owner != current_client().owner:
            raise ApiError(404, "not_found", "there is no such job; see GET /jobs")
        return job

    def _all(self) -> Iterator[Job]:
        for folder in self._folder.iterdir():
            job = _read(folder) if _ID.fullmatch(folder.name) else None
            if job is not None:
                yield job

    def _info(self, job: Job) -> JobInfo:
        done = self._done[job.id] if job.id in self._done else _complete_lines(job.output)
        state: JobState = "complete" if done >= job.total else "running" if job.id in self._running else "waiting"
        return JobInfo(id=job.id, state=state, total=job.total, done=done, created_at=job.created_at)

    async def _scan(self) -> None:
        """Begin what no server works on: after a start, and when another server has gone."""
        while True:
            for job in list(self._all()):
                if job.id in self._running or job.id in self._complete:
                    continue
                if self._info(job).state == "complete":
                    self._complete.add(job.id)
                else:
                    self._begin(job)
            await asyncio.sleep(_SCAN_SECONDS)

    def _begin(self, job: Job) -> None:
        task = asyncio.create_task(self._run(job))
        self._running[job.id] = task

        def ended(_: asyncio.Task[None]) -> None:
            self._running.pop(job.id, None)
            self._done.pop(job.id, None)

        task.add_done_callback(ended)

    async def _run(self, job: Job) -> None:
        with try_lock(job.folder / "lock") as locked:
            if not locked:
                return
            set_current_client(job.client)
            try:
                await self._answer(job)
            except OSError as error:
                _LOG.error("job interrupted", reason=type(error).__name__, job=job.id[:8])

    async def _answer(self, job: Job) -> None:
        """Answer what has no line in the output yet, and append the lines in order."""
        questions = await asyncio.to_thread(job.questions)
        remove_half_line(job.output)
        done = self._done[job.id] = _complete_lines(job.output)
        with job.output.open("ab") as file:
            ahead: list[asyncio.Task[dict[str, Any]]] = []
            remaining = iter(questions[done:])
            try:
                while True:
                    while len(ahead) < _AT_ONCE and (question := next(remaining, None)) is not None:
                        ahead.append(asyncio.create_task(self._line(question)))
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
            os.fsync(file.fileno())

    async def _line(self, question: JobQuestion) -> dict[str, Any]:
        """An answer or an error; what is refused for want of time is asked again."""
        while True:
            try:
                service = self._models.choose(question.model, question.image_id)
                answer = await service.ask(question.image_id, question.question)
                return {"id": question.id, "answer": answer.model_dump(mode="json")}
            except ApiError as error:
                if error.status not in (429, 503):
                    return {"id": question.id, "error": {"code": error.code, "message": error.message}}
            await asyncio.sleep(_RETRY_SECONDS)


def read_questions(body: bytes) -> list[JobQuestion]:
    """The questions of a JSONL body; raises `ApiError` (422) for the first line that is none."""
    if body.count(b"\n") > MAX_LINES:
        raise ApiError(422, "invalid", f"the body has more than {MAX_LINES:,} lines; send several jobs")
    questions = []
    for number, line in enumerate(body.splitlines(), 1):
        if not line.strip():
            continue
        try:
            questions.append(JobQuestion.model_validate_json(line))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "line"
            raise ApiError(422, "invalid", f"line {number}: {place}: {first['msg'].lower()}") from None
    if not questions:
        raise ApiError(422, "invalid", "expected one JSON object with image_id and question per line, got none")
    return questions


def _read(folder: Path) -> Job | None:
    try:
        record = json.loads((folder / "job.json").read_bytes())
    except (OSError, ValueError):
        return None
    client = Client(name=f"{record['client']} (jobs)", tenant=record["tenant"], weight=record["weight"])
    return Job(folder, client, record["total"], record["created_at"])


def _complete_lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0

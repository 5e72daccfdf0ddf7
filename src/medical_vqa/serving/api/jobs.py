"""Routes of jobs: many questions as JSON lines, answered next to the others."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import StreamingResponse

from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.jobs import Jobs
from medical_vqa.serving.schema.errors import Problem
from medical_vqa.serving.schema.jobs import JobInfo, JobList

router = APIRouter(tags=["jobs"])
_DESCRIPTIONS = {
    401: "no key, or an unknown one",
    403: "the key lacks the role",
    404: "no such job, or a server without a folder for jobs",
    408: "the body arrived too slowly",
    413: "too large",
    422: "a line is no question",
    429: "too many requests",
}
_LINES = "application/x-ndjson"
JobId = Annotated[str, Path(max_length=64, description="As POST /jobs returned it.")]


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "description": _DESCRIPTIONS[status]} for status in statuses}


async def get_jobs(request: Request) -> Jobs:
    """The jobs of the application that received a request; raises `ApiError` (404) where it has none."""
    jobs: Jobs | None = request.app.state.jobs
    if jobs is None:
        raise ApiError(404, "not_found", "this server takes no jobs; set MEDICAL_VQA_JOBS to a folder")
    return jobs


JobsDependency = Annotated[Jobs, Depends(get_jobs)]


@router.post(
    "/jobs",
    status_code=202,
    responses=_errors(401, 403, 404, 408, 413, 422, 429),
    openapi_extra={"requestBody": {"required": True, "content": {_LINES: {"schema": {"type": "string"}}}}},
)
async def create_job(request: Request, jobs: JobsDependency) -> JobInfo:
    """Ask many questions about uploaded images: one JSON object with `image_id` and `question` per line."""
    return await jobs.create(await request.body())


@router.get("/jobs", responses=_errors(401, 404, 429))
async def list_jobs(jobs: JobsDependency) -> JobList:
    """Your jobs, the newest first."""
    return JobList(jobs=await jobs.own_jobs())


@router.get("/jobs/{job_id}", responses=_errors(401, 404, 422, 429))
async def job(job_id: JobId, jobs: JobsDependency) -> JobInfo:
    """How far a job is."""
    return await jobs.get(job_id)


@router.get(
    "/jobs/{job_id}/output",
    response_class=Response,
    responses={200: {"content": {_LINES: {}}, "description": "JSON lines."}, **_errors(401, 404, 422, 429)},
)
async def job_output(job_id: JobId, jobs: JobsDependency) -> Response:
    """The answers so far, in the order of the questions: `id` with `answer` or `error` on each line."""
    return StreamingResponse(await jobs.output(job_id), media_type=_LINES)


@router.delete("/jobs/{job_id}", status_code=204, responses=_errors(401, 403, 404, 422, 429))
async def delete_job(job_id: JobId, jobs: JobsDependency) -> Response:
    """Cancel a job, and remove it with its answers."""
    await jobs.delete(job_id)
    return Response(status_code=204)

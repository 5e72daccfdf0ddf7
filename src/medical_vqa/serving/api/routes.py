"""The HTTP routes; each is a few lines over `Service`."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Awaitable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Path, Query, Request, Response, UploadFile
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, StreamingResponse

from medical_vqa.serving.api.examples import bundled_examples
from medical_vqa.serving.api.requests import (
    BoundedJsonRoute,
    ClientDependency,
    DirectRoute,
    ServiceDependency,
    UploadDependency,
    ask_request_openapi,
    choose_service,
    count_questions,
    read_ask_request,
    while_connected,
)
from medical_vqa.serving.api.streams import OnText, answer_events
from medical_vqa.serving.errors import ApiError, shutting_down
from medical_vqa.serving.schema.answers import Answer, Answers
from medical_vqa.serving.schema.common import CHOSEN_MODEL, IMAGE_ID_EXAMPLE, QUESTION_EXAMPLE, Question
from medical_vqa.serving.schema.errors import Problem
from medical_vqa.serving.schema.examples import Examples
from medical_vqa.serving.schema.health import Health
from medical_vqa.serving.schema.images import UploadedImage
from medical_vqa.serving.schema.models import ModelInfo
from medical_vqa.serving.schema.questions import AskManyRequest, AskRequest, Suggestions
from medical_vqa.serving.series.views import Selection
from medical_vqa.serving.service.inputs import QuestionContext, Upload

_DESCRIPTIONS = {
    400: "not an image, or a body that cannot be read",
    401: "no key, or an unknown one",
    403: "the key lacks the role",
    404: "unknown, deleted or expired image",
    408: "the body arrived too slowly",
    413: "too large: bytes or pixels",
    415: "a format or a content type that is not supported",
    422: "a field is missing, too long or of the wrong type",
    429: "too many requests, or no answer in time; see Retry-After",
    503: "the image store does not answer, or the server is shutting down",
}
UPLOAD_ERRORS = (400, 401, 403, 408, 413, 415, 422, 429, 503)
_QUESTION_ERRORS = (400, 401, 403, 404, 408, 413, 415, 422, 429, 503)
IMAGE_ERRORS = (401, 403, 404, 422, 429, 503)

ImageId = Annotated[
    str, Path(description="As POST /upload_image returned it.", examples=[IMAGE_ID_EXAMPLE], max_length=64)
]
router = APIRouter()
json_router = APIRouter(route_class=BoundedJsonRoute)
direct_router = APIRouter(route_class=DirectRoute)


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for its description."""
    return {status: {"model": Problem, "description": _DESCRIPTIONS[status]} for status in statuses}


# --- questions --------------------------------------------------------------------------------------------------------


@direct_router.post(
    "/ask_question", tags=["questions"], responses=errors(*_QUESTION_ERRORS), openapi_extra=ask_request_openapi()
)
async def ask_question(request: Request, service: ServiceDependency) -> Answer:
    """Ask a question about an uploaded image. The body is JSON or a form."""
    received = time.monotonic()
    body = await read_ask_request(request)
    service = choose_service(request, body.model, body.image_id)
    if (answer := service.questions.cached_answer(body, received)) is not None:
        return answer  # type: ignore[return-value]  # its JSON
    work = service.questions.ask(
        body.image_id,
        body.question,
        attention_map=body.attention_map,
        received=received,
        context=_context(body),
        selection=_selection(body),
    )
    return await while_connected(request, work)


@json_router.post(
    "/ask_question/stream",
    tags=["questions"],
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "Events `text`, and last `answer` or `problem`."},
        **errors(*_QUESTION_ERRORS),
    },
)
async def stream_question(request: Request, body: AskRequest) -> StreamingResponse:
    """Ask a question and receive the answer while it is written; closing the connection cancels it.

    Each event `text` has the whole text so far; the event `answer` has an `Answer`, the event `problem` a `Problem`.
    """
    service = choose_service(request, body.model, body.image_id)
    await service.images.get(body.image_id)
    service.questions.require_pictures(1 + len(body.other_image_ids))

    def ask_with(on_text: OnText) -> Awaitable[Answer]:
        return service.questions.ask(
            body.image_id,
            body.question,
            attention_map=body.attention_map,
            context=dataclasses.replace(_context(body), on_text=on_text),
            selection=_selection(body),
        )

    events = answer_events(ask_with, service.engine.metrics)
    return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def _context(body: AskRequest) -> QuestionContext:
    turns = [(turn.question, turn.answer) for turn in body.turns]
    return QuestionContext(other_image_ids=body.other_image_ids, turns=turns, check_image=body.check_image)


def _selection(body: AskRequest | AskManyRequest) -> Selection:
    return Selection(body.frame, body.plane, body.window)


@json_router.post("/ask_questions", tags=["questions"], responses=errors(*_QUESTION_ERRORS))
async def ask_questions(request: Request, body: AskManyRequest) -> Answers:
    """Ask several questions about an uploaded image; they are answered together."""
    service = choose_service(request, body.model, body.image_id)
    await count_questions(request, len(body.questions))
    work = service.questions.ask_many(
        body.image_id, body.questions, attention_map=body.attention_map, selection=_selection(body)
    )
    return await while_connected(request, work)


@router.post("/ask", tags=["questions"], responses=errors(404, *UPLOAD_ERRORS))
async def ask(
    request: Request,
    client: ClientDependency,
    upload: UploadDependency,
    question: Annotated[Question, Form(description="In words.", examples=[QUESTION_EXAMPLE])],
    attention_map: Annotated[
        bool, Form(description="Whether to add the attention map: where in the image the answer comes from.")
    ] = False,
    other_files: Annotated[
        list[UploadFile] | None, File(description="Further images of the question, for models that take several.")
    ] = None,
    model: Annotated[str | None, Form(max_length=200, description=CHOSEN_MODEL)] = None,
) -> Answer:
    """Ask a question about an image in one request; the image is not stored."""
    service = choose_service(request, model, hashlib.sha256(upload.data).hexdigest())
    others = other_files or []
    service.questions.require_pictures(1 + len(others))
    uploads = [upload, *[Upload(await other.read()) for other in others]]
    work = service.questions.ask_once(uploads, question, attention_map=attention_map, client=client)
    return await while_connected(request, work)


# --- images -----------------------------------------------------------------------------------------------------------


@router.post("/upload_image", tags=["images"], responses=errors(*UPLOAD_ERRORS))
async def upload_image(service: ServiceDependency, client: ClientDependency, upload: UploadDependency) -> UploadedImage:
    """Upload an image to ask about. Its header is removed; the file itself is not stored."""
    return await service.upload(upload, client=client)


@router.delete("/images/{image_id}", tags=["images"], status_code=204, responses=errors(*IMAGE_ERRORS))
async def delete_image(request: Request, image_id: ImageId, service: ServiceDependency) -> Response:
    """Delete an uploaded image, on every server of the store."""
    await service.delete(image_id)
    request.app.state.models.forget(image_id)
    return Response(status_code=204)


@router.get(
    "/images/{image_id}/picture",
    tags=["images"],
    response_class=Response,
    responses={200: {"content": {"image/png": {}}, "description": "PNG."}, **errors(*IMAGE_ERRORS)},
)
async def image_picture(image_id: ImageId, service: ServiceDependency) -> Response:
    """The picture of an uploaded image as the server decoded it: upright, 8 bits, windowed, without any header."""
    return Response(await service.views.picture(image_id), media_type="image/png")


@router.get("/images/{image_id}/questions", tags=["images"], responses=errors(*IMAGE_ERRORS))
async def suggested_questions(
    image_id: ImageId,
    service: ServiceDependency,
    language: Annotated[Literal["en", "zh"], Query(description="Language of the questions.")] = "en",
) -> Suggestions:
    """Questions that the model answers about an uploaded image without abstaining, the commonest first."""
    chinese = language == "zh"
    common = [] if chinese else bundled_examples().examples.questions
    return Suggestions(questions=await service.questions.suggested(image_id, common, chinese=chinese))


# --- about this server ------------------------------------------------------------------------------------------------


@router.get("/model", tags=["server"], responses=errors(401, 429))
async def model_info(service: ServiceDependency) -> ModelInfo:
    """The card of the model that answers, and the limits of this server."""
    return service.info()


@router.get("/examples", tags=["server"], responses=errors(401, 429))
async def examples() -> Examples:
    """Images that ship with the server, with questions and the dataset's answers."""
    return bundled_examples().examples


@router.get(
    "/examples/{example_id}/image",
    tags=["server"],
    response_class=FileResponse,
    responses={200: {"content": {"image/jpeg": {}}, "description": "The image."}, **errors(401, 404, 422, 429)},
)
async def example_image(
    example_id: Annotated[str, Path(max_length=64, description="As GET /examples lists it.")],
) -> FileResponse:
    """The image of an example."""
    path = bundled_examples().files.get(example_id)
    if path is None:
        raise ApiError(404, "not_found", "there is no such example; see GET /examples")
    return FileResponse(path, media_type="image/jpeg")


@router.get("/healthz", tags=["operations"])
async def healthz() -> Health:
    """Liveness: whether the process responds."""
    return Health(status="ok")


@router.get("/readyz", tags=["operations"], responses=errors(503))
async def readyz(request: Request, service: ServiceDependency) -> Health:
    """Readiness: whether uploads are stored, questions are answered, and both can be recorded in the audit log."""
    if request.app.state.draining.active:
        raise shutting_down()
    if not service.engine.ready:
        raise ApiError(503, "not_ready", "the model is not ready; try again soon", {"Retry-After": "2"})
    await service.check_ready()
    return Health(status="ready")


@router.get("/", include_in_schema=False)
async def root(request: Request, service: ServiceDependency) -> Response:
    """The page, or the description of the API, where they are served."""
    if service.settings.page:
        return RedirectResponse(f"/page?{request.url.query}" if request.url.query else "/page")
    return RedirectResponse("/docs") if service.settings.docs else JSONResponse({"name": "medical-vqa"})

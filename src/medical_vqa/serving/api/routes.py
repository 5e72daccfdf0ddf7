"""The HTTP face: `create_app(engine, settings)`; every route is a few lines over `Service`."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import Depends, FastAPI, File, Form, Request, Response, UploadFile
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse
from fastapi.security import HTTPBearer
from fastapi.telemetry import TelemetryConfig
from prometheus_fastapi_instrumentator import Instrumentator
from pydantic import ValidationError
from secure import Secure
from secure.headers import CacheControl, ContentSecurityPolicy, ReferrerPolicy, XContentTypeOptions, XFrameOptions
from secure.middleware import SecureASGIMiddleware
from starlette.middleware.cors import CORSMiddleware

from medical_vqa.errors import MissingDependencyError
from medical_vqa.runtime.environment import package_version
from medical_vqa.serving.api.examples import shipped_examples
from medical_vqa.serving.api.openai import add_openai
from medical_vqa.serving.api.problems import add_handlers
from medical_vqa.serving.api.schema import (
    IMAGE_ID_EXAMPLE,
    QUESTION_EXAMPLE,
    Answer,
    Answers,
    AskManyRequest,
    AskRequest,
    Examples,
    Health,
    ModelInfo,
    Problem,
    Question,
    Suggestions,
    UploadedImage,
)
from medical_vqa.serving.engine import Engine
from medical_vqa.serving.errors import RefusedError
from medical_vqa.serving.image_store.backends import Store
from medical_vqa.serving.logs import AccessLog
from medical_vqa.serving.middleware.access import Access, Keys
from medical_vqa.serving.middleware.body_limits import BodyLimits, while_connected
from medical_vqa.serving.service import Service, Upload
from medical_vqa.serving.settings import Settings

DESCRIPTION = """Upload an image once, ask many questions about it. The image is encoded when it is uploaded.

Research software: not a medical device and not for diagnosis."""

_FORM_LIMITS: dict[str, Any] = {"max_files": 1, "max_fields": 8, "max_part_size": 8192}
_WHAT = {
    400: "not an image, or a body that cannot be read",
    401: "no key, or an unknown one",
    404: "no such image, or no longer",
    408: "the body came too slowly",
    413: "too large: bytes or pixels",
    415: "a format or a content type that is not read",
    422: "a field is missing, too long or of the wrong kind",
    429: "too many requests, or no answer in time; see Retry-After",
    503: "the store of images does not answer, or the server is stopping",
}
_ASKS = (400, 401, 404, 408, 413, 415, 422, 429, 503)
_UPLOADS = (400, 401, 408, 413, 415, 422, 429, 503)

ImageId = Annotated[
    str, InPath(description="What POST /upload_image gave.", examples=[IMAGE_ID_EXAMPLE], max_length=64)
]
ImageFile = Annotated[UploadFile, File(description="JPEG, PNG, BMP, TIFF, WebP, GIF, DICOM or NIfTI.")]
Frame = Annotated[int | None, Form(ge=0, le=1_000_000, description="Of several frames or slices, which one, from 0.")]
Center = Annotated[float | None, Form(ge=-1e6, le=1e6, description="Window center, with window_width; DICOM, NIfTI.")]
Width = Annotated[float | None, Form(gt=0, le=1e6, description="Window width.")]
WantsAttentionMap = Annotated[bool, Form(description="Whether to say where in the picture the answer comes from.")]


def create_app(engine: Engine, settings: Settings, store: Store | None = None) -> FastAPI:
    """The application; it starts the engine when it starts, and closes it when it ends."""
    service = Service(engine, settings, store)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.close()

    app = FastAPI(
        title="Medical-VQA",
        description=DESCRIPTION,
        version=package_version(),
        lifespan=lifespan,
        docs_url="/docs" if settings.docs else None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.docs else None,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        telemetry=_telemetry(on=settings.otel),
        form_limits=_FORM_LIMITS,  # type: ignore[arg-type]
        dependencies=[Depends(HTTPBearer(auto_error=False, description="A key, where the server asks for one."))]
        if settings.api_keys
        else [],
    )
    app.state.service = service
    add_handlers(app, engine.meters)
    _add_questions(app, service)
    _add_uploads(app, service)
    _add_facts(app, service)
    add_openai(app, service)
    _add_middleware(app, service)
    return app


def _telemetry(*, on: bool) -> TelemetryConfig:
    """Spans and metrics where asked for; never its logs, which carry what was sent."""
    if on and importlib.util.find_spec("opentelemetry.exporter") is None:
        raise MissingDependencyError("tracing needs a package; run: pip install 'medical-vqa[otel]'")
    return {"tracing": on, "metrics": on, "logs": False, "operation_spans": False, "auto_configure": on}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "description": _WHAT[status]} for status in statuses}


def _both(model: type[AskRequest]) -> dict[str, Any]:
    """OpenAPI of a body that may be JSON or a form."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    kinds = ("application/json", "application/x-www-form-urlencoded", "multipart/form-data")
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in kinds}}}


async def _asked(request: Request) -> AskRequest:
    """The question in a JSON or form body; raises `RequestValidationError` or `RefusedError`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        try:
            content = await request.body()
            return AskRequest.model_validate_json(content)
        except ValidationError as error:
            raise _invalid(error) from None
    if kind in ("application/x-www-form-urlencoded", "multipart/form-data"):
        async with request.form(**_FORM_LIMITS) as form:
            try:
                return AskRequest.model_validate(_once(form.multi_items()))
            except ValidationError as error:
                raise _invalid(error) from None
    raise RefusedError(415, "unsupported_media_type", "expected JSON or a form with image_id and question")


def _once(items: list[tuple[str, Any]]) -> Mapping[str, Any]:
    content = dict(items)
    if len(content) < len(items):
        raise RefusedError(422, "invalid", "a field occurs twice; send each once")
    return content


def _invalid(error: ValidationError) -> RequestValidationError:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in found])


async def _upload(file: UploadFile, frame: int | None, center: float | None, width: float | None) -> Upload:
    if (center is None) != (width is None):
        raise RefusedError(422, "invalid", "a window needs both window_center and window_width")
    window = (center, width) if center is not None and width is not None else None
    return Upload(await file.read(), frame, window)


def _add_questions(app: FastAPI, service: Service) -> None:
    @app.post("/ask_question", tags=["questions"], responses=_errors(*_ASKS), openapi_extra=_both(AskRequest))
    async def ask_question(request: Request) -> Answer:
        """Ask a question about an uploaded image. The body is JSON or a form."""
        began = time.monotonic()
        asked = await _asked(request)
        work = service.ask(asked.image_id, asked.question, attention_map=asked.attention_map, began=began)
        return await while_connected(request, work)

    @app.post("/ask_questions", tags=["questions"], responses=_errors(*_ASKS))
    async def ask_questions(request: Request, asked: AskManyRequest) -> Answers:
        """Ask several questions about an uploaded image; they are answered together."""
        work = service.ask_many(asked.image_id, asked.questions, attention_map=asked.attention_map)
        return await while_connected(request, work)

    @app.post("/ask", tags=["questions"], responses=_errors(*_UPLOADS))
    async def ask(
        request: Request,
        image_file: ImageFile,
        question: Annotated[Question, Form(description="In words.", examples=[QUESTION_EXAMPLE])],
        attention_map: WantsAttentionMap = False,
        frame: Frame = None,
        window_center: Center = None,
        window_width: Width = None,
    ) -> Answer:
        """Ask a question about an image in one request; the image is not kept."""
        upload = await _upload(image_file, frame, window_center, window_width)
        return await while_connected(request, service.ask_once(upload, question, attention_map=attention_map))


def _add_uploads(app: FastAPI, service: Service) -> None:
    @app.post("/upload_image", tags=["images"], responses=_errors(*_UPLOADS))
    async def upload_image(
        image_file: ImageFile, frame: Frame = None, window_center: Center = None, window_width: Width = None
    ) -> UploadedImage:
        """Upload an image to ask about. Its header is dropped; the file itself is not kept."""
        return await service.upload(await _upload(image_file, frame, window_center, window_width))

    @app.delete("/images/{image_id}", tags=["images"], status_code=204, responses=_errors(401, 404, 422, 429, 503))
    async def delete_image(image_id: ImageId) -> Response:
        """Forget an uploaded image, now and on every server of the store."""
        await service.images.delete(image_id)
        return Response(status_code=204)

    @app.get(
        "/images/{image_id}/picture",
        tags=["images"],
        response_class=Response,
        responses={200: {"content": {"image/png": {}}, "description": "PNG."}, **_errors(401, 404, 422, 429, 503)},
    )
    async def picture(image_id: ImageId) -> Response:
        """The picture of an uploaded image as the server reads it: upright, 8 bits, windowed, without any header."""
        return Response(await service.images.png(image_id), media_type="image/png")

    @app.get("/images/{image_id}/questions", tags=["images"], responses=_errors(401, 404, 422, 429, 503))
    async def suggest(image_id: ImageId) -> Suggestions:
        """Questions that one may ask about an uploaded image."""
        await service.images.get(image_id)
        return Suggestions(questions=shipped_examples().examples.questions)


def _add_facts(app: FastAPI, service: Service) -> None:
    @app.get("/model", tags=["facts"], responses=_errors(401, 429))
    async def model() -> ModelInfo:
        """The card of the model that answers, and what this server takes."""
        return service.info()

    @app.get("/examples", tags=["facts"], responses=_errors(401, 429))
    async def examples() -> Examples:
        """Pictures that ship with the server, with questions and the dataset's answers."""
        return shipped_examples().examples

    @app.get(
        "/examples/{example_id}/image",
        tags=["facts"],
        response_class=FileResponse,
        responses={200: {"content": {"image/jpeg": {}}, "description": "The picture."}, **_errors(401, 404, 422, 429)},
    )
    async def example_image(
        example_id: Annotated[str, InPath(max_length=64, description="As GET /examples names it.")],
    ) -> FileResponse:
        """The picture of an example."""
        found: Path | None = shipped_examples().pictures.get(example_id)
        if found is None:
            raise RefusedError(404, "not_found", "there is no such example; see GET /examples")
        return FileResponse(found, media_type="image/jpeg")

    @app.get("/healthz", tags=["operations"])
    async def healthz() -> Health:
        """Whether the process lives."""
        return Health(status="ok")

    @app.get("/readyz", tags=["operations"], responses=_errors(503))
    async def readyz() -> Health:
        """Whether questions are answered."""
        if not service.engine.ready:
            raise RefusedError(503, "not_ready", "the model is not ready; try again soon", {"Retry-After": "2"})
        return Health(status="ready")

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("/docs") if service.settings.docs else JSONResponse({"name": "medical-vqa"})


def _add_middleware(app: FastAPI, service: Service) -> None:
    """The last one added is the first to see a request."""
    settings = service.settings
    app.add_middleware(BodyLimits, limit=settings.max_upload_bytes, seconds=settings.upload_timeout)
    app.add_middleware(
        Access,
        keys=Keys(settings.api_keys),
        rate=settings.rate,
        store=settings.store,
        origins=settings.cors_origins,
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"], max_age=3600,
        )  # fmt: skip
    if settings.metrics:
        gathered = Instrumentator(registry=service.engine.meters.registry, should_group_status_codes=False)
        gathered.instrument(app, latency_lowr_buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0))
        gathered.expose(app, include_in_schema=False)
    app.add_middleware(SecureASGIMiddleware, secure=_headers(docs=settings.docs))
    app.add_middleware(AccessLog)
    app.add_middleware(CorrelationIdMiddleware)


def _headers(*, docs: bool) -> Secure:
    """Headers for an API: nothing may frame it, guess its types, keep its answers or learn where a request came from.

    No Strict-Transport-Security: that is for whoever ends the TLS, which this server does not.
    """
    policy = ContentSecurityPolicy().default_src("'none'").frame_ancestors("'none'").base_uri("'none'")
    if docs:  # the description's page is the only one; FastAPI loads it from a CDN
        cdn = "https://cdn.jsdelivr.net"
        policy = policy.script_src("'self'", "'unsafe-inline'", cdn).style_src("'self'", "'unsafe-inline'", cdn)
        policy = policy.img_src("'self'", "data:", "https://fastapi.tiangolo.com").connect_src("'self'")
    return Secure(
        cache=CacheControl().no_store(),
        csp=policy,
        referrer=ReferrerPolicy().no_referrer(),
        xcto=XContentTypeOptions().nosniff(),
        xfo=XFrameOptions().deny(),
    )

"""The HTTP application: `create_app(engine, settings)`."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import Depends, FastAPI, Response
from fastapi.security import HTTPBearer
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.middleware import Middleware

from medical_vqa.errors import MissingDependencyError
from medical_vqa.runtime.environment import package_version
from medical_vqa.serving.api import conversations, docs, page, reports, routes, series
from medical_vqa.serving.api import jobs as job_routes
from medical_vqa.serving.api import models as model_routes
from medical_vqa.serving.api.openai import chat, responses
from medical_vqa.serving.api.requests import FORM_LIMITS, DirectMiddleware
from medical_vqa.serving.conversations.conversations import Conversations
from medical_vqa.serving.engine.local import Engine
from medical_vqa.serving.engine.remote import RemoteEngine
from medical_vqa.serving.image_store.base import ImageStore
from medical_vqa.serving.jobs import Jobs
from medical_vqa.serving.middleware.outer import Draining
from medical_vqa.serving.middleware.stack import middleware_stack
from medical_vqa.serving.models import LoadModel, Models
from medical_vqa.serving.problems import leave_errors_to_the_outermost_layer
from medical_vqa.serving.rate_limit import RateLimiter
from medical_vqa.serving.service.decoders import Decoders
from medical_vqa.serving.service.service import Service
from medical_vqa.serving.settings import Settings

DESCRIPTION = """Upload an image once, ask many questions about it. The image is encoded when it is uploaded.

Research software: not a medical device and not for diagnosis."""


def create_app(
    engine: Engine | RemoteEngine,
    settings: Settings,
    store: ImageStore | None = None,
    *,
    load_model: LoadModel | None = None,
    decoders: Decoders | None = None,
) -> FastAPI:
    """The application; it starts the engine when it starts, and closes it when it ends.

    Args:
        engine: Answers the questions; not yet started.
        settings: Limits, keys, and what is served.
        store: Where uploads live; None: the one that `settings.store` names.
        load_model: Loads further models; None: there will be none.
        decoders: Decode the uploads, perhaps started already; None: new ones. They are closed when it ends.

    Raises:
        ConfigError: The store's address makes no sense.
        MissingDependencyError: A package for the store or for tracing is not installed.
    """
    service = Service(engine, settings, store, decoders)
    models = Models(service, load_model)
    jobs = Jobs(settings.jobs, models) if settings.jobs is not None else None
    rate_limiter = RateLimiter(settings.rate_limit, settings.store)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as closing:  # also where another cannot start, or cannot be closed
            closing.push_async_callback(rate_limiter.close)
            closing.push_async_callback(models.close)
            _prepare_routes(app)  # before other threads: meanwhile it changes the filters of warnings
            await models.start(settings.further_models)
            if jobs is not None:
                closing.push_async_callback(jobs.close)
                jobs.start()
            yield

    draining = Draining()
    bearer = HTTPBearer(auto_error=False, description="An API key, where the server needs one.")
    app = FastAPI(
        title="Medical-VQA",
        description=DESCRIPTION,
        version=package_version(),
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own page loads its scripts from another host
        redoc_url=None,
        openapi_url="/openapi.json" if settings.docs else None,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        telemetry=_telemetry(enabled=settings.otel),
        form_limits=FORM_LIMITS,  # type: ignore[arg-type]
        dependencies=[Depends(bearer)]
        if settings.api_keys or settings.keys_file
        else [],  # for the description; `access` checks the key
        middleware=[
            *middleware_stack(settings, engine.metrics, rate_limiter, draining),
            *([] if settings.otel else [Middleware(DirectMiddleware, routes=routes.direct_router.routes)]),
        ],
    )
    app.state.models = models
    app.state.jobs = jobs
    app.state.service = service
    app.state.conversations = Conversations(models.choose, service.store_calls)
    app.state.draining = draining
    app.state.rate_limiter = rate_limiter
    leave_errors_to_the_outermost_layer(app)
    app.include_router(routes.direct_router)
    app.include_router(routes.router)
    app.include_router(routes.json_router)
    app.include_router(series.json_router)
    app.include_router(series.router)
    app.include_router(reports.router)
    app.include_router(model_routes.router)
    app.include_router(job_routes.router)
    app.include_router(chat.router)
    app.include_router(responses.router)
    app.include_router(conversations.router)
    app.include_router(conversations.upload_router)
    if settings.docs:
        app.include_router(docs.router)
    if settings.page:
        app.include_router(page.router)
    if settings.metrics:

        @app.get("/metrics", include_in_schema=False)
        def metrics() -> Response:
            return Response(engine.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return app


def _prepare_routes(app: FastAPI) -> None:
    """Have FastAPI work out what each route needs, which it puts off until a first request, and all others wait."""
    scope = {"type": "http", "method": "GET", "path": "/", "root_path": "", "headers": []}
    for route in app.routes:
        route.matches(scope)


def _telemetry(*, enabled: bool) -> TelemetryConfig:
    """Spans and metrics where a setting says so; never FastAPI's logs, which contain request bodies."""
    if enabled and importlib.util.find_spec("opentelemetry.exporter") is None:
        raise MissingDependencyError("tracing needs a package; run: pip install 'medical-vqa[otel]'")
    return {"tracing": enabled, "metrics": enabled, "logs": False, "operation_spans": False, "auto_configure": enabled}

"""How errors leave the server: always as a `Problem`, never with a part of what the client sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from medical_vqa.errors import ModelError
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.metrics import Metrics
from medical_vqa.serving.schema import ErrorCode, Problem, ProblemDetail

_CODES: dict[int, ErrorCode] = {
    400: "invalid", 401: "unauthorized", 404: "not_found", 405: "method_not_allowed", 408: "timeout",
    413: "too_large", 415: "unsupported_media_type", 422: "invalid", 429: "overloaded", 503: "not_ready",
}  # fmt: skip
_MESSAGES = {
    404: "there is nothing at this path; see /docs for the routes",
    405: "this path does not support that method; see /docs",
    413: "the body is larger than this server accepts; send a smaller image",
}
_OPENAI_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


def problem_response(error: ApiError, path: str = "") -> JSONResponse:
    """The response for an error; in OpenAI's format under ``/v1/``."""
    content: dict[str, Any]
    if path.startswith("/v1/"):
        default_type = "server_error" if error.status >= 500 else "invalid_request_error"
        error_type = _OPENAI_TYPES.get(error.status, default_type)
        content = {"error": {"message": error.message, "type": error_type, "param": None, "code": error.code}}
    else:
        content = Problem(detail=ProblemDetail(code=error.code, message=error.message)).model_dump()
    return JSONResponse(content, error.status, error.headers)


async def send_problem(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request with an error, from a middleware."""
    await problem_response(error, scope["path"])(scope, receive, send)


def add_exception_handlers(app: FastAPI, metrics: Metrics) -> None:
    """Turn every exception that a route raises on purpose into a `Problem`, and count them by code."""

    def respond(request: Request, error: ApiError) -> Response:
        metrics.refused.labels(error.code).inc()
        return problem_response(error, request.url.path)

    @app.exception_handler(ApiError)
    async def _api_error(request: Request, error: ApiError) -> Response:
        return respond(request, error)

    @app.exception_handler(ModelError)
    async def _model_error(request: Request, error: ModelError) -> Response:
        return respond(request, ApiError(422, "invalid", str(error)))

    @app.exception_handler(RequestValidationError)
    async def _validation_error(request: Request, error: RequestValidationError) -> Response:
        return respond(request, ApiError(422, "invalid", validation_message(error.errors())))

    @app.exception_handler(HTTPException)
    async def _http_exception(request: Request, error: HTTPException) -> Response:
        message = _MESSAGES.get(error.status_code, "this request cannot be read; see /docs for what is expected")
        code = _CODES.get(error.status_code, "invalid")
        return respond(request, ApiError(error.status_code, code, message, error.headers))


def validation_message(errors: Sequence[Any]) -> str:
    """Which fields are wrong and why, without their values: those may be questions or names."""
    parts = []
    for error in errors[:3]:
        field = ".".join(str(part) for part in error["loc"][1:]) or "body"
        parts.append(f"{field}: {error['msg'].lower()}")
    return "; ".join(parts) or "the request is not as expected"

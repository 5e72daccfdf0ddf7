"""How errors leave the server: always a `Problem`, never a part of what was sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from medical_vqa.errors import ModelError
from medical_vqa.serving.api.schema import ErrorCode, Problem, ProblemDetail
from medical_vqa.serving.errors import RefusedError, defect
from medical_vqa.serving.metrics import Meters

_CODES: dict[int, ErrorCode] = {
    400: "invalid", 401: "unauthorized", 404: "not_found", 405: "method_not_allowed", 408: "timeout",
    413: "too_large", 415: "unsupported_media_type", 422: "invalid", 429: "overloaded", 503: "not_ready",
}  # fmt: skip
_SENTENCES = {
    404: "there is nothing at this path; see /docs for what there is",
    405: "this path does not take that method; see /docs",
    413: "the body is larger than this server takes; send a smaller picture",
}


def problem(refused: RefusedError, path: str = "") -> JSONResponse:
    """The response that a refusal becomes; in OpenAI's shape under /v1."""
    if path.startswith("/v1/"):
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
            refused.status, "server_error" if refused.status >= 500 else "invalid_request_error"
        )
        content: dict[str, Any] = {
            "error": {"message": refused.message, "type": kind, "param": None, "code": refused.code}
        }
    else:
        content = Problem(detail=ProblemDetail(code=refused.code, message=refused.message)).model_dump()
    return JSONResponse(content, refused.status, refused.headers)


async def respond(refused: RefusedError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request from a middleware."""
    await problem(refused, scope["path"])(scope, receive, send)


def add_handlers(app: FastAPI, meters: Meters) -> None:
    """Make every error of an app a `Problem`, and count what was refused."""

    @app.exception_handler(RefusedError)
    async def _refused(request: Request, error: RefusedError) -> Response:
        meters.refused.labels(error.code).inc()
        return problem(error, request.url.path)

    @app.exception_handler(ModelError)
    async def _model(request: Request, error: ModelError) -> Response:
        return problem(RefusedError(422, "invalid", str(error)), request.url.path)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        return problem(RefusedError(422, "invalid", sentence(error.errors())), request.url.path)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        message = _SENTENCES.get(error.status_code, "this request cannot be read; see /docs for what is expected")
        code = _CODES.get(error.status_code, "invalid")
        headers = dict(error.headers or {})
        return problem(RefusedError(error.status_code, code, message, headers), request.url.path)

    @app.exception_handler(Exception)
    async def _defect(request: Request, error: Exception) -> Response:  # noqa: ARG001 - logged by the server
        return problem(defect(), request.url.path)


def sentence(errors: Sequence[Any]) -> str:
    """What is wrong with the fields, without their values: those may be questions or names."""
    said = [f"{'.'.join(str(part) for part in e['loc'][1:]) or 'body'}: {e['msg'].lower()}" for e in errors[:3]]
    return "; ".join(said) or "the request is not as expected"

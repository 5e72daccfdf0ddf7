"""How errors leave the server: always as a `Problem`, never with a part of what the client sent."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import JSONResponse, Response

from medical_vqa.errors import ModelError
from medical_vqa.serving.errors import ApiError, internal_error, no_room, refused_by_model
from medical_vqa.serving.schema.common import BIRTH_DATE, MODEL_NAME, QUESTION, UID, WINDOW
from medical_vqa.serving.schema.errors import ErrorCode, Problem, ProblemDetail

_CODES: dict[int, ErrorCode] = {
    400: "invalid", 401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed", 408: "timeout",
    413: "too_large", 415: "unsupported_media_type", 422: "invalid", 429: "overloaded", 503: "not_ready",
}  # fmt: skip
_MESSAGES = {
    404: "there is nothing at this path; see /docs for the routes",
    405: "this path does not support that method; see /docs",
    413: "the body is larger than this server accepts; send a smaller image",
}
_FORMS = {
    QUESTION: "expected a question of one line with at least one visible character",
    WINDOW: "expected CENTER,WIDTH in numbers, such as 40,400, or a name in small letters, such as lung",
    UID: "expected a DICOM UID: numbers with dots between them",
    BIRTH_DATE: "expected a date as YYYYMMDD",
    MODEL_NAME: "expected up to 64 letters, digits and the characters _ . : -, a letter or digit first",
}
"""What a pattern means, for people."""
_OTHER_FORM = "expected another form; see /docs"
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def problem_response(error: ApiError, path: str = "") -> JSONResponse:
    """The response for an error; in OpenAI's format under ``/v1/``."""
    if path.startswith("/v1/"):
        status = 400 if error.is_context_length else error.status
        return JSONResponse({"error": openai_error(error)}, status, error.headers)
    content = Problem(detail=ProblemDetail(code=error.code, message=error.message)).model_dump()
    return JSONResponse(content, error.status, error.headers)


def openai_error(error: ApiError) -> dict[str, Any]:
    """An error in OpenAI's format."""
    default_type = "server_error" if error.status >= 500 else "invalid_request_error"
    return {
        "message": error.message,
        "type": _OPENAI_TYPES.get(error.status, default_type),
        "param": error.param,
        "code": "context_length_exceeded" if error.is_context_length else error.code,
    }


def to_api_error(error: BaseException) -> ApiError:
    """Any exception as the error that the client receives; what is not meant for clients becomes a 500.

    A group of exceptions, which concurrent work raises, is its first `ApiError` where it has one.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, BaseExceptionGroup):
        errors = [to_api_error(part) for part in error.exceptions]
        return next((part for part in errors if part.status < 500), errors[0])
    if isinstance(error, ModelError):
        return refused_by_model(error)
    if isinstance(error, RequestValidationError):
        return ApiError(422, "invalid", validation_message(error.errors()), param=validated_field(error.errors()))
    return _of_http(error) if isinstance(error, HTTPException) else internal_error()


def _of_http(error: HTTPException) -> ApiError:
    if isinstance(error.__cause__, OSError):  # while the body arrived, which FastAPI takes for the client's mistake
        return no_room()
    if isinstance(error.__context__, MultiPartException):  # its texts have nothing of the form
        reason = error.__context__.message.rstrip(".")
        message = f"the form cannot be read: {reason[:1].lower()}{reason[1:]}"
        return ApiError(error.status_code, "invalid", message, error.headers)
    message = _MESSAGES.get(error.status_code, "this request cannot be read; see /docs for what is expected")
    return ApiError(error.status_code, _CODES.get(error.status_code, "invalid"), message, error.headers)


def leave_errors_to_the_outermost_layer(app: FastAPI) -> None:
    """Let the exceptions that FastAPI would answer itself pass to the middleware that answers all of them."""

    async def _raise(request: Request, error: Exception) -> Response:  # noqa: ARG001 - the signature of a handler
        raise error

    app.add_exception_handler(RequestValidationError, _raise)
    app.add_exception_handler(HTTPException, _raise)


def validation_message(errors: Sequence[Any]) -> str:
    """Which fields are wrong and why, without their values: those may be questions or names."""
    parts = []
    for error in _without_alternatives(errors)[:3]:
        field = ".".join(str(part) for part in _place(error)) or "body"
        parts.append(f"{field}: {_reason(error)}")
    return "; ".join(parts) or "the request is not as expected"


def validated_field(errors: Sequence[Any]) -> str | None:
    """The first field that is wrong, in the notation of OpenAI's errors: ``messages[0].content``."""
    for error in _without_alternatives(errors)[:1]:
        name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in _place(error))
        return name.lstrip(".") or None
    return None


def _place(error: Any) -> list[str | int]:
    """Where the error is, without pydantic's names of a union's members, and without a key that is no field's name."""
    if error["type"] == "json_invalid":  # of FastAPI: the place is a number of characters, and in the text too
        return []
    place = [part for part in error["loc"][1:] if part != "str" and "[" not in str(part)]
    if error["type"] == "extra_forbidden" and place and not _FIELD_NAME.fullmatch(str(place[-1])):
        place.pop()  # perhaps a question, where the body is not what its content type says
    return place


def _without_alternatives(errors: Sequence[Any]) -> list[Any]:
    """Of a text that may also be a list, the list's errors alone."""
    depths = [sum("[" in str(part) for part in error["loc"]) for error in errors]
    return [error for error, depth in zip(errors, depths, strict=True) if depth == max(depths)]


def _reason(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "there is no such field"
    if error["type"] == "json_invalid" and "error" in error.get("ctx", {}):
        return f"invalid json: {error['ctx']['error']}"
    if error["type"] == "union_tag_invalid":
        return f"expected type {error['ctx']['expected_tags']}"
    if error["type"] == "union_tag_not_found":
        return "expected a field type"
    if error["type"] == "string_pattern_mismatch":
        return next((form for pattern, form in _FORMS.items() if f"'{pattern}'" in error["msg"]), _OTHER_FORM)
    return str(error["msg"]).lower()

"""Errors that the server answers with: one exception with the HTTP status, the code and the message for the client.

Overload is 429 and not 503: platforms restart an instance that answers with several 5xx in a row, and an instance that
is merely busy must keep running.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from medical_vqa.errors import ContextLengthError, MedicalVqaError, ModelError
from medical_vqa.serving.schema.errors import ErrorCode

_LONGEST_WAIT = 86_400.0  # seconds, in Retry-After


class ApiError(MedicalVqaError):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        code: ErrorCode,
        message: str,
        headers: Mapping[str, str] | None = None,
        *,
        param: str | None = None,
    ) -> None:
        """Describe the error.

        Args:
            status: Of the response.
            code: For programs.
            message: For people.
            headers: Of the response.
            param: The field of the request that is wrong, as OpenAI's clients expect it; None: no single one.
        """
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})
        self.param = param
        self.is_context_length = False
        """Whether the question is longer than the model reads, for which OpenAI's protocol has a code of its own."""


def refused_by_model(error: ModelError) -> ApiError:
    """422: the model does not take this question."""
    if not isinstance(error, ContextLengthError):
        return ApiError(422, "invalid", str(error))
    refused = ApiError(422, "invalid", error.for_client)
    refused.is_context_length = True
    return refused


def unknown_image() -> ApiError:
    """404: the image was never uploaded, or was deleted, or has expired."""
    return ApiError(404, "unknown_image", "no image has this id (any more); upload it again")


def no_values() -> ApiError:
    """404: of the image only the picture in 8 bits is stored."""
    message = "of this image only the picture is stored, without values; upload it to /series, or ask without a window"
    return ApiError(404, "no_values", message)


def overloaded(retry_after: float, *, close: bool = False) -> ApiError:
    """429: more work is queued than can be done in time.

    Args:
        retry_after: Seconds after which to try again.
        close: Whether the connection is closed, because the rest of the body is not read.
    """
    message = "more questions are waiting than can be answered in time; ask again later"
    error = _retry_later("overloaded", message, retry_after)
    if close:
        error.headers["Connection"] = "close"
    return error


def deadline_exceeded(retry_after: float) -> ApiError:
    """429: the request has waited until its deadline; `retry_after` in seconds."""
    return _retry_later("deadline", "no answer was ready within the deadline; ask again later", retry_after)


def rate_limited(retry_after: float) -> ApiError:
    """429: this client has used up its rate; `retry_after` in seconds."""
    return _retry_later("rate_limited", "you have reached your request rate; ask again later", retry_after)


def quota_exceeded(retry_after: float) -> ApiError:
    """429: the tenant stores as many images, or bytes, as it may; `retry_after` in seconds."""
    return _retry_later("quota_exceeded", "your quota of stored images is used up; delete some", retry_after)


def forbidden(role: str) -> ApiError:
    """403: the key lacks a role."""
    return ApiError(403, "forbidden", f"this key lacks the role {role!r}, which this route needs; use another key")


def internal_error() -> ApiError:
    """500: a bug of the server; the log has the traceback."""
    return ApiError(500, "internal", "this is a bug of the server; its log has the traceback under the X-Request-ID")


def no_room() -> ApiError:
    """503: a body cannot be kept while it arrives."""
    message = "this server has no room for what it receives: its temporary folder is full or read-only; try again later"
    return ApiError(503, "not_ready", message, {"Retry-After": "5", "Connection": "close"})


def shutting_down() -> ApiError:
    """503: this instance is shutting down."""
    message = "this server is shutting down; ask again, another one will answer"
    return ApiError(503, "not_ready", message, {"Retry-After": "1"})


def _retry_later(code: ErrorCode, message: str, retry_after: float) -> ApiError:
    return ApiError(429, code, message, {"Retry-After": str(max(1, math.ceil(min(retry_after, _LONGEST_WAIT))))})

"""What the server says no with: one exception, with the status, the code and the sentence that the client gets.

Overload is 429 and not 503: platforms end an instance that answers with 5xx several times in a row, and an instance
that is merely busy must live.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from medical_vqa.errors import MedicalVqaError
from medical_vqa.serving.api.schema import ErrorCode


class RefusedError(MedicalVqaError):
    """A request that gets an error as its answer."""

    def __init__(self, status: int, code: ErrorCode, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})


def unknown_image() -> RefusedError:
    """404: never there, deleted, or expired."""
    return RefusedError(404, "unknown_image", "no image has this id, or no longer; upload it again")


def overloaded(seconds: float) -> RefusedError:
    """429: more waits than can be answered in time."""
    return _later("overloaded", "more questions are waiting than can be answered in time; ask again later", seconds)


def past_deadline(seconds: float) -> RefusedError:
    """429: waited as long as it may."""
    return _later("deadline", "no answer was ready within the deadline; ask again later", seconds)


def rate_limited(seconds: float) -> RefusedError:
    """429: this client has asked as often as it may."""
    return _later("rate_limited", "you have asked as often as you may for now; ask again later", seconds)


def defect() -> RefusedError:
    """500: our mistake; the log has the traceback."""
    return RefusedError(500, "internal", "this is a defect of the server; its log has the request's id")


def stopping() -> RefusedError:
    """503: this instance is going away."""
    return RefusedError(
        503, "not_ready", "this server is stopping; ask again, another one will answer", {"Retry-After": "1"}
    )


def _later(code: ErrorCode, message: str, seconds: float) -> RefusedError:
    return RefusedError(429, code, message, {"Retry-After": str(max(1, math.ceil(seconds)))})

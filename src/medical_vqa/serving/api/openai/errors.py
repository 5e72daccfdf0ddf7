"""Errors in the form of the protocol, for the description of its routes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

DESCRIPTIONS: dict[int, str] = {
    400: "a request that cannot be answered",
    401: "no key, or an unknown one",
    403: "the key lacks the role",
    404: "no such model",
    408: "the body arrived too slowly",
    413: "too large",
    415: "a format that is not supported",
    422: "a field is missing or of the wrong type",
    429: "too many requests, or no answer in time",
    503: "the server is shutting down",
}
"""What an error's status means."""


class ErrorBody(BaseModel):
    """One error."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorReply(BaseModel):
    """The body of every error under /v1."""

    error: ErrorBody


def error_replies(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for the API's description."""
    return {status: {"model": ErrorReply, "description": DESCRIPTIONS[status]} for status in statuses}

"""The body of every error, and the codes of errors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medical_vqa.serving.schema.common import Wire

ErrorCode = Literal[
    "not_an_image",  # 400
    "unauthorized",  # 401
    "forbidden",  # 403: the key lacks the role that the route needs
    "unknown_image",  # 404
    "unknown_conversation",  # 404
    "not_found",  # 404
    "no_values",  # 404: of the image only the picture in 8 bits is stored
    "method_not_allowed",  # 405
    "timeout",  # 408: the body arrived too slowly
    "too_large",  # 413
    "unsupported_media_type",  # 415
    "invalid",  # 422: a field is missing, too long or of the wrong type
    "source_failed",  # 422: the DICOMweb server does not answer, or has nothing there
    "rate_limited",  # 429: too many requests with this key
    "quota_exceeded",  # 429: the tenant stores as many images as it may
    "overloaded",  # 429: the queue is full; the header Retry-After says when to come back
    "deadline",  # 429: no answer within the deadline
    "internal",  # 500: a bug of the server
    "not_ready",  # 503
    "engine_unavailable",  # 503: the remote model behind this server does not answer
    "engine_refused",  # 503: it answers, but refuses the key, lacks the model, or sees no pictures
]


class ProblemDetail(Wire):
    """One error."""

    code: ErrorCode = Field(description="For programs.", examples=["unknown_image"])
    message: str = Field(
        description="One sentence for people: what was expected, and what to do.",
        examples=["no image has this id; upload it again"],
    )


class Problem(Wire):
    """The body of every error."""

    detail: ProblemDetail = Field(description="The error.")

"""Requests and replies as JSON: pictures are copied into a request, and replies are read without a schema.

The `openai` library converts and escapes a request field by field, which takes 15 ms for a picture of 1 MB in base64,
and validates replies that engines write in shapes of their own.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any


@dataclass(frozen=True, slots=True)
class DataUrl:
    """A picture in a data URL."""

    content: bytes
    """The URL, in ASCII without quotation marks and backslashes."""


def request_body(fields: Mapping[str, Any]) -> bytes:
    """The fields as JSON, in which a `DataUrl` is a string."""
    urls: list[bytes] = []
    mark = secrets.token_hex(16)  # no text of the request contains it

    def place(value: Any) -> str:
        if not isinstance(value, DataUrl):
            raise TypeError(f"{type(value).__name__} cannot be sent")
        urls.append(value.content)
        return mark

    first, *others = json.dumps(fields, default=place).encode().split(mark.encode())
    parts = [first]
    for url, text in zip(urls, others, strict=True):
        parts += [url, text]
    return b"".join(parts)


def reply_object(value: Any) -> Any:
    """A value of JSON whose objects have attributes."""
    if isinstance(value, dict):
        return SimpleNamespace(**{str(name): reply_object(part) for name, part in value.items()})
    return [reply_object(part) for part in value] if isinstance(value, list) else value


def content_text(content: Any) -> str:
    """The text of a message's ``content``: a string, null, or a list of parts; raises `TypeError` for anything else."""
    if content is None:
        return ""
    if isinstance(content, list):
        return "".join(str(getattr(part, "text", None) or "") for part in content)
    if not isinstance(content, str):
        raise TypeError(f"content is a {type(content).__name__}")
    return content

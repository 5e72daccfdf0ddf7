"""Requests and replies as JSON: a picture is placed into a request without a copy, a reply is read without a schema.

Engines write replies in shapes of their own, so that nothing but the fields in use is checked.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any


@dataclass(frozen=True, slots=True)
class DataUrl:
    """A picture in a data URL."""

    content: bytes
    """The URL, in ASCII without quotation marks and backslashes."""


@dataclass(frozen=True, slots=True)
class BodyParts:
    """A request's body in parts, of which the pictures are shared with other requests."""

    parts: Sequence[bytes]
    """The parts in order."""

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return sum(len(part) for part in self.parts)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The parts, one after the other; a body can be sent more than once."""
        for part in self.parts:
            yield part


def request_body(fields: Mapping[str, Any]) -> BodyParts:
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
    return BodyParts(parts)


async def events(lines: AsyncIterable[bytes]) -> AsyncIterator[Any]:
    """The values of server-sent events, up to ``[DONE]`` or the stream's end; raises `ValueError` for broken JSON."""
    data: list[str] = []
    async for line in lines:
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if text.startswith("data:"):
            data.append(text.removeprefix("data:").removeprefix(" "))
        elif not text and data:
            if data == ["[DONE]"]:
                return
            yield json.loads("\n".join(data))
            data = []
    if data and data != ["[DONE]"]:  # the last event, without its empty line
        yield json.loads("\n".join(data))


def reply_object(value: Any) -> Any:
    """A value of JSON whose objects have attributes."""
    if isinstance(value, dict):
        return SimpleNamespace(**{str(name): reply_object(part) for name, part in value.items()})
    return [reply_object(part) for part in value] if isinstance(value, list) else value


def is_refusal(message: Any) -> bool:
    """Whether a message, or a piece of one, is a refusal in the field for it, and has no text."""
    return getattr(message, "content", None) is None and bool(getattr(message, "refusal", None))


def message_text(message: Any) -> str:
    """The text of a message, or of a piece of one; the refusal where there is no text.

    Its ``content`` is a string, null, or a list of parts. Raises `TypeError` for anything else, and for no message.
    """
    if not isinstance(message, SimpleNamespace):
        raise TypeError("there is no message")
    content = getattr(message, "content", None)
    if content is None:
        return str(getattr(message, "refusal", None) or "")
    if isinstance(content, list):
        return "".join(str(getattr(part, "text", None) or "") for part in content)
    if not isinstance(content, str):
        raise TypeError(f"content is a {type(content).__name__}")
    return content

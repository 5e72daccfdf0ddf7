"""Bodies that are too large for their route, arrive too slowly, or are too many at once.

A body without an image has at most `SMALL_BODY` bytes: 32 questions fit. What all bodies in flight hold together is
bounded for the process, and for each client, so that one client cannot use up what the others need. Large bodies of
responses count as well, until their client has read them: they are sent in pieces, as fast as it reads.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Generator
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medical_vqa.serving.errors import ApiError, overloaded
from medical_vqa.serving.schema.common import MAX_QUESTION, MAX_QUESTIONS

IMAGE_PATHS = frozenset({"/upload_image", "/ask", "/v1/chat/completions", "/v1/responses", "/jobs"})
"""Routes whose bodies carry an image; a body of any other has at most its entry in `SMALL_BODIES`, or `SMALL_BODY`."""
CONVERSATION_IMAGES = re.compile(r"/conversations/[^/]+/images")
"""Further routes whose bodies carry an image."""
SERIES_PATH = "/series"
"""The route whose bodies carry many images, with a size and a time of its own."""
SMALL_BODY = 64 * 1024
"""Bytes of a body without an image."""
SMALL_BODIES = {"/ask_questions": 6 * MAX_QUESTION * MAX_QUESTIONS + 4096}  # a character takes up to 6 bytes in JSON
"""Bytes of a body with many questions."""
_MAX_DIGITS = 15  # of an announced length; int() refuses numbers of some thousand digits
_RETRY_SECONDS = 1.0
_LATEST = 1.1  # times its timeout, at which a body is given up: those that began together do not end together
_FORM_READ_AT_ONCE = 8 * 1024  # bytes of a form, which may be a hundred parts: each takes some ten microseconds
_SENT_AT_ONCE = 64 * 1024  # bytes of a response; less than this is not counted


class BodyBudget:
    """How many bytes of bodies are in flight, in all and by client."""

    def __init__(self, total: int, per_client: int) -> None:
        self._total = total
        self._per_client = per_client
        self._used: Counter[str] = Counter()
        self.used = 0

    def take(self, client: str, size: int) -> bool:
        """Count some bytes; returns whether they are within the bounds. Where they are not, nothing is counted."""
        if self.used + size > self._total or self._used[client] + size > self._per_client:
            return False
        self.used += size
        self._used[client] += size
        return True

    def release(self, client: str, size: int) -> None:
        """Give back what `take` has counted."""
        self.used -= size
        self._used[client] -= size
        if self._used[client] <= 0:
            del self._used[client]


class BodyLimitsMiddleware:
    """413 by the announced length or once too much has arrived, 408 when the rest does not arrive, 429 for too many.

    415 for a compressed body: its size says nothing.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        timeout: float,
        budget: BodyBudget,
        max_series_bytes: int | None = None,
        series_timeout: float | None = None,
    ) -> None:
        """Set the limits.

        Args:
            app: The application behind this middleware.
            max_bytes: Of a body with an image.
            timeout: Seconds within which the whole body must arrive.
            budget: Counts the bodies in flight.
            max_series_bytes: Of a body with a series; None: `max_bytes`.
            series_timeout: Seconds within which it must arrive; None: `timeout`.
        """
        self._app = app
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._budget = budget
        self._max_series_bytes = max_bytes if max_series_bytes is None else max_series_bytes
        self._series_timeout = timeout if series_timeout is None else series_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope["path"])
        headers = Headers(scope=scope)
        if headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
            raise _compressed()
        announced = headers.get("content-length", "0").strip()
        if not announced.isdecimal() or len(announced) > _MAX_DIGITS or int(announced) > limit:
            raise _too_large(limit, scope["path"])
        client = str(scope.get("client_name", ""))
        timeout = self._series_timeout if scope["path"] == SERIES_PATH else self._timeout
        body = _LimitedBody(receive, limit, timeout, self._budget, client, scope["path"])
        receive = _in_turns(body.receive) if _is_multipart(scope) else body.receive
        response = _LimitedResponse(send, self._budget, client)

        async def send_unless_refused(message: Message) -> None:
            if body.error is not None:
                return
            if response.start is None and _size(message) <= _SENT_AT_ONCE:
                await send(message)
            else:
                await response.send(message)

        try:
            await self._app(scope, receive, send_unless_refused)
        except ClientDisconnect:  # nobody is left to answer, or the body was refused
            pass
        except Exception:
            if body.error is None:
                raise
        finally:
            self._budget.release(client, body.counted)
            self._budget.release(client, response.counted)
        if body.error is not None:
            raise body.error

    def _limit(self, path: str) -> int:
        if path == SERIES_PATH:
            return self._max_series_bytes
        carries_image = path in IMAGE_PATHS or CONVERSATION_IMAGES.fullmatch(path)
        return self._max_bytes if carries_image else min(self._max_bytes, SMALL_BODIES.get(path, SMALL_BODY))


class _LimitedBody:
    """The body of one request while it arrives."""

    def __init__(
        self, receive: Receive, max_bytes: int, timeout: float, budget: BodyBudget, client: str, path: str
    ) -> None:
        self._receive = receive
        self._path = path
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout * random.uniform(1.0, _LATEST)
        self._budget = budget
        self._client = client
        self._complete = False
        self.counted = 0
        self.error: ApiError | None = None

    async def receive(self) -> Message:
        """The next message; a disconnect once a limit is exceeded, so that the application stops reading."""
        if self._complete:
            return await self._receive()
        steps = self._receive().__await__()
        try:
            awaited = next(steps)
        except StopIteration as arrived:  # with the header, as small bodies do: a timer costs more than all else here
            message: Message = arrived.value
        else:
            try:
                async with asyncio.timeout(self._deadline - time.monotonic()):
                    message = await _Rest(awaited, steps)
            except TimeoutError:
                return self._refuse(_too_slow(self._timeout))
        self._complete = not message.get("more_body", False)
        size = len(message.get("body", b""))
        if self.counted + size > self._max_bytes:
            return self._refuse(_too_large(self._max_bytes, self._path))
        if not self._budget.take(self._client, size):
            return self._refuse(overloaded(_RETRY_SECONDS, close=True))
        self.counted += size
        return message

    def _refuse(self, error: ApiError) -> Message:
        self.error = error
        return {"type": "http.disconnect"}


def _is_multipart(scope: Scope) -> bool:
    """Whether the body is a form of parts, which are parsed as they arrive."""
    return any(name == b"content-type" and value.lower().startswith(b"multipart/") for name, value in scope["headers"])


def _in_turns(receive: Receive) -> Receive:
    """A body in pieces of at most `_FORM_READ_AT_ONCE` bytes; between any two, other requests have their turn."""
    rest = memoryview(b"")
    last: Message = {}

    async def receive_piece() -> Message:
        nonlocal rest, last
        if rest:
            await asyncio.sleep(0)
        else:
            last = await receive()
            rest = memoryview(last.get("body", b""))
        if len(rest) <= _FORM_READ_AT_ONCE and len(rest) == len(last.get("body", b"")):
            rest = memoryview(b"")
            return last
        piece, rest = bytes(rest[:_FORM_READ_AT_ONCE]), rest[_FORM_READ_AT_ONCE:]
        return {"type": "http.request", "body": piece, "more_body": bool(rest) or last.get("more_body", False)}

    return receive_piece


class _Rest:
    """What remains to be awaited of something whose first step has been taken."""

    def __init__(self, awaited: Any, steps: Generator[Any, Any, Message]) -> None:
        self._awaited = awaited
        self._steps = steps

    def __await__(self) -> Generator[Any, Any, Message]:
        """Pass on what the first step awaits, and then the others."""
        try:
            yield self._awaited
        except BaseException as error:
            self._steps.throw(error)
            raise
        return (yield from self._steps)


class _LimitedResponse:
    """One response while it is sent."""

    def __init__(self, send: Send, budget: BodyBudget, client: str) -> None:
        self._send = send
        self._budget = budget
        self._client = client
        self.start: Message | None = None  # which is sent once the body is counted
        self.counted = 0

    async def send(self, message: Message) -> None:
        """Send a large message; raises `ApiError` (429), before the response begins, where too much is in flight."""
        if message["type"] == "http.response.start":
            self.start = message
            return
        body: bytes = message.get("body", b"")
        if self.start is not None:
            if len(body) > _SENT_AT_ONCE:
                if not self._budget.take(self._client, len(body)):
                    raise overloaded(_RETRY_SECONDS)
                self.counted = len(body)
            start, self.start = self.start, None
            await self._send(start)
        if len(body) <= _SENT_AT_ONCE:
            await self._send(message)
            return
        view, more = memoryview(body), message.get("more_body", False)
        for begin in range(0, len(body), _SENT_AT_ONCE):
            piece = bytes(view[begin : begin + _SENT_AT_ONCE])
            is_last = begin + len(piece) == len(body)
            await self._send({"type": "http.response.body", "body": piece, "more_body": more or not is_last})


def _size(message: Message) -> int:
    """Bytes of a piece of a response, or those that its start announces; 0: none."""
    if message["type"] == "http.response.body":
        return len(message.get("body", b""))
    for name, value in message.get("headers", ()):
        if name == b"content-length":
            return int(value)
    return 0


def _too_large(max_bytes: int, path: str) -> ApiError:
    advice = ""
    if path == SERIES_PATH:
        advice = " or raise MEDICAL_VQA_MAX_SERIES_BYTES"
    elif path in IMAGE_PATHS or CONVERSATION_IMAGES.fullmatch(path):
        advice = " or raise MEDICAL_VQA_MAX_UPLOAD_BYTES"
    message = f"the body has more than {max_bytes:,} bytes, this route's limit; send less{advice}"
    return ApiError(413, "too_large", message, {"Connection": "close"})


def _compressed() -> ApiError:
    message = "the body is compressed (Content-Encoding), which this server does not undo; send it as it is"
    return ApiError(415, "unsupported_media_type", message, {"Connection": "close"})


def _too_slow(timeout: float) -> ApiError:
    message = f"the body did not arrive within {timeout:g} s; send it again over a faster connection"
    return ApiError(408, "timeout", message, {"Connection": "close"})

"""Bodies that are too large or arrive too slowly.

FastAPI's own limit answers in plain text and has no timeout; this one answers with a `Problem` and has one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.problems import send_problem


class BodyLimitsMiddleware:
    """413 by the announced length or once too much has arrived, 408 when the rest does not arrive."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, timeout: float) -> None:
        """`timeout`: seconds within which the whole body must arrive."""
        self._app = app
        self._max_bytes = max_bytes
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if int(Headers(scope=scope).get("content-length", "0")) > self._max_bytes:  # uvicorn has checked the number
            await send_problem(_too_large(self._max_bytes), scope, receive, send)
            return
        body = _LimitedBody(receive, self._max_bytes, self._timeout)

        async def send_unless_refused(message: Message) -> None:
            if body.error is None:
                await send(message)

        with contextlib.suppress(ClientDisconnect):  # nobody is left to answer
            await self._app(scope, body.receive, send_unless_refused)
        if body.error is not None:
            await send_problem(body.error, scope, receive, send)


class _LimitedBody:
    """The body of one request while it arrives."""

    def __init__(self, receive: Receive, max_bytes: int, timeout: float) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._size = 0
        self._complete = False
        self.error: ApiError | None = None

    async def receive(self) -> Message:
        """The next message; a disconnect once a limit is exceeded, so that the application stops reading."""
        if self._complete:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._deadline - time.monotonic()))
        except TimeoutError:
            return self._refuse(_too_slow(self._timeout))
        self._complete = not message.get("more_body", False)
        self._size += len(message.get("body", b""))
        return self._refuse(_too_large(self._max_bytes)) if self._size > self._max_bytes else message

    def _refuse(self, error: ApiError) -> Message:
        self.error = error
        return {"type": "http.disconnect"}


def _too_large(max_bytes: int) -> ApiError:
    message = f"the body has more than {max_bytes:,} bytes; send less"
    return ApiError(413, "too_large", message, {"Connection": "close"})


def _too_slow(timeout: float) -> ApiError:
    message = f"the body did not arrive within {timeout:g} s; send it again over a faster connection"
    return ApiError(408, "timeout", message, {"Connection": "close"})

"""Bodies that are too large or come too slowly, and clients that go away.

The frameworks' own limit answers in plain text; this one answers with a `Problem`, and has a clock as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medical_vqa.serving.api.problems import respond
from medical_vqa.serving.errors import RefusedError

T = TypeVar("T")


class BodyLimits:
    """ASGI middleware: 413 by the announced length or once too much has come, 408 when the rest does not come."""

    def __init__(self, app: ASGIApp, *, limit: int, seconds: float) -> None:
        self._app, self._limit, self._seconds = app, limit, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, watching its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(receive, self._limit, self._seconds)
        if int(Headers(scope=scope).get("content-length", "0")) > self._limit:  # the server has checked the number
            body.refused = _too_large(self._limit)

        async def unless_refused(message: Message) -> None:
            if body.refused is None:
                await send(message)

        if body.refused is None:
            with contextlib.suppress(ClientDisconnect):  # nobody is left to be told
                await self._app(scope, body.receive, unless_refused)
        if body.refused is not None:
            await respond(body.refused, scope, receive, send)


class _Body:
    """One request's body as it comes."""

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive, self._limit, self._seconds = receive, limit, seconds
        self._until = time.monotonic() + seconds
        self._size, self._complete = 0, False
        self.refused: RefusedError | None = None

    async def receive(self) -> Message:
        """The next message, or that the client is gone where it had better be."""
        if self._complete:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._until - time.monotonic()))
        except TimeoutError:
            return self._refuse(_too_slow(self._seconds))
        self._complete = not message.get("more_body", False)
        self._size += len(message.get("body", b""))
        return self._refuse(_too_large(self._limit)) if self._size > self._limit else message

    def _refuse(self, why: RefusedError) -> Message:
        self.refused = why
        return {"type": "http.disconnect"}


def _too_large(limit: int) -> RefusedError:
    return RefusedError(413, "too_large", f"the body has more than {limit:,} bytes; send less", {"Connection": "close"})


def _too_slow(seconds: float) -> RefusedError:
    message = f"the body did not arrive within {seconds:g} s; send it again on a better line"
    return RefusedError(408, "timeout", message, {"Connection": "close"})


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of some work, which is cancelled when the client goes away; the body must have been read."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

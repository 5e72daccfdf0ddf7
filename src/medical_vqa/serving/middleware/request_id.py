"""Request ids: `X-Request-ID` is accepted from the client or generated; the log lines and the response carry it."""

from __future__ import annotations

import re
import uuid

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

_ACCEPTED = re.compile(r"[\w.:;=+/@~-]{1,128}", re.ASCII)  # UUIDs, W3C, AWS and Google trace ids; nothing to escape


class RequestIdMiddleware:
    """Binds `request_id` to structlog's context variables and adds the header to the response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = Headers(scope=scope).get("x-request-id", "")
        if not _ACCEPTED.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        bind_contextvars(request_id=request_id)  # never unbound: the server gives every request a context of its own

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        await self._app(scope, receive, send_with_id)

"""Draining: once the server is about to stop, `/readyz` says so and every response closes its connection."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medical_vqa.serving.errors import shutting_down
from medical_vqa.serving.problems import send_problem


class DrainingMiddleware:
    """Passes requests unchanged until `active` is set."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.active = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or not self.active:
            await self._app(scope, receive, send)
            return

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        if scope["path"] == "/readyz":
            await send_problem(shutting_down(), scope, receive, send)
        else:
            await self._app(scope, receive, send_and_close)

"""Unhandled exceptions: logged with traceback under the request's id, and answered with a 500 without details."""

from __future__ import annotations

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medical_vqa.serving.errors import internal_error
from medical_vqa.serving.problems import send_problem


class InternalErrorMiddleware:
    """Turns an exception into a `Problem`, which then passes the outer middleware like any other response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._log = structlog.get_logger("medical_vqa.serving")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_and_record_start(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, send_and_record_start)
        except Exception:
            self._log.exception("unhandled exception")
            if started:  # too late for another response: the server closes the connection
                raise
            await send_problem(internal_error(), scope, receive, send)

"""The access log: one line per request with route, status and duration; never a query string, a header or a body.

``{"event": "request", "method": "POST", "route": "/ask_question", "status": 200, "duration_ms": 8.1, ...}``
"""

from __future__ import annotations

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CLIENT_CLOSED_REQUEST = 499
"""Status for a request whose client disconnected before the response, as nginx logs it."""
_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})  # requested every few seconds: logged only when they fail


class AccessLogMiddleware:
    """Logs every request once it has been answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._log = structlog.get_logger("medical_vqa.access")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), CLIENT_CLOSED_REQUEST

        async def send_and_record_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_record_status)
        finally:
            if scope["path"] not in _PROBES or status >= 400:
                self._write(scope, status, time.perf_counter() - start)

    def _write(self, scope: Scope, status: int, seconds: float) -> None:
        client = {"client": scope["client_name"]} if "client_name" in scope else {}
        self._log.info(
            "request",
            method=scope["method"],
            route=route_template(scope),
            status=status,
            duration_ms=round(1000 * seconds, 2),
            **client,
        )


def route_template(scope: Scope) -> str:
    """The path of the matched route, with its parameters as names: an image id in a log would be as good as a key."""
    return getattr(scope.get("route"), "path", None) or "unmatched"

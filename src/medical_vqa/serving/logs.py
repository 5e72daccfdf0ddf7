"""Logs as one JSON object per line: request ids, times and codes; questions and answers only when asked for.

``{"event": "request", "method": "POST", "path": "/ask_question", "status": 200, "ms": 8.1, "request_id": ...}``
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, TextIO

import structlog
from asgi_correlation_id import correlation_id
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Without the values of variables: a question may be among them.
_TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})  # asked every few seconds: logged only when they fail


def configure(level: str, stream: TextIO | None = None) -> None:
    """Send every log of this process through structlog, as JSON."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _request_id,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _TRACEBACKS,
            structlog.processors.JSONRenderer(),
        ],
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    for name in ("uvicorn.access", "httpx", "httpx2", "botocore", "PIL", "asgi_correlation_id"):
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _request_id(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
    if (known := correlation_id.get()) is not None:
        event["request_id"] = known
    return event


class AccessLog:
    """ASGI middleware: one line per request; never a query string, a header or a body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self._log = app, structlog.get_logger("medical_vqa.access")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and write down how it went."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 499  # what proxies log when the client went away

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            if scope["path"] not in _QUIET or status >= 400:
                self._write(scope, status, time.perf_counter() - began)

    def _write(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None)  # the template: an id is as good as a key
        facts = {"method": scope["method"], "path": route or "unknown", "status": status}
        client = {"client": scope["client_name"]} if "client_name" in scope else {}
        self._log.info("request", ms=round(1000 * seconds, 2), **facts, **client)

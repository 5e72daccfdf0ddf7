"""The outermost layer, which every request enters first and every response leaves last.

It gives a request its id, turns any exception into the documented `Problem`, adds the security headers, counts the
request, and writes its line of the access log:

``{"event": "request", "method": "POST", "route": "/ask_question", "status": 200, "duration_ms": 8.1, ...}``

The log has no query string, no header and no body. One layer, because each further one costs every request a wrapper.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from dataclasses import dataclass

import structlog
from prometheus_client import Counter, Histogram
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from medical_vqa.serving.errors import ApiError, shutting_down
from medical_vqa.serving.logs import AccessLog
from medical_vqa.serving.metrics import Metrics
from medical_vqa.serving.page_files import DOCS_PATHS, DOCS_POLICY, PAGE_PATHS, PAGE_POLICY
from medical_vqa.serving.problems import problem_response, to_api_error

CLIENT_CLOSED_REQUEST = 499
"""Status for a request whose client disconnected before the response, as nginx logs it."""
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that are requested every few seconds: logged only when they fail."""
PRIVATE_CACHE = (b"cache-control", b"private, max-age=300")
"""The one header of a response that replaces its default: of slices, which a browser shows again and again."""
_REQUEST_ID = re.compile(r"[\w.:;=+/@~-]{1,128}", re.ASCII)  # UUIDs, W3C, AWS and Google trace ids; nothing to escape
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")  # https://www.w3.org/TR/trace-context
_SERVER_ERROR = 500

# No Strict-Transport-Security: that header belongs to whatever terminates TLS, which this server does not.
_SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_API_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"


@dataclass
class Draining:
    """Whether the server is about to stop: `/readyz` then says so, and every response closes its connection."""

    active: bool = False
    """Set once the server has been asked to stop."""


class OuterMiddleware:
    """Ids, errors, headers, metrics and the access log."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, draining: Draining | None = None) -> None:
        """Set the layer up.

        Args:
            app: The application behind this middleware.
            metrics: Where requests and refusals are counted.
            draining: Whether the server is about to stop; None: it never is.
        """
        self._app = app
        self._metrics = metrics
        self._draining = draining or Draining()
        self._log = structlog.get_logger("medical_vqa.access")
        self._access_log = AccessLog()
        self._counters: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}  # by route, method and status
        self._headers = _security_headers(_API_POLICY)
        self._page_headers = {
            **dict.fromkeys(PAGE_PATHS, _security_headers(PAGE_POLICY)),
            **dict.fromkeys(DOCS_PATHS, _security_headers(DOCS_POLICY)),
        }
        self._names = frozenset(name for name, _ in self._headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0
        request_id = _request_id(scope)
        bind_contextvars(request_id=request_id)  # never unbound: the server gives every request a context of its own

        async def send_response(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [
                    header
                    for header in message.get("headers", ())
                    if header[0].lower() not in self._names or header == PRIVATE_CACHE
                ]
                headers += [
                    *self._page_headers.get(scope["path"], self._headers),
                    (b"x-request-id", request_id.encode()),
                ]
                if PRIVATE_CACHE in headers:
                    headers.remove((b"cache-control", b"no-store"))
                if self._draining.active:
                    headers.append((b"connection", b"close"))
                message["headers"] = headers
            await send(message)

        self._metrics.http_in_progress.inc()
        # A HEAD is answered as a GET, and the HTTP server, which has the scope itself, sends no body: RFC 9110, 9.3.2.
        answered = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        try:
            await self._app(answered, receive, send_response)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:  # a stop, whose time for running requests is over
            if status or not self._draining.active:
                raise
            self._metrics.refused.labels("not_ready").inc()
            await problem_response(shutting_down(), scope["path"])(scope, receive, send_response)
        except Exception as exception:
            error = to_api_error(exception)
            self._record(error, exception)
            if status:  # too late for another response: the server closes the connection
                raise
            exception.__traceback__ = None  # a cycle with `error`, whose frames hold bodies of many megabytes
            await problem_response(error, scope["path"])(scope, receive, send_response)
        finally:
            self._metrics.http_in_progress.dec()
            scope.update({name: answered[name] for name in ("route", "client_name") if name in answered})
            self._write(scope, status or CLIENT_CLOSED_REQUEST, time.perf_counter() - start)

    def _record(self, error: ApiError, exception: Exception) -> None:
        """Count an error and, where it is the server's, log its cause: once, under the request's id."""
        self._metrics.refused.labels(error.code).inc()
        if error is not exception:
            if error.status >= _SERVER_ERROR:
                self._log.error("unhandled exception", exc_info=exception)
        elif error.status >= _SERVER_ERROR and error.__cause__ is not None:
            self._log.error("request failed", status=error.status, code=error.code, exc_info=error.__cause__)

    def _write(self, scope: Scope, status: int, seconds: float) -> None:
        route, method = route_template(scope), scope["method"]
        counted = self._counters.get((route, method, status))
        if counted is None:
            labeled = self._metrics.http_requests.labels(route, method, status)
            counted = self._counters[route, method, status] = labeled, self._metrics.http_seconds.labels(route, method)
        counted[0].inc()
        counted[1].observe(seconds)
        if scope["path"] in PROBES and status < 400:
            return
        client = {"client": scope["client_name"]} if "client_name" in scope else {}
        self._access_log.write(
            method=method, route=route, status=status, duration_ms=round(1000 * seconds, 2), **client
        )


def route_template(scope: Scope) -> str:
    """The path of the matched route, with its parameters as names: an image id in a log would be as good as a key."""
    return getattr(scope.get("route"), "path", None) or "unmatched"


def _security_headers(policy: str) -> list[tuple[bytes, bytes]]:
    headers = {**_SECURITY_HEADERS, "Content-Security-Policy": policy}
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def _request_id(scope: Scope) -> str:
    """The client's `X-Request-ID`, else the trace id of its `traceparent`, else a new one."""
    trace_id = None
    for name, value in scope["headers"]:  # in lower case, as ASGI says
        if name == b"x-request-id":
            received = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(received):
                return str(received)
        elif name == b"traceparent" and (trace := _TRACEPARENT.fullmatch(value.decode("latin-1"))):
            trace_id = trace[1]
    return trace_id or secrets.token_hex(16)

"""Request metrics: counts by status, latencies by route template, and requests in flight."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medical_vqa.serving.metrics import Metrics
from medical_vqa.serving.middleware.access_log import CLIENT_CLOSED_REQUEST, route_template


class HttpMetricsMiddleware:
    """Counts every request once it has been answered."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

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

        with self._metrics.http_in_progress.track_inprogress():
            try:
                await self._app(scope, receive, send_and_record_status)
            finally:
                route, method = route_template(scope), scope["method"]
                self._metrics.http_requests.labels(route, method, status).inc()
                self._metrics.http_seconds.labels(route, method).observe(time.perf_counter() - start)

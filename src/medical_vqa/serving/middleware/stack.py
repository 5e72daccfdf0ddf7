"""The order of the middleware."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from medical_vqa.serving.metrics import Metrics
from medical_vqa.serving.middleware.access import AccessMiddleware, ApiKeys
from medical_vqa.serving.middleware.access_log import AccessLogMiddleware
from medical_vqa.serving.middleware.body_limits import BodyLimitsMiddleware
from medical_vqa.serving.middleware.http_metrics import HttpMetricsMiddleware
from medical_vqa.serving.middleware.internal_errors import InternalErrorMiddleware
from medical_vqa.serving.middleware.request_id import RequestIdMiddleware
from medical_vqa.serving.middleware.security_headers import SecurityHeadersMiddleware
from medical_vqa.serving.rate_limit import RateLimiter
from medical_vqa.serving.settings import Settings


def middleware_stack(settings: Settings, metrics: Metrics, rate_limiter: RateLimiter | None) -> list[Middleware]:
    """The middleware from the outermost, which sees a request first and its response last, to the innermost.

    1. request id: everything that follows logs under it, and every response carries it
    2. access log: sees the status that the client gets
    3. security headers: on every response, errors included
    4. metrics: counts what the log shows
    5. CORS, where origins are set: browsers need its headers on errors too
    6. internal errors: a bug anywhere below becomes a 500 that passes 1 to 5
    7. access: keys and rates, before any of the body is read
    8. body limits

    Args:
        settings: Which of them are used, and their options.
        metrics: Where requests are counted.
        rate_limiter: Counts the requests of each client; None: no limit.
    """
    stack = [Middleware(RequestIdMiddleware), Middleware(AccessLogMiddleware)]
    stack.append(Middleware(SecurityHeadersMiddleware, docs=settings.docs))
    if settings.metrics:
        stack.append(Middleware(HttpMetricsMiddleware, metrics=metrics))
    if settings.cors_origins:
        stack.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["Authorization", "Content-Type"],
                max_age=3600,
            )
        )
    stack.append(Middleware(InternalErrorMiddleware))
    stack.append(
        Middleware(
            AccessMiddleware,
            keys=ApiKeys(settings.api_keys),
            rate_limiter=rate_limiter,
            cors_origins=settings.cors_origins,
        )
    )
    stack.append(Middleware(BodyLimitsMiddleware, max_bytes=settings.max_upload_bytes, timeout=settings.upload_timeout))
    return stack

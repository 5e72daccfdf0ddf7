"""The order of the middleware."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from medical_vqa.serving.metrics import Metrics
from medical_vqa.serving.middleware.access import AccessMiddleware, ApiKeys
from medical_vqa.serving.middleware.body_limits import BodyBudget, BodyLimitsMiddleware
from medical_vqa.serving.middleware.outer import Draining, OuterMiddleware
from medical_vqa.serving.rate_limit import RateLimiter
from medical_vqa.serving.settings import Settings

_EXPOSED_HEADERS = ("X-Rows", "X-Columns", "X-Type", "X-Spacing", "X-Slope", "X-Intercept", "ETag")  # of slices
_CLIENTS_PER_BUDGET = 4  # of the bytes of bodies in flight, one client may hold one


def middleware_stack(
    settings: Settings, metrics: Metrics, rate_limiter: RateLimiter, draining: Draining
) -> list[Middleware]:
    """The middleware from the outermost, which sees a request first and its response last, to the innermost.

    1. CORS, where origins are set: browsers need its headers on every response, errors included
    2. outer: request id, errors, security headers, metrics, access log
    3. access: keys, roles and rates, before any of the body is read
    4. body limits

    Args:
        settings: Which of them are used, and their options.
        metrics: Where requests are counted.
        rate_limiter: Counts the requests of each client.
        draining: Whether the server is about to stop.
    """
    one_body = max(settings.max_upload_bytes, settings.max_series_bytes)
    budget = BodyBudget(settings.body_bytes, max(one_body, settings.body_bytes // _CLIENTS_PER_BUDGET))
    stack = [
        Middleware(OuterMiddleware, metrics=metrics, draining=draining),
        Middleware(AccessMiddleware, keys=ApiKeys(settings.api_keys, settings.keys_file), rate_limiter=rate_limiter),
        Middleware(
            BodyLimitsMiddleware,
            max_bytes=settings.max_upload_bytes,
            timeout=settings.upload_timeout,
            budget=budget,
            max_series_bytes=settings.max_series_bytes,
            series_timeout=settings.series_timeout,
        ),
    ]
    if settings.cors_origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            expose_headers=_EXPOSED_HEADERS,
            allow_headers=["*"],  # OpenAI's client sends many of its own, and no cookie is ever accepted
            max_age=3600,
        )
        stack.insert(0, cors)
    return stack

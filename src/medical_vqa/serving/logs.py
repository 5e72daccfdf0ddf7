"""Logs as one JSON object per line: request ids, times and codes; questions and answers only if a setting allows it."""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import structlog

# Without the values of variables, for a question may be among them.
_TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
_CHATTY_LOGGERS = ("uvicorn.access", "httpx", "httpx2", "botocore", "PIL")


def configure_logging(level: str, stream: TextIO | None = None) -> None:
    """Send every log of this process through structlog, as JSON, to `stream` (None: stderr)."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,  # the request id
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
    for name in _CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )

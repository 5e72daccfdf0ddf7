"""Logs: request ids, times and codes; questions and answers only if a setting allows it.

One JSON object per line, or, where a person reads them in a terminal, one short line.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog

# Without the values of variables, for a question may be among them.
_TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
_CHATTY_LOGGERS = ("uvicorn.access", "httpx", "httpx2", "botocore", "PIL")


_as_json = True


class AccessLog:
    """Writes one line for each request to where the logs go, as cheaply as possible: without a record of `logging`."""

    def __init__(self) -> None:
        self._lines = logging.getLogger("medical_vqa.access")

    def write(self, **fields: Any) -> None:
        """Write a line, with the context of the request."""
        if not self._lines.isEnabledFor(logging.INFO):
            return
        if not _as_json:
            structlog.get_logger("medical_vqa.access").info("request", **fields)
            return
        handlers = self._lines.handlers or logging.getLogger().handlers
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        line = json.dumps(
            {"event": "request", **structlog.contextvars.get_contextvars(), **fields, "level": "info", "timestamp": now}
        )
        for handler in handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.acquire()
                try:
                    handler.stream.write(line + handler.terminator)
                    handler.flush()
                except (OSError, ValueError):  # where the logs go is closed or full; requests are answered all the same
                    continue
                finally:
                    handler.release()


def configure_logging(level: str, stream: TextIO | None = None, *, style: str = "auto") -> None:
    """Send every log of this process through structlog.

    Args:
        level: The lowest level that is written.
        stream: Where to; None: stderr.
        style: ``json``, ``text``, or ``auto``: text in a terminal and JSON elsewhere.
    """
    stream = stream or sys.stderr
    global _as_json  # noqa: PLW0603 - logging is configured for the process
    as_text = style == "text" or (style == "auto" and stream.isatty())
    _as_json = not as_text
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,  # the request id
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
        if as_text
        else structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers: list[Any] = [_TRACEBACKS, structlog.processors.JSONRenderer()]
    if as_text:
        renderers = [
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(), pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
            )
        ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *renderers,
        ],
    )
    handler = logging.StreamHandler(stream)
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

"""How long to wait before a request is repeated."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

_FIRST_SECONDS, _MOST_SECONDS = 0.5, 8.0
_MOST_REQUESTED = 60.0  # an endpoint that asks for more is repeated on our own terms


def seconds_before_retry(retries: int, headers: Mapping[str, str] | None = None) -> float:
    """Seconds before the next try.

    Args:
        retries: How often the request was repeated already.
        headers: Of the reply, which may say how long to wait; None: there was no reply.
    """
    requested = _requested_seconds(headers or {})
    if requested is not None and 0 <= requested <= _MOST_REQUESTED:
        return requested
    longest = min(_FIRST_SECONDS * float(2**retries), _MOST_SECONDS)
    return longest * random.uniform(0.75, 1.0)  # so that clients do not come back together


def _requested_seconds(headers: Mapping[str, str]) -> float | None:
    """The wait of ``retry-after-ms`` or ``retry-after``, which is a number of seconds or a date; None: neither."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    try:
        return parsedate_to_datetime(value).timestamp() - time.time()
    except ValueError:
        return None


def _number(value: str | None) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return None

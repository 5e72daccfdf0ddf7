"""Checks of what a server depends on, for its readiness: one at a time, and at most every few seconds."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

from medical_vqa.errors import ConfigError
from medical_vqa.serving.errors import ApiError

INTERVAL = 5.0
"""Seconds for which a check that has passed counts."""
_TIMEOUT = 3.0  # seconds


class PeriodicCheck:
    """A check that is repeated once its result is old, or was bad."""

    def __init__(self, check: Callable[[], Awaitable[None]], failed: Callable[[], ApiError]) -> None:
        """Set up without checking.

        Args:
            check: Raises `ConfigError` or `OSError` where something cannot be used.
            failed: The error that a client receives.
        """
        self._check = check
        self._failed = failed
        self._passed_at = -math.inf
        self._running: asyncio.Future[None] | None = None

    def repeat(self) -> None:
        """Have the next call check again: what was checked has failed since."""
        self._passed_at = -math.inf

    async def __call__(self) -> None:
        """Raise `ApiError` where the check fails, or does not end in time."""
        if time.monotonic() - self._passed_at < INTERVAL:
            return
        if self._running is None or self._running.done():
            self._running = asyncio.ensure_future(self._check())
        try:
            async with asyncio.timeout(_TIMEOUT):
                await asyncio.shield(self._running)
        except (ConfigError, OSError) as error:  # a timeout too
            raise self._failed() from error
        self._passed_at = time.monotonic()

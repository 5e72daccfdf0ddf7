"""A store as the event loop calls it: in threads of its own, for a bounded time, and a bounded number of blobs at once.

A disk that a network serves may not return from a call for minutes, or ever. The request that needs it is then refused,
and a server that stops does not wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from medical_vqa.runtime.threads import DaemonThreads
from medical_vqa.serving.errors import deadline_exceeded
from medical_vqa.serving.image_store.base import CONNECT_TIMEOUT, READ_TIMEOUT, ImageStore, store_unavailable

CALL_TIMEOUT = CONNECT_TIMEOUT + READ_TIMEOUT - 1
"""Seconds for one call; below the time that running requests get when a server stops."""
LARGE_TIMEOUT = 30.0
"""Seconds for one call with the values of a series."""
STOP_SECONDS = 0.5
"""Seconds that a server which stops waits for running calls, for which no request waits any more."""
_THREADS = 16
_BLOBS_AT_ONCE = 4  # that are read, of some megabytes each
_VALUES_AT_ONCE = 2  # of series, of tens of megabytes each

T = TypeVar("T")


class StoreCalls:
    """The calls of one store; used from the event loop alone."""

    def __init__(self, store: ImageStore) -> None:
        self.store = store
        self._threads = DaemonThreads(_THREADS, "store")
        self._blobs = asyncio.Semaphore(_BLOBS_AT_ONCE)
        self._pictures = asyncio.Semaphore(_BLOBS_AT_ONCE)
        self._values = asyncio.Semaphore(_VALUES_AT_ONCE)

    async def call(self, call: Callable[[], T], *, seconds: float | None = None) -> T:
        """The result of a call of the store.

        Args:
            call: Calls the store.
            seconds: How long it may take; None: `CALL_TIMEOUT`.

        Raises:
            ApiError: 503 where the store does not answer in time.
        """
        if not self.store.blocking:
            return call()
        try:
            async with asyncio.timeout(CALL_TIMEOUT if seconds is None else seconds):
                return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except TimeoutError as error:
            raise store_unavailable() from error

    def reading_blob(self) -> contextlib.AbstractAsyncContextManager[None]:
        """While the blob of an image is read for a question; raises `ApiError` (429) where too many are."""
        return _in_turn(self._blobs)

    def reading_picture(self) -> contextlib.AbstractAsyncContextManager[None]:
        """While a picture is read from a blob to be shown; those for questions do not wait behind it."""
        return _in_turn(self._pictures)

    def reading_values(self) -> contextlib.AbstractAsyncContextManager[None]:
        """While the values of a series are read."""
        return _in_turn(self._values)

    async def get(self, name: str) -> bytes | None:
        """`ImageStore.get`; raises `ApiError` (503)."""
        return await self.call(lambda: self.store.get(name))

    async def put(self, name: str, blob: bytes) -> None:
        """`ImageStore.put`; raises `ApiError` (413, 503)."""
        await self.call(lambda: self.store.put(name, blob))

    async def contains(self, name: str) -> bool:
        """`ImageStore.contains`; raises `ApiError` (503)."""
        return await self.call(lambda: self.store.contains(name))

    async def delete(self, name: str) -> bool:
        """`ImageStore.delete`; raises `ApiError` (503)."""
        return await self.call(lambda: self.store.delete(name))

    async def quarantine(self, name: str) -> None:
        """`ImageStore.quarantine`; raises `ApiError` (503)."""
        await self.call(lambda: self.store.quarantine(name))

    def close(self) -> None:
        """Stop the threads, after what they are doing, or without those whose calls do not return."""
        self._threads.shutdown(seconds=STOP_SECONDS)


@contextlib.asynccontextmanager
async def _in_turn(semaphore: asyncio.Semaphore) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(CALL_TIMEOUT):
            await semaphore.acquire()
    except TimeoutError:
        raise deadline_exceeded(CALL_TIMEOUT / 2) from None
    try:
        yield
    finally:
        semaphore.release()

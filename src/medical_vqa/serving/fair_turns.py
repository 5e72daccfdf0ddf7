"""Work of which a server does a few pieces at once, in turn: whoever has had least of it is next."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from medical_vqa.serving.clients import current_client
from medical_vqa.serving.errors import deadline_exceeded, overloaded
from medical_vqa.serving.fair_queue import FairQueue


class FairTurns:
    """Turns, fair among clients by the time that theirs have taken; used from the event loop alone."""

    def __init__(self, at_once: int, queue_size: int, deadline: float) -> None:
        """Set the bounds.

        Args:
            at_once: Turns at the same time.
            queue_size: Requests that may wait for one.
            deadline: Seconds that a request waits at most.
        """
        self._free = at_once
        self._queue_size = queue_size
        self._deadline = deadline
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A turn of the current client; raises `ApiError` (429) where too many wait or the deadline has passed."""
        client = current_client()
        await self._wait()
        start = time.monotonic()
        try:
            yield
        finally:
            self._queue.charge(client.queue, time.monotonic() - start, client=client.name)
            self._pass_on()

    async def _wait(self) -> None:
        client = current_client()
        if not self._free and self._queue.is_full_for(client.queue, self._queue_size):
            raise overloaded(self._deadline / 2)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.push(client.queue, turn, client.weight, client=client.name)  # also where one is free: what they
        if self._free:  # use while nobody waits is no debt later
            self._free -= 1
            self._pass_on()
        try:
            async with asyncio.timeout(self._deadline):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # it was passed on to a request that has just ended
                self._pass_on()
            else:
                self._queue.remove(lambda other: other is turn)
            if isinstance(error, TimeoutError):
                raise deadline_exceeded(self._deadline / 2) from None
            raise

    def _pass_on(self) -> None:
        """Give the turn that has ended to the next request."""
        while len(self._queue):
            _, turn = self._queue.pop()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

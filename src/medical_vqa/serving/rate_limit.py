"""How often a client may call: a moving window each, counted in this process or in the Redis of the image store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from limits import parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter

from medical_vqa.serving.clients import Client
from medical_vqa.serving.errors import rate_limited
from medical_vqa.serving.image_store.base import CONNECT_TIMEOUT, READ_TIMEOUT, store_errors

if TYPE_CHECKING:
    from redis.asyncio import ConnectionPool


class RateLimiter:
    """Counts requests and questions by client."""

    def __init__(self, rate: str | None, store: str) -> None:
        """Set up the counts.

        Args:
            rate: Such as ``60/minute``, of clients without a rate of their own; None: they have no limit.
            store: Of the images; where it is a Redis, all servers count there.
        """
        self._rate = rate
        self._pool: ConnectionPool | None = None
        storage: Any = MemoryStorage()
        if store.startswith(("redis://", "rediss://")):
            from redis.asyncio import ConnectionPool  # noqa: PLC0415 - an extra

            self._pool = ConnectionPool.from_url(
                store, socket_connect_timeout=CONNECT_TIMEOUT, socket_timeout=READ_TIMEOUT
            )
            options: dict[str, Any] = {"connection_pool": self._pool}  # which is ours to close
            storage = RedisStorage(f"async+{store}", implementation="redispy", **options)
        self._limiter = MovingWindowRateLimiter(storage)

    async def count(self, client: Client, cost: int = 1) -> None:
        """Count a client's request.

        Args:
            client: Who sends it; the keys of a tenant have a rate each.
            cost: Questions in it; at least 1.

        Raises:
            ApiError: 429 when it is too much, 503 when the Redis does not answer.
        """
        text = client.rate_limit or self._rate
        if text is None or cost < 1:
            return
        rate = parse(text)
        with store_errors():
            if not await self._limiter.hit(rate, client.name, cost=cost):
                window = await self._limiter.get_window_stats(rate, client.name)
                raise rate_limited(window.reset_time - time.time())

    async def close(self) -> None:
        """Close the connections to the Redis, if there is one."""
        if self._pool is not None:
            await self._pool.aclose()

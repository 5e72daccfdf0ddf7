"""How often a client may call: a moving window each, counted in this process or in the Redis of the image store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from limits import parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter

from medical_vqa.serving.errors import rate_limited
from medical_vqa.serving.image_store.base import CONNECT_TIMEOUT, READ_TIMEOUT, store_errors

if TYPE_CHECKING:
    from redis.asyncio import ConnectionPool


class RateLimiter:
    """Counts requests by client."""

    def __init__(self, rate: str, store: str) -> None:
        """`rate` is such as ``60/minute``; where `store`, the images' URL, is a Redis, all servers count there."""
        self._rate = parse(rate)
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

    async def count(self, client: str) -> None:
        """Count a request; raises `ApiError`: 429 when it is one too many, 503 when the Redis does not answer."""
        with store_errors():
            if not await self._limiter.hit(self._rate, client):
                window = await self._limiter.get_window_stats(self._rate, client)
                raise rate_limited(window.reset_time - time.time())

    async def close(self) -> None:
        """Close the connections to the Redis, if there is one."""
        if self._pool is not None:
            await self._pool.aclose()

"""Uploads in a Redis that several servers share."""

from __future__ import annotations

from typing import Any

from medical_vqa.errors import ConfigError, MissingDependencyError
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.image_store.base import CONNECT_TIMEOUT, READ_TIMEOUT, store_errors


class RedisStore:
    """One key per image, which Redis expires; bounded by the configuration of the Redis."""

    blocking = True

    def __init__(self, url: str, *, ttl: float | None, max_bytes: int) -> None:  # noqa: ARG002 - Redis has its own bounds
        try:
            import redis  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise MissingDependencyError(
                "a redis:// store needs the redis package; run: pip install 'medical-vqa[redis]'"
            ) from error
        self._ttl_ms = None if ttl is None else max(1, round(ttl * 1000))
        self._redis: Any = redis.Redis.from_url(
            url, socket_connect_timeout=CONNECT_TIMEOUT, socket_timeout=READ_TIMEOUT, health_check_interval=30
        )

    def put(self, image_id: str, blob: bytes) -> None:
        """Set the key, with its time to live."""
        with store_errors():
            self._redis.set(self._key(image_id), blob, px=self._ttl_ms)

    def get(self, image_id: str) -> bytes | None:
        """The key's value."""
        with store_errors():
            blob: bytes | None = self._redis.get(self._key(image_id))
            return blob

    def contains(self, image_id: str) -> bool:
        """Whether the key exists."""
        with store_errors():
            return bool(self._redis.exists(self._key(image_id)))

    def delete(self, image_id: str) -> bool:
        """Delete the key."""
        with store_errors():
            return bool(self._redis.delete(self._key(image_id)))

    def quarantine(self, image_id: str) -> None:
        """Rename the key to ``medical-vqa-damaged:*``, which expires as before."""
        with store_errors():
            if self._redis.exists(self._key(image_id)):
                self._redis.rename(self._key(image_id), f"medical-vqa-damaged:{image_id}")

    def sweep(self) -> int:
        """Nothing to do: Redis expires keys itself."""
        return 0

    def check(self) -> None:
        """Raise `ConfigError` where no Redis answers."""
        try:
            with store_errors():
                self._redis.ping()
        except ApiError as error:
            raise ConfigError("store redis://: no Redis answers there; check the address and the password") from error

    def _key(self, image_id: str) -> str:
        return f"medical-vqa:{image_id}"

"""Uploads in the memory of this process: for a single server, and gone when it stops."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Self

from cachetools import TTLCache

from medical_vqa.serving.errors import ApiError


class MemoryStore:
    """Bounded by bytes; the least recently used blobs are removed first."""

    blocking = False

    def __init__(self, *, ttl: float | None, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._blobs: TTLCache[str, bytes] = TTLCache(
            max_bytes, math.inf if ttl is None else ttl, timer=clock, getsizeof=len
        )
        self._lock = threading.Lock()

    @classmethod
    def from_url(cls, url: str, *, ttl: float | None, max_bytes: int) -> Self:  # noqa: ARG003 - there is one memory
        """A new, empty store; the address says nothing more."""
        return cls(ttl=ttl, max_bytes=max_bytes)

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        with self._lock:
            return int(self._blobs.currsize)

    def put(self, image_id: str, blob: bytes) -> None:
        """Keep a blob; raises `ApiError` (413) when it is larger than the store."""
        with self._lock:
            try:
                self._blobs[image_id] = blob
            except ValueError:
                message = "the image is larger than this server's memory for images; send a smaller one"
                raise ApiError(413, "too_large", message) from None

    def get(self, image_id: str) -> bytes | None:
        """The blob, now the most recently used."""
        with self._lock:
            return self._blobs.get(image_id)

    def contains(self, image_id: str) -> bool:
        """Whether the blob is there; it is now the most recently used, for its features were needed."""
        with self._lock:
            return self._blobs.get(image_id) is not None

    def delete(self, image_id: str) -> bool:
        """Forget a blob."""
        with self._lock:
            return self._blobs.pop(image_id, None) is not None

    def quarantine(self, image_id: str) -> None:
        """Forget the blob: memory is nothing to look at later."""
        self.delete(image_id)

    def sweep(self) -> int:
        """Remove expired blobs."""
        with self._lock:
            return len(list(self._blobs.expire()))

    def check(self) -> None:
        """Memory is always there."""

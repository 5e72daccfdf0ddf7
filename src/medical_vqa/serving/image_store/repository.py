"""The uploads of a server: encoded when they arrive, written to its store, the recently used ones cached in memory.

An id is the head of the pixels' SHA-256 and 128 random bits, which cannot be guessed.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog
from cachetools import LRUCache

from medical_vqa.serving.decoding import DecodedImage
from medical_vqa.serving.engine import Engine
from medical_vqa.serving.errors import unknown_image
from medical_vqa.serving.image_store.base import ImageStore
from medical_vqa.serving.image_store.blob import DamagedBlobError, StoredImage, read_blob, read_png, write_blob
from medical_vqa.serving.remote_engine import RemoteEngine
from medical_vqa.serving.schema import IMAGE_ID

T = TypeVar("T")

RECHECK_SECONDS = 10.0
"""How long a cached image is used before a shared store is asked whether it still exists: the longest time until a
deletion on another server takes effect."""
_ID = re.compile(IMAGE_ID)
_LOG = structlog.get_logger("medical_vqa.serving")
_STORE_THREADS = 16


class ImageRepository:
    """Images by id; used from the event loop alone."""

    def __init__(
        self,
        store: ImageStore,
        engine: Engine | RemoteEngine,
        *,
        ttl: float | None,
        cache_bytes: int,
        keep_originals: bool,
    ) -> None:
        """Set up the cache.

        Args:
            store: Where the blobs live.
            engine: Encodes the pictures.
            ttl: Seconds until an image expires; None: never.
            cache_bytes: Bound of the features that stay in memory.
            keep_originals: Whether uploaded files are stored too, header and all.
        """
        self._store = store
        self._engine = engine
        self._ttl = ttl
        self._keep_originals = keep_originals
        # (image, monotonic time of the last check that it exists); an image larger than the cache fills it alone
        self._cache: LRUCache[str, tuple[StoredImage, float]] = LRUCache(
            cache_bytes, getsizeof=lambda entry: min(entry[0].bytes, cache_bytes)
        )
        self._loading: dict[str, asyncio.Task[StoredImage]] = {}
        self._threads = ThreadPoolExecutor(_STORE_THREADS, "store")

    async def encode(self, decoded: DecodedImage) -> StoredImage:
        """An image that is asked about once and not stored; raises `ApiError`."""
        features = await self._engine.encode(decoded.digest, decoded.picture)
        visual = decoded.picture if features is None else features
        return StoredImage("", decoded.digest, visual, context=decoded.context)

    async def add(self, decoded: DecodedImage, original: bytes) -> StoredImage:
        """Encode an image and store it, for every server on the store; raises `ApiError`."""
        encoded = await self.encode(decoded)
        image_id = f"{decoded.digest[:24]}-{secrets.token_urlsafe(16)}"
        expires_at = None if self._ttl is None else time.time() + self._ttl
        image = StoredImage(image_id, decoded.digest, encoded.visual, expires_at, decoded.context)
        blob = write_blob(
            image,
            decoded,
            fingerprint=self._engine.fingerprint,
            original=original if self._keep_originals else None,
        )
        await self._call_store(lambda: self._store.put(image_id, blob))
        self._add_to_cache(image)
        return image

    async def get(self, image_id: str) -> StoredImage:
        """An image that was added here or on another server; raises `ApiError` (404)."""
        if not _ID.match(image_id):
            raise unknown_image()
        image = self._cached(image_id)
        self._engine.metrics.image_cache.labels("miss" if image is None else "hit").inc()
        if image is None:
            image = await self._load_once(image_id)
        if image.expires_at is not None and time.time() > image.expires_at:
            await self.delete(image_id)
            raise unknown_image()
        return image

    async def png(self, image_id: str) -> bytes:
        """The picture of an image as it was decoded, before it was prepared for the model; raises `ApiError` (404)."""
        await self.get(image_id)
        blob = await self._call_store(lambda: self._store.get(image_id))
        if blob is None:
            raise unknown_image()
        return await self._read(image_id, lambda: read_png(image_id, blob))

    async def delete(self, image_id: str) -> None:
        """Forget an image; raises `ApiError` (404)."""
        if not _ID.match(image_id):
            raise unknown_image()
        self._cache.pop(image_id, None)
        if not await self._call_store(lambda: self._store.delete(image_id)):
            raise unknown_image()

    async def sweep(self) -> None:
        """Let the store remove what has expired."""
        await self._call_store(self._store.sweep)

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown()

    def _cached(self, image_id: str) -> StoredImage | None:
        """The cached image, as far as that is known without waiting for a store."""
        entry = self._cache.get(image_id)
        if entry is None:
            return None
        image, checked_at = entry
        recent = time.monotonic() - checked_at < RECHECK_SECONDS
        return image if (recent if self._store.blocking else self._store.contains(image_id)) else None

    def _add_to_cache(self, image: StoredImage) -> None:
        self._cache[image.id] = (image, time.monotonic())

    async def _load_once(self, image_id: str) -> StoredImage:
        """Load an image once for all requests that need it at this moment."""
        if image_id not in self._loading:
            task = asyncio.create_task(self._load(image_id))
            self._loading[image_id] = task
            task.add_done_callback(lambda _: self._loading.pop(image_id, None))
        return await asyncio.shield(self._loading[image_id])

    async def _load(self, image_id: str) -> StoredImage:
        entry = self._cache.get(image_id)
        if entry is not None and await self._call_store(lambda: self._store.contains(image_id)):
            self._add_to_cache(entry[0])
            return entry[0]
        self._cache.pop(image_id, None)
        blob = await self._call_store(lambda: self._store.get(image_id))
        if blob is None:
            raise unknown_image()
        image, picture = await self._read(
            image_id,
            lambda: read_blob(image_id, blob, fingerprint=self._engine.fingerprint, spec=self._engine.model.picture),
        )
        if picture is not None:  # written by a server with another model
            features = await self._engine.encode(image.digest, picture)
            if features is not None:
                image = StoredImage(image_id, image.digest, features, image.expires_at, image.context)
        self._add_to_cache(image)
        return image

    async def _read(self, image_id: str, read: Callable[[], T]) -> T:
        """What is read from a blob; a damaged one is quarantined, logged and counted, and its image unknown."""
        try:
            return await self._in_thread(read)
        except DamagedBlobError:
            self._cache.pop(image_id, None)
            await self._call_store(lambda: self._store.quarantine(image_id))
            self._engine.metrics.damaged.inc()
            _LOG.error("damaged blob quarantined", image=hashlib.sha256(image_id.encode()).hexdigest()[:12])
            raise unknown_image() from None

    async def _call_store(self, call: Callable[[], T]) -> T:
        return await self._in_thread(call) if self._store.blocking else call()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

"""The uploads of a server: encoded when they arrive, written to its store, the recently used ones cached in memory.

An id is the head of the picture's key and 128 random bits, which cannot be guessed. In the store and in caches an
image has its owner in its name, so that the id of another tenant's image names nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import re
import secrets
import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from cachetools import LRUCache

from medical_vqa.data.imaging.volume import Volume
from medical_vqa.runtime.threads import DaemonThreads
from medical_vqa.serving.clients import current_client, picture_key
from medical_vqa.serving.decoding.decoded_image import DecodedImage
from medical_vqa.serving.engine.local import Engine
from medical_vqa.serving.engine.remote import RemoteEngine
from medical_vqa.serving.errors import no_values, unknown_image
from medical_vqa.serving.image_store.blob import (
    DamagedBlobError,
    StoredImage,
    read_blob,
    read_png,
    read_sources,
    write_blob,
)
from medical_vqa.serving.image_store.calls import LARGE_TIMEOUT, StoreCalls
from medical_vqa.serving.image_store.values_blob import read_values, write_values
from medical_vqa.serving.quotas import Quotas
from medical_vqa.serving.schema.common import IMAGE_ID

T = TypeVar("T")

RECHECK_SECONDS = 10.0
"""How long a cached image is used before a shared store is asked whether it still exists: the longest time until a
deletion on another server takes effect."""
_ID = re.compile(IMAGE_ID)
_LOG = structlog.get_logger("medical_vqa.serving")
_WORK_THREADS = 2  # that compute: with more, the event loop waits for its turn among them
ID_HEAD = 24
"""Characters of a picture's key with which the ids of its images begin."""


def stored_name(image_id: str, owner: str) -> str:
    """The name of an owner's image in the store; raises `ApiError` (404) for what is no id."""
    if not _ID.match(image_id):
        raise unknown_image()
    return f"{image_id}.{owner}" if owner else image_id


def _values_name(name: str) -> str:
    """The name in the store of an image's values."""
    return f"{name}.values"


class ImageRepository:
    """Images by id; used from the event loop alone."""

    def __init__(
        self,
        calls: StoreCalls,
        engine: Engine | RemoteEngine,
        *,
        ttl: float | None,
        cache_bytes: int,
        values_cache_bytes: int,
        keep_originals: bool,
    ) -> None:
        """Set up the cache.

        Args:
            calls: Of the store where the blobs live.
            engine: Encodes the pictures.
            ttl: Seconds until an image expires; None: never.
            cache_bytes: Bound of the features that stay in memory.
            values_cache_bytes: Bound of the values of series that stay in memory; larger ones fill it alone.
            keep_originals: Whether uploaded files are stored too, header and all.
        """
        self._calls = calls
        self._store = calls.store
        self._engine = engine
        self._ttl = ttl
        self._keep_originals = keep_originals
        # (image, monotonic time of the last check that it exists); an image larger than the cache fills it alone
        self._cache: LRUCache[str, tuple[StoredImage, float]] = LRUCache(
            cache_bytes, getsizeof=lambda entry: min(entry[0].bytes, cache_bytes)
        )
        self._values_cache: LRUCache[str, Volume] = LRUCache(
            values_cache_bytes, getsizeof=lambda volume: min(volume.values.nbytes, values_cache_bytes)
        )
        self._quotas = Quotas(ttl)
        self._loading: dict[str, asyncio.Task[StoredImage]] = {}
        self._loading_values: dict[str, asyncio.Task[Volume]] = {}
        self._workers = DaemonThreads(_WORK_THREADS, "blobs")
        self._working = asyncio.Semaphore(_WORK_THREADS)

    async def encode(self, decoded: DecodedImage) -> StoredImage:
        """An image that is asked about once and not stored; raises `ApiError`."""
        key = picture_key(current_client().owner, decoded.digest)
        features = await self._engine.encode(key, decoded.picture)
        visual = decoded.picture if features is None else features
        return StoredImage("", key, visual, context=decoded.context)

    async def add(self, decoded: DecodedImage, original: bytes | None) -> StoredImage:
        """Encode the client's image or series and store it, for every server on the store; raises `ApiError`."""
        client = current_client()
        encoded = await self.encode(decoded)
        image_id = f"{encoded.digest[:ID_HEAD]}-{secrets.token_urlsafe(16)}"
        expires_at = None if self._ttl is None else time.time() + self._ttl
        image = StoredImage(image_id, encoded.digest, encoded.visual, expires_at, decoded.context, decoded.facts)
        name = stored_name(image_id, client.owner)
        original = original if self._keep_originals else None
        fingerprint = self._engine.fingerprint
        blob = await self._in_thread(
            lambda: write_blob(image, decoded, name=name, fingerprint=fingerprint, original=original)
        )
        size = len(blob) + (0 if decoded.volume is None else decoded.volume.values.nbytes)
        self._quotas.take(client, image_id, size)
        try:
            if decoded.volume is not None:  # first, so that an image that is there has its values
                await self._put_values(decoded.volume, _values_name(name))
            await self._calls.put(name, blob)
        except BaseException:
            self._quotas.release(client.owner, image_id)
            raise
        self._add_to_cache(name, image)
        return image

    async def _put_values(self, volume: Volume, name: str) -> None:
        blob = await self._in_thread(lambda: write_values(volume, name=name))
        await self._calls.call(lambda: self._store.put(name, blob), seconds=LARGE_TIMEOUT)
        if self._store.blocking:
            self._values_cache[name] = volume
        else:  # the values in the blob itself, so that they are in memory once
            self._values_cache[name] = await self._in_thread(lambda: read_values(blob, name=name))

    async def volume(self, image_id: str) -> Volume:
        """The stored values of the client's image; raises `ApiError` (404) where there are none."""
        image = await self.get(image_id)
        if image.facts is None or image.facts.values is None:
            raise no_values()
        name = _values_name(stored_name(image_id, current_client().owner))
        volume = self._values_cache.get(name)
        if volume is not None and (self._store.blocking or self._store.contains(name)):
            return volume
        if name not in self._loading_values:
            task = asyncio.create_task(self._load_values(name))
            self._loading_values[name] = task
            task.add_done_callback(lambda _: self._loading_values.pop(name, None))
        return await asyncio.shield(self._loading_values[name])

    async def _load_values(self, name: str) -> Volume:
        self._values_cache.pop(name, None)
        async with self._calls.reading_values():
            blob = await self._calls.call(lambda: self._store.get(name), seconds=LARGE_TIMEOUT)
            if blob is None:  # the store was too small for it
                raise unknown_image()
            volume = await self._read(name, lambda: read_values(blob, name=name))
        self._values_cache[name] = volume
        return volume

    async def get(self, image_id: str) -> StoredImage:
        """The client's image that was added here or on another server; raises `ApiError` (404)."""
        name = stored_name(image_id, current_client().owner)
        image = self._cached(name)
        metrics = self._engine.metrics
        (metrics.image_cache_misses if image is None else metrics.image_cache_hits).inc()
        if image is None:
            image = await self._load_once(image_id, name)
        if image.expires_at is not None and time.time() > image.expires_at:
            await self.delete(image_id)
            raise unknown_image()
        return image

    def get_cached(self, image_id: str) -> StoredImage | None:
        """The client's image, where it is in memory and known to exist still; raises `ApiError` (404) for no id."""
        image = self._cached(stored_name(image_id, current_client().owner))
        if image is None or (image.expires_at is not None and time.time() > image.expires_at):
            return None
        return image

    async def png(self, image_id: str) -> bytes:
        """The picture of an image as it was decoded, before it was prepared for the model; raises `ApiError` (404)."""
        return await self._part(image_id, read_png)

    async def sources(self, image_id: str) -> str:
        """What a DICOM report about an image must repeat; empty where it is not stored. Raises `ApiError` (404)."""
        return await self._part(image_id, read_sources)

    async def _part(self, image_id: str, read: Callable[[str, bytes], T]) -> T:
        """What `read` finds in the blob of the client's image."""
        await self.get(image_id)
        name = stored_name(image_id, current_client().owner)
        async with self._calls.reading_picture():
            blob = await self._calls.get(name)
            if blob is None:
                raise unknown_image()
            return await self._read(name, lambda: read(name, blob))

    async def check_exists(self, image_id: str) -> None:
        """Raise `ApiError` (404) where the client has no such image."""
        if not await self._calls.contains(stored_name(image_id, current_client().owner)):
            raise unknown_image()

    async def delete(self, image_id: str) -> None:
        """Forget the client's image and the answers about it; raises `ApiError` (404)."""
        owner = current_client().owner
        name = stored_name(image_id, owner)
        self._cache.pop(name, None)
        self._values_cache.pop(_values_name(name), None)
        await self._calls.delete(_values_name(name))
        if not await self._calls.delete(name):
            raise unknown_image()
        self._quotas.release(owner, image_id)
        self._engine.forget(image_id[:ID_HEAD])

    def forget(self, image_id: str) -> None:
        """Remove from memory the client's image, which was deleted, and the answers about it."""
        self._cache.pop(stored_name(image_id, current_client().owner), None)
        self._engine.forget(image_id[:ID_HEAD])

    def close(self) -> None:
        """Stop the threads, after what they are doing."""
        self._workers.shutdown()

    def _cached(self, name: str) -> StoredImage | None:
        """The cached image, as far as that is known without waiting for a store."""
        entry = self._cache.get(name)
        if entry is None:
            return None
        image, checked_at = entry
        recent = time.monotonic() - checked_at < RECHECK_SECONDS
        return image if (recent if self._store.blocking else self._store.contains(name)) else None

    def _add_to_cache(self, name: str, image: StoredImage) -> None:
        self._cache[name] = (image, time.monotonic())

    async def _load_once(self, image_id: str, name: str) -> StoredImage:
        """Load an image once for all requests that need it at this moment."""
        if name not in self._loading:
            task = asyncio.create_task(self._load(image_id, name))
            self._loading[name] = task
            task.add_done_callback(lambda _: self._loading.pop(name, None))
        return await asyncio.shield(self._loading[name])

    async def _load(self, image_id: str, name: str) -> StoredImage:
        entry = self._cache.get(name)
        if entry is not None and await self._calls.contains(name):
            self._add_to_cache(name, entry[0])
            return entry[0]
        if self._cache.pop(name, None) is not None:  # deleted on another server
            self._engine.forget(image_id[:ID_HEAD])
        fingerprint, spec = self._engine.fingerprint, self._engine.model.picture
        async with self._calls.reading_blob():
            blob = await self._calls.get(name)
            if blob is None:
                raise unknown_image()
            image, picture = await self._read(
                name, lambda: read_blob(image_id, blob, name=name, fingerprint=fingerprint, spec=spec)
            )
        if picture is not None:  # written by a server with another model
            features = await self._engine.encode(image.digest, picture)
            if features is not None:
                image = dataclasses.replace(image, visual=features)
        self._add_to_cache(name, image)
        return image

    async def _read(self, name: str, read: Callable[[], T]) -> T:
        """What is read from a blob; a damaged one is quarantined, logged and counted, and its image unknown."""
        try:
            return await self._in_thread(read)
        except DamagedBlobError:
            self._cache.pop(name, None)
            await self._calls.quarantine(name)
            self._engine.metrics.damaged.inc()
            _LOG.error("damaged blob quarantined", image=hashlib.sha256(name.encode()).hexdigest()[:12])
            raise unknown_image() from None

    async def _in_thread(self, call: Callable[[], T]) -> T:
        async with self._working:  # or results of many megabytes would wait for a busy event loop
            return await asyncio.get_running_loop().run_in_executor(self._workers, call)

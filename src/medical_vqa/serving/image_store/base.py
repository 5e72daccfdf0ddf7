"""Where the bytes of an upload live: the protocol of all stores, and `open_store`.

A store holds one blob per image id, completely or not at all, and forgets it after `ttl` seconds. Several servers may
share a folder, an object store or a Redis; what one has stored, all of them find. Ids are validated before they get
here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol
from urllib.parse import urlsplit

from medical_vqa import registry
from medical_vqa.serving.errors import ApiError

SUFFIX = ".image"
"""Ending of a blob's file or object name."""
CONNECT_TIMEOUT = 2.0
"""Seconds to reach a shared store."""
READ_TIMEOUT = 5.0
"""Seconds for one operation of a shared store."""


class ImageStore(Protocol):
    """Blobs by image id; every method may be called from several threads.

    The registry names stores by URL scheme, and calls them as ``Store(url, ttl=..., max_bytes=...)``.
    """

    @property
    def blocking(self) -> bool:
        """Whether calls wait for a disk or a network, and so must not run in the event loop."""

    def put(self, image_id: str, blob: bytes) -> None:
        """Keep a blob: when this returns, every server on this store finds it. Raises `ApiError` when it cannot."""

    def get(self, image_id: str) -> bytes | None:
        """The blob, or None when there is none, or it has expired."""

    def contains(self, image_id: str) -> bool:
        """Whether `get` would find the blob."""

    def delete(self, image_id: str) -> bool:
        """Forget a blob; returns whether there was one."""

    def quarantine(self, image_id: str) -> None:
        """Move a damaged blob to where no request finds it and an operator can look at it, or delete it."""

    def sweep(self) -> int:
        """Remove expired blobs, the oldest beyond the bound, and partial files; returns how many."""

    def check(self) -> None:
        """Raise `ConfigError` when the store cannot be reached or written."""


def store_scheme(url: str) -> str:
    """The URL scheme, which is the store's name in the registry; a path without one is a folder."""
    return urlsplit(url).scheme if "://" in url else "file"


def open_store(url: str, *, ttl: float | None, max_bytes: int) -> ImageStore:
    """The store at an address, built in or of another package.

    Args:
        url: Such as ``memory://``, ``s3://bucket/prefix``; one without a scheme is a folder.
        ttl: Seconds until a blob expires; None: never.
        max_bytes: Bound of a store in memory or in a folder.

    Raises:
        ConfigError: No store has that scheme.
        MissingDependencyError: The store's client library is not installed.
    """
    store: ImageStore = registry.create("image_stores", store_scheme(url), url, ttl=ttl, max_bytes=max_bytes)
    return store


def store_unavailable() -> ApiError:
    """503: the shared store does not answer; nothing of the request was done."""
    return ApiError(503, "not_ready", "the image store does not answer; try again soon", {"Retry-After": "5"})


@contextlib.contextmanager
def store_errors() -> Iterator[Any]:
    """Turn whatever a client library raises into an `ApiError`: each library has its own tree of exceptions."""
    try:
        yield
    except ApiError:
        raise
    except Exception as error:
        raise store_unavailable() from error

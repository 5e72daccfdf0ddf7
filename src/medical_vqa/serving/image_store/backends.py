"""Where the bytes of an upload live: this process's memory, a folder, an object store through fsspec, or Redis.

A store keeps one blob per image id, whole or not at all, and forgets it after `ttl` seconds. Several servers may share
a folder, an object store or a Redis; what one has stored, all of them find. Ids are checked before they get here.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import unquote, urlsplit

from medical_vqa import registry
from medical_vqa.errors import ConfigError, DataError, MissingDependencyError
from medical_vqa.io import atomic_write
from medical_vqa.serving.errors import RefusedError

SUFFIX = ".image"
_CONNECT = 2.0  # seconds to reach a shared store
_ANSWER = 5.0  # seconds for one operation of it


class Store(Protocol):
    """Blobs by image id; every method may be called from several threads.

    The registry names stores by URL scheme, and calls them as ``Store(url, ttl=..., limit=...)``.
    """

    @property
    def waits(self) -> bool:
        """Whether calls wait for a disk or a network, and so must not run in the event loop."""

    def put(self, id_: str, blob: bytes) -> None:
        """Keep a blob; when this returns, every server on this store finds it. Raises `RefusedError` when it cannot."""

    def get(self, id_: str) -> bytes | None:
        """The blob, or None when it is not there, or no longer."""

    def has(self, id_: str) -> bool:
        """Whether `get` would find it."""

    def delete(self, id_: str) -> bool:
        """Forget it; whether it was there."""

    def sweep(self) -> int:
        """Forget what is too old or too much; how many that were. Called now and then."""

    def check(self) -> None:
        """Raise `ConfigError` when the store cannot be reached or written."""


def store_scheme(where: str) -> str:
    """The URL scheme of a setting, which is the store's name in the registry; a path without one is a folder."""
    return urlsplit(where).scheme if "://" in where else "file"


def open_store(where: str, *, ttl: float | None, limit: int) -> Store:
    """The store that a setting names, built in or of another package.

    Args:
        where: A URL, or the path of a folder.
        ttl: Seconds that a blob is kept; None: until it is deleted.
        limit: Bytes that a store in memory or in a folder holds at most.

    Raises:
        ConfigError: No store has that scheme.
        MissingDependencyError: The store's client library is not installed.
    """
    store: Store = registry.create("image_stores", store_scheme(where), where, ttl=ttl, limit=limit)
    return store


class MemoryStore:
    """In this process alone: for one instance, and gone with it."""

    waits = False

    def __init__(self, *, ttl: float | None, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl, self._limit, self._clock = ttl, limit, clock
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0
        """What is held."""

    @classmethod
    def from_url(cls, url: str, *, ttl: float | None, limit: int) -> Self:  # noqa: ARG003 - there is one memory
        """The store of ``memory://``."""
        return cls(ttl=ttl, limit=limit)

    def put(self, id_: str, blob: bytes) -> None:
        """Keep it, the least recently used making room; raises `RefusedError` when it alone is too large."""
        if len(blob) > self._limit:
            raise RefusedError(413, "too_large", "the image is larger than this server's whole memory for images")
        with self._lock:
            self._drop(id_)
            self._kept[id_] = (self._clock(), blob)
            self.bytes += len(blob)
            while self.bytes > self._limit:
                self._drop(next(iter(self._kept)))

    def get(self, id_: str) -> bytes | None:
        """The blob, now the most recently used."""
        with self._lock:
            if not self._fresh(id_):
                return None
            self._kept.move_to_end(id_)
            return self._kept[id_][1]

    def has(self, id_: str) -> bool:
        """Whether it is there."""
        with self._lock:
            return self._fresh(id_)

    def delete(self, id_: str) -> bool:
        """Forget it."""
        with self._lock:
            return self._fresh(id_) and self._drop(id_)

    def sweep(self) -> int:
        """Forget what has expired."""
        with self._lock:
            return sum(not self._fresh(id_) for id_ in list(self._kept))

    def check(self) -> None:
        """Nothing can be wrong with it."""

    def _fresh(self, id_: str) -> bool:
        entry = self._kept.get(id_)
        if entry is None:
            return False
        if self._ttl is not None and self._clock() - entry[0] > self._ttl:
            self._drop(id_)
            return False
        return True

    def _drop(self, id_: str) -> bool:
        entry = self._kept.pop(id_, None)
        self.bytes -= len(entry[1]) if entry else 0
        return entry is not None


class FolderStore:
    """A folder, perhaps on a disk that several servers mount; files are written under another name and renamed."""

    waits = True

    def __init__(self, folder: Path, *, ttl: float | None, limit: int) -> None:
        self._folder, self._ttl, self._limit = folder, ttl, limit

    @classmethod
    def from_url(cls, url: str, *, ttl: float | None, limit: int) -> Self:
        """The store of a path or a ``file://`` URL."""
        return cls(Path(unquote(url.removeprefix("file://"))).expanduser(), ttl=ttl, limit=limit)

    def put(self, id_: str, blob: bytes) -> None:
        """Keep it; raises `RefusedError` where the disk is full."""
        try:
            atomic_write(self._path(id_), blob)
        except DataError as error:
            raise unreachable(error) from error

    def get(self, id_: str) -> bytes | None:
        """The file's bytes."""
        if not self.has(id_):
            return None
        with contextlib.suppress(FileNotFoundError):
            return self._path(id_).read_bytes()
        return None

    def has(self, id_: str) -> bool:
        """Whether the file is there and young enough."""
        try:
            age = time.time() - self._path(id_).stat().st_mtime
        except OSError:
            return False
        return self._ttl is None or age <= self._ttl

    def delete(self, id_: str) -> bool:
        """Remove the file."""
        there = self.has(id_)
        self._path(id_).unlink(missing_ok=True)
        return there

    def sweep(self) -> int:
        """Remove what has expired, and then the oldest until the rest fits."""
        files = sorted((info.st_mtime, info.st_size, path) for path, info in self._files())
        total, removed, now = sum(size for _, size, _ in files), 0, time.time()
        for written, size, path in files:
            if total <= self._limit and (self._ttl is None or now - written <= self._ttl):
                break
            path.unlink(missing_ok=True)
            total, removed = total - size, removed + 1
        return removed

    def check(self) -> None:
        """Make the folder; raises `ConfigError` where it cannot be written."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigError(f"store {self._folder}: cannot be made ({error.strerror}); choose another") from error
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise ConfigError(f"store {self._folder}: cannot be written; choose another or mend its permissions")

    def _path(self, id_: str) -> Path:
        return self._folder / id_[:2] / f"{id_}{SUFFIX}"

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        found = []
        for path in self._folder.glob(f"??/*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # another server may be sweeping too
                found.append((path, path.stat()))
        return found


class ObjectStore:
    """A bucket of any object store that fsspec knows: ``s3://bucket/prefix``, ``gs://bucket/prefix``."""

    waits = True

    def __init__(self, url: str, *, ttl: float | None, limit: int) -> None:  # noqa: ARG002 - the bucket has its own
        self._url, self._ttl = url.rstrip("/"), ttl
        self._files, self._root = _filesystem(self._url)

    def put(self, id_: str, blob: bytes) -> None:
        """One object, which appears whole."""
        with reaching():
            self._files.pipe_file(self._path(id_), blob)

    def get(self, id_: str) -> bytes | None:
        """The object's bytes."""
        with reaching():
            try:
                blob: bytes = self._files.cat_file(self._path(id_))
            except FileNotFoundError:
                return None
            return blob

    def has(self, id_: str) -> bool:
        """Whether the object is there, asked anew every time."""
        with reaching():
            self._files.invalidate_cache(self._path(id_))
            return bool(self._files.exists(self._path(id_)))

    def delete(self, id_: str) -> bool:
        """Remove the object."""
        there = self.has(id_)
        with reaching(), contextlib.suppress(FileNotFoundError):
            if there:
                self._files.rm_file(self._path(id_))
        return there

    def sweep(self) -> int:
        """Remove what has expired; a lifecycle rule of the bucket does the same more cheaply."""
        if self._ttl is None:
            return 0
        with reaching():
            self._files.invalidate_cache()
            found = self._files.find(self._root, detail=True)
            old = [path for path, info in found.items() if path.endswith(SUFFIX) and _age(info) > self._ttl]
            for path in old:
                with contextlib.suppress(FileNotFoundError):
                    self._files.rm_file(path)
        return len(old)

    def check(self) -> None:
        """Write and remove a marker; raises `ConfigError` where that fails."""
        marker = f"{self._root}/.writable"
        try:
            with reaching():
                self._files.pipe_file(marker, b"")
                self._files.rm_file(marker)
        except RefusedError as error:
            raise ConfigError(f"store {self._url}: cannot be written; check its name and the credentials") from error

    def _path(self, id_: str) -> str:
        return f"{self._root}/{id_[:2]}/{id_}{SUFFIX}"


class RedisStore:
    """A Redis that several servers share; it forgets by itself."""

    waits = True

    def __init__(self, url: str, *, ttl: float | None, limit: int) -> None:  # noqa: ARG002 - Redis has its own
        try:
            import redis  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise MissingDependencyError(
                "a redis:// store needs the redis package; run: pip install 'medical-vqa[redis]'"
            ) from error
        self._ttl = ttl
        self._redis: Any = redis.Redis.from_url(
            url, socket_connect_timeout=_CONNECT, socket_timeout=_ANSWER, health_check_interval=30
        )

    def put(self, id_: str, blob: bytes) -> None:
        """Set it, with its time to live."""
        with reaching():
            self._redis.set(self._key(id_), blob, px=None if self._ttl is None else max(1, round(self._ttl * 1000)))

    def get(self, id_: str) -> bytes | None:
        """Its value."""
        with reaching():
            blob: bytes | None = self._redis.get(self._key(id_))
            return blob

    def has(self, id_: str) -> bool:
        """Whether the key exists."""
        with reaching():
            return bool(self._redis.exists(self._key(id_)))

    def delete(self, id_: str) -> bool:
        """Delete the key."""
        with reaching():
            return bool(self._redis.delete(self._key(id_)))

    def sweep(self) -> int:
        """Redis does that."""
        return 0

    def check(self) -> None:
        """Raises `ConfigError` where nothing answers."""
        try:
            with reaching():
                self._redis.ping()
        except RefusedError as error:
            raise ConfigError("store redis://: nothing answers there; check the address and the password") from error

    def _key(self, id_: str) -> str:
        return f"medical-vqa:{id_}"


def unreachable(error: Exception) -> RefusedError:
    """503: the shared store does not answer; nothing of the request was done."""
    refused = RefusedError(
        503, "not_ready", "the store of images does not answer; try again soon", {"Retry-After": "5"}
    )
    refused.__cause__ = error
    return refused


@contextlib.contextmanager
def reaching() -> Any:
    """Turn whatever a client library raises into a `RefusedError`: each has a tree of exceptions of its own."""
    try:
        yield
    except RefusedError:
        raise
    except Exception as error:
        raise unreachable(error) from error


def _filesystem(url: str) -> tuple[Any, str]:
    extra = "s3" if url.startswith("s3:") else "gcs"
    try:
        import fsspec  # noqa: PLC0415 - an extra

        options = {"connect_timeout": _CONNECT, "read_timeout": _ANSWER} if extra == "s3" else {}
        files, root = fsspec.core.url_to_fs(
            url, use_listings_cache=False, **({"config_kwargs": options} if options else {})
        )
    except ImportError as error:
        raise MissingDependencyError(f"store {url} needs a package; run: pip install 'medical-vqa[{extra}]'") from error
    return files, str(root).rstrip("/")


def _age(info: dict[str, Any]) -> float:
    for name in ("LastModified", "updated", "mtime", "created"):
        when = info.get(name)
        if isinstance(when, str):
            when = datetime.fromisoformat(when)
        if when is not None:
            return time.time() - (when.timestamp() if isinstance(when, datetime) else float(when))
    return 0.0

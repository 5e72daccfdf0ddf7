"""Uploads in a bucket of any object store that fsspec supports: ``s3://bucket/prefix``, ``gs://bucket/prefix``."""

from __future__ import annotations

import contextlib
import time
from datetime import datetime
from typing import Any

from medical_vqa.errors import ConfigError, MissingDependencyError
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.image_store.base import CONNECT_TIMEOUT, READ_TIMEOUT, SUFFIX, store_errors


class ObjectStore:
    """One object per image; not bounded, for buckets are not."""

    blocking = True

    def __init__(self, url: str, *, ttl: float | None, max_bytes: int) -> None:  # noqa: ARG002 - the bucket has its own bounds
        self._url = url.rstrip("/")
        self._ttl = ttl
        self._files, self._root = _filesystem(self._url)

    def put(self, image_id: str, blob: bytes) -> None:
        """Write one object, which appears completely."""
        with store_errors():
            self._files.pipe_file(self._path(image_id), blob)

    def get(self, image_id: str) -> bytes | None:
        """The object's bytes."""
        with store_errors():
            try:
                blob: bytes = self._files.cat_file(self._path(image_id))
            except FileNotFoundError:
                return None
            return blob

    def contains(self, image_id: str) -> bool:
        """Whether the object exists; never from fsspec's cache."""
        with store_errors():
            self._files.invalidate_cache(self._path(image_id))
            return bool(self._files.exists(self._path(image_id)))

    def delete(self, image_id: str) -> bool:
        """Remove the object."""
        if not self.contains(image_id):
            return False
        with store_errors(), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(image_id))
        return True

    def quarantine(self, image_id: str) -> None:
        """Move the object under ``damaged/``."""
        with store_errors(), contextlib.suppress(FileNotFoundError):
            self._files.mv(self._path(image_id), f"{self._root}/damaged/{image_id}.damaged")

    def sweep(self) -> int:
        """Remove expired objects; a lifecycle rule of the bucket does the same more cheaply."""
        if self._ttl is None:
            return 0
        with store_errors():
            self._files.invalidate_cache()
            objects = self._files.find(self._root, detail=True)
            expired = [path for path, info in objects.items() if path.endswith(SUFFIX) and _age(info) > self._ttl]
            for path in expired:
                with contextlib.suppress(FileNotFoundError):
                    self._files.rm_file(path)
        return len(expired)

    def check(self) -> None:
        """Write and remove a marker; raises `ConfigError` where that fails."""
        marker = f"{self._root}/.writable"
        try:
            with store_errors():
                self._files.pipe_file(marker, b"")
                self._files.rm_file(marker)
        except ApiError as error:
            raise ConfigError(f"store {self._url}: cannot be written; check its name and the credentials") from error

    def _path(self, image_id: str) -> str:
        return f"{self._root}/{image_id[:2]}/{image_id}{SUFFIX}"


def _filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path of its folder there."""
    is_s3 = url.startswith("s3:")
    timeouts = {"connect_timeout": CONNECT_TIMEOUT, "read_timeout": READ_TIMEOUT}
    options = {"config_kwargs": timeouts} if is_s3 else {}
    try:
        import fsspec  # noqa: PLC0415 - an extra

        files, root = fsspec.core.url_to_fs(url, use_listings_cache=False, **options)
    except ImportError as error:
        extra = "s3" if is_s3 else "gcs"
        raise MissingDependencyError(f"store {url} needs a package; run: pip install 'medical-vqa[{extra}]'") from error
    return files, str(root).rstrip("/")


def _age(info: dict[str, Any]) -> float:
    """Seconds since an object was written; each file system has its own name and type for that time."""
    for name in ("LastModified", "updated", "mtime", "created"):
        written = info.get(name)
        if isinstance(written, str):
            written = datetime.fromisoformat(written)
        if written is not None:
            return time.time() - (written.timestamp() if isinstance(written, datetime) else float(written))
    return 0.0

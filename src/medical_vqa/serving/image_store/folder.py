"""Uploads in a folder, perhaps on a disk that several servers mount; a file appears completely or not at all.

It is on the disk, and not only in the system's cache, before its id is returned; and it is no longer there before a
deletion is acknowledged.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Self
from urllib.parse import unquote

from medical_vqa.errors import ConfigError, DataError
from medical_vqa.io import PARTIAL, atomic_write, sync_folder
from medical_vqa.serving.image_store.base import SUFFIX, store_unavailable

DAMAGED = ".damaged"
"""Ending of a damaged blob's file."""
_PARTIAL_SECONDS = 3600.0  # far longer than a write takes
_DAMAGED_SECONDS = 7 * 86_400.0


class FolderStore:
    """One file per image; bounded by bytes at every sweep, the oldest files are removed first."""

    blocking = True

    def __init__(self, folder: Path, *, ttl: float | None, max_bytes: int) -> None:
        self._folder = folder
        self._ttl = ttl
        self._max_bytes = max_bytes
        self._durable_folders: set[Path] = set()

    @classmethod
    def from_url(cls, url: str, *, ttl: float | None, max_bytes: int) -> Self:
        """The store in a folder, named by its path or by a ``file://`` URL."""
        return cls(Path(unquote(url.removeprefix("file://"))).expanduser(), ttl=ttl, max_bytes=max_bytes)

    def put(self, image_id: str, blob: bytes) -> None:
        """Write the file; raises `ApiError` (503) where the disk is full."""
        path = self._path(image_id)
        try:
            self._make_durable(path.parent)
            atomic_write(path, blob, durable=True, private=True)
        except (DataError, OSError) as error:
            raise store_unavailable() from error

    def _make_durable(self, folder: Path) -> None:
        """Create a subfolder, and wait for the disk even where another server has created it a moment ago."""
        if folder not in self._durable_folders:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            sync_folder(self._folder)
            self._durable_folders.add(folder)

    def get(self, image_id: str) -> bytes | None:
        """The file's bytes."""
        if not self.contains(image_id):
            return None
        with contextlib.suppress(FileNotFoundError):
            return self._path(image_id).read_bytes()
        return None

    def contains(self, image_id: str) -> bool:
        """Whether the file is there and young enough."""
        try:
            age = time.time() - self._path(image_id).stat().st_mtime
        except OSError:
            return False
        return self._ttl is None or age <= self._ttl

    def delete(self, image_id: str) -> bool:
        """Remove the file; a power failure does not bring it back."""
        existed = self.contains(image_id)
        path = self._path(image_id)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            sync_folder(path.parent)
        return existed

    def quarantine(self, image_id: str) -> None:
        """Rename the file to ``*.damaged``; a sweep removes it after a week."""
        path = self._path(image_id)
        with contextlib.suppress(FileNotFoundError):
            path.replace(path.with_suffix(DAMAGED))

    def sweep(self) -> int:
        """Remove expired files, and then the oldest until the rest fits; and what crashes and damage have left."""
        for pattern, seconds in ((f"??/*{PARTIAL}", _PARTIAL_SECONDS), (f"??/*{DAMAGED}", _DAMAGED_SECONDS)):
            for path in self._folder.glob(pattern):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > seconds:
                        path.unlink()
        files = []
        for path in self._folder.glob(f"??/*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # another server may be sweeping too
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        total, removed, now = sum(size for _, size, _ in files), 0, time.time()
        for modified, size, path in sorted(files):
            if total <= self._max_bytes and (self._ttl is None or now - modified <= self._ttl):
                break
            path.unlink(missing_ok=True)
            total -= size
            removed += 1
        return removed

    def check(self) -> None:
        """Create the folder, which only its owner may enter; raises `ConfigError` where it cannot be written."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with contextlib.suppress(PermissionError):  # of another owner, who decides
                self._folder.chmod(0o700)
            sync_folder(self._folder.parent)
        except OSError as error:
            raise ConfigError(
                f"store {self._folder}: cannot be created ({error.strerror}); choose another folder"
            ) from error
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise ConfigError(f"store {self._folder}: cannot be written; choose another folder or fix its permissions")

    def _path(self, image_id: str) -> Path:
        return self._folder / image_id[:2] / f"{image_id}{SUFFIX}"

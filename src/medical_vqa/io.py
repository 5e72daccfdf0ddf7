"""Writing files so that they appear whole or not at all, and saying clearly when the disk is full."""

from __future__ import annotations

import contextlib
import errno
import hashlib
from collections.abc import Iterator
from pathlib import Path

from medical_vqa.errors import DataError


def sha256(data: bytes) -> str:
    """SHA-256 of some bytes, lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file under another name and rename it; raises `DataError` where the disk cannot take it."""
    partial = path.with_name(path.name + ".partial")
    with writing(path.parent, len(data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(data)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(folder: Path, needed: int) -> Iterator[None]:
    """Turn what the disk refuses into a `DataError` that names the folder and the bytes needed.

    Args:
        folder: Where is written.
        needed: Bytes that are about to be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"{folder}: the disk is full, {needed:,} more bytes are needed; free some space and run it again"
            ) from error
        raise DataError(
            f"{folder}: cannot be written ({error.strerror or error}); choose another folder or mend its permissions"
        ) from error

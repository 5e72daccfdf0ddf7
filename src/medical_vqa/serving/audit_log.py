"""Who asked what about which image, and what was answered: JSON lines in a folder, each chained to the one before.

    {"n": 7, "time": "2026-11-28T20:15:01.204+00:00", "event": "answer", "client": "ward-3", "tenant": "radiology",
     "request_id": "…", "image": "5c1f…", "question": "9a0b…", "answer": "MRI", "abstained": false, "reason_code": null,
     "model": "slake-compact", "model_id": "…", "previous": "…", "hash": "…"}

`hash` is the SHA-256 of the line's other fields as JSON with sorted keys, `previous` that of the line before, so a line
that is changed, removed or inserted breaks the chain. Removing the newest lines does not: note the last number and
hash, which `medical-vqa verify-audit-log` prints, elsewhere. Images and questions are digests with the folder's salt.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medical_vqa.errors import ConfigError, DataError
from medical_vqa.io import atomic_write, file_lock, remove_half_line

MAX_FILE_BYTES = 64 << 20
"""Size at which the next file begins."""
_START = "0" * 64  # stands before the first line
_SALT = "salt"
_LOCK = "lock"
_PROBE = "probe"
_PROBE_BYTES = 64 * 1024  # more than most lines
_TAIL = 1 << 20  # bytes: more than the longest line


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """The newest line of a log."""

    count: int = 0
    """Number of lines, and of the newest."""
    hash: str = _START
    """Its hash."""


class AuditLog:
    """Appends to a folder; another process that writes it too, as while a server is replaced, continues the chain."""

    def __init__(self, folder: Path, *, with_text: bool = False, max_file_bytes: int = MAX_FILE_BYTES) -> None:
        """Continue the log of a folder, or begin one.

        Args:
            folder: Created where there is none.
            with_text: Whether questions are written in words and not as digests.
            max_file_bytes: Size at which the next file begins.

        Raises:
            ConfigError: The folder cannot be written.
            DataError: The log in it has been changed.
        """
        self._folder = folder
        self._with_text = with_text
        self._max_file_bytes = max_file_bytes
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with file_lock(folder / _LOCK):
                self._salt = _salt(folder)
                _remove_half_line(folder)
                self._end = verify(folder)
                self._written = _state(folder)
        except OSError as error:
            message = f"audit log {folder}: cannot be written ({error.strerror}); choose another folder"
            raise ConfigError(message) from error

    def digest(self, text: str) -> str:
        """A digest that cannot be looked up without the folder's salt."""
        return hashlib.sha256(f"{self._salt}/{text}".encode()).hexdigest()[:32]

    def question(self, text: str) -> str:
        """A question as the log shows it."""
        return text if self._with_text else self.digest(text)

    def write(self, event: str, **fields: Any) -> None:
        """Append one line, as `write_all` does."""
        self.write_all(event, [fields])

    def write_all(self, event: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Append the lines of one request; they are with the operating system when this returns.

        Args:
            event: What was done.
            lines: The other fields of each line.

        Raises:
            OSError: They cannot be written, and nothing of any is there.
        """
        with self._lock, file_lock(self._folder / _LOCK):
            self._follow()
            end, written = self._end, b""
            for fields in lines:
                record = {
                    "n": end.count + 1,
                    "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                    "event": event,
                    **fields,
                    "previous": end.hash,
                }
                record["hash"] = _hash(record)
                written += json.dumps(record, ensure_ascii=False).encode() + b"\n"
                end = ChainEnd(record["n"], record["hash"])
            _append(self._file(), written)
            self._end = end
            self._written = _state(self._folder)

    def check(self) -> None:
        """Raise `OSError` where a line could not be written: the newest file, or the disk, takes none."""
        with self._lock, file_lock(self._folder / _LOCK):
            with self._file().open("ab"):
                pass
            probe = self._folder / _PROBE
            try:
                _append(probe, bytes(_PROBE_BYTES))
            finally:
                probe.unlink(missing_ok=True)

    def _follow(self) -> None:
        """Continue behind what another process has written since; lines that were removed still break the chain."""
        state = _state(self._folder)
        if state is None or state == self._written:
            return
        _remove_half_line(self._folder)
        newest = _newest(state[0])
        if newest.count > self._end.count:
            self._end = newest

    def _file(self) -> Path:
        files = _files(self._folder)
        if files and files[-1].stat().st_size < self._max_file_bytes:
            return files[-1]
        return self._folder / f"audit-{len(files) + 1:06}.jsonl"


def verify(folder: Path) -> ChainEnd:
    """Follow the chain through all files of a folder.

    Returns:
        The newest line.

    Raises:
        DataError: A line is not the one that was written after the line before.
    """
    if not folder.is_dir():
        raise DataError(f"audit log {folder}: expected a folder; name the one that MEDICAL_VQA_AUDIT_LOG names")
    end = ChainEnd()
    for place, line in _lines(folder):
        record: Any = None
        with contextlib.suppress(ValueError):
            record = json.loads(line)
        fits = isinstance(record, dict) and record.get("previous") == end.hash and record.get("n") == end.count + 1
        if not fits or record.get("hash") != _hash(record):
            raise DataError(f"audit log {place}: this line is not the one that was written; the lines before it are")
        end = ChainEnd(record["n"], record["hash"])
    return end


def _lines(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in _files(folder):
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield f"{path}, line {number}", line


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("audit-*.jsonl"))


def _hash(record: dict[str, Any]) -> str:
    content = {name: value for name, value in record.items() if name != "hash"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _state(folder: Path) -> tuple[Path, int] | None:
    """The newest file and its size, which change with every line."""
    files = _files(folder)
    return (files[-1], files[-1].stat().st_size) if files else None


def _newest(path: Path) -> ChainEnd:
    """The last line of a file; one before it was verified, or written here."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        tail = file.read()
    try:
        record = json.loads(tail[: tail.rfind(b"\n")].rpartition(b"\n")[2] or b"null")
        return ChainEnd(record["n"], record["hash"])
    except (ValueError, TypeError, KeyError):
        return ChainEnd()


def _append(path: Path, line: bytes) -> None:
    """Append a line; of one that does not fit on the disk nothing stays."""
    size = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab") as file:
            file.write(line)
    except OSError:
        with contextlib.suppress(OSError):
            os.truncate(path, size)
        raise


def _salt(folder: Path) -> str:
    """The folder's salt, made where there is none."""
    path = folder / _SALT
    if not path.exists() or not path.read_bytes():  # a full disk has left an empty file
        atomic_write(path, secrets.token_hex(32).encode(), private=True)
    return path.read_text(encoding="ascii")


def _remove_half_line(folder: Path) -> None:
    """Remove what a crash has left of a line that was being written: its request was not answered."""
    for path in _files(folder)[-1:]:
        remove_half_line(path)

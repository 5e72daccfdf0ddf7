"""Files and calls that may fail: atomic writes, hashes, locks between processes, retries."""

from __future__ import annotations

import contextlib
import errno
import gc
import hashlib
import json
import math
import os
import reprlib
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from numbers import Number
from pathlib import Path
from typing import Any, TypeVar

from medical_vqa.errors import ConfigError, DataError

PARTIAL = ".partial"
"""Ending of a file that is being written; one is left where a process is killed meanwhile."""
_FILE_MODE = 0o666  # of a new file, less the umask
Result = TypeVar("Result")


# --- paths ------------------------------------------------------------------------------------------------------------


def as_path(value: object, what: str, advice: str = "pass one") -> Path:
    """A path that a person passed as text or as a path object, with ``~`` expanded.

    Args:
        value: The text or path object.
        what: Name of the argument, for the message.
        advice: What to pass in place of something else, for the message.

    Raises:
        ConfigError: It is neither, or it is empty.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ConfigError(f"{what}: expected a path as text or as pathlib.Path, got {received(value)}; {advice}")
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises for a user that does not exist


def received(value: object) -> str:
    """What a person passed, as a message repeats it: in one short line, or by its type if it is no plain value."""
    if type(value).__module__ == "builtins" or isinstance(value, os.PathLike | Number):
        text = " ".join(reprlib.repr(value).split())
        if not text.startswith("<"):
            return text
    return f"an object of type {type(value).__name__}"


# --- hashes -----------------------------------------------------------------------------------------------------------


def sha256(data: bytes) -> str:
    """SHA-256 of some bytes, lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- JSON -------------------------------------------------------------------------------------------------------------


def json_value(text: str, *, finite: bool = False) -> Any:
    """The value of a JSON text, with or without a byte order mark before it.

    A key that stands twice in an object is refused: programs disagree on which of the two values counts.

    Args:
        text: The text.
        finite: Whether to refuse ``NaN`` and ``Infinity``, which are no JSON but which many programs write.

    Raises:
        ValueError: It is not JSON or holds what Python cannot, with the reason in a few words.
    """
    try:
        text = text.removeprefix("\ufeff")
        if finite:
            return json.loads(
                text, parse_constant=_no_number, parse_float=_finite_number, object_pairs_hook=_unique_keys
            )
        return json.loads(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        only_zeros = "\0" in text and not text.strip("\0 \r\n\t")
        raise ValueError("only zero bytes, as an interrupted write leaves them" if only_zeros else error.msg) from error
    except RecursionError as error:
        raise ValueError("lists or objects nested too deeply") from error
    except _RefusedValueError:
        raise
    except ValueError as error:  # Python limits the length, which costs time in proportion to its square
        raise ValueError("a whole number of more than 4,300 digits") from error


class _RefusedValueError(ValueError):
    """A number that is none or too large, or an object with a key that stands in it twice."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in content if keys.count(key) > 1)
        raise _RefusedValueError(f"the key {twice!r} occurs twice in one object: keep one of them")
    return content


def _no_number(name: str) -> float:
    raise _RefusedValueError(f"{name} is no number in JSON")


def _finite_number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _RefusedValueError(f"the number {text} is too large")
    return value


def json_type(value: object) -> str:
    """What a message calls the type of a JSON value: ``null``, ``a list``, ``an object``, ``an empty text`` ..."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text" if value.strip() else "an empty text"
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, list | tuple) else type(value).__name__


# --- atomic writes ----------------------------------------------------------------------------------------------------


def atomic_write(path: Path, content: bytes | str, *, durable: bool = False, private: bool = False) -> None:
    """Write a file completely or not at all; readers see the old content or the new, never a part.

    Args:
        path: The file; its folder is created.
        content: Bytes, or text that is written as UTF-8 with its line ends unchanged.
        durable: Whether to wait until the disk has the data (fsync), so that it survives a power failure, in a folder
            that does.
        private: Whether only this user may read the file, and a folder that is created for it.

    Raises:
        DataError: The disk is full or the folder cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    with describe_disk_errors(path.parent, len(data)):
        if private:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with atomic_path(path, durable=durable) as temporary:
            if private:
                temporary.touch(mode=0o600)
            temporary.write_bytes(data)


@contextlib.contextmanager
def atomic_path(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A temporary path in the same folder, renamed to `path` when the block ends and removed when it fails.

    For content that is streamed or written by another library; `atomic_write` is simpler for bytes and text.

    Args:
        path: The file to appear; its folder is created.
        durable: Whether to wait until the disk has the data (fsync) before the rename, and the name after it; not
            the name of a folder that is created.

    Raises:
        DataError: The path is that of a folder, a device or a pipe, which the rename would replace.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a device or a pipe"
        raise DataError(f"{path} is {kind}; expected the path of a file to write, name one")
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def use_default_modes(folder: Path) -> None:
    """Give the files in a new folder the mode of new files (by the umask, as the folder has): safetensors makes files
    that only their owner reads, and copies of a read-only folder cannot be changed."""
    folder.chmod(folder.stat().st_mode | stat.S_IRWXU)
    for path in folder.iterdir():
        path.chmod(folder.stat().st_mode & _FILE_MODE)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder; Windows has no such call, and keeps them in its journal.

    A folder that was created is a name in the one above it, which must be synced too.
    """
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def describe_disk_errors(folder: Path, bytes_needed: int) -> Iterator[None]:
    """Turn an `OSError` of the block into a `DataError` that names the folder and, on a full disk, the bytes needed.

    Args:
        folder: The folder that the block writes to.
        bytes_needed: How many bytes it is about to write.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            needed = f", {bytes_needed:,} more bytes are needed" if bytes_needed else ""
            raise DataError(f"{folder}: the disk is full{needed}; free some space and run it again") from error
        raise DataError(
            f"{folder}: cannot be written ({error.strerror or error}); choose another folder or change its permissions"
        ) from error


@contextlib.contextmanager
def describe_read_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block, which reads a file, into a `DataError` that names it."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error


# --- locks ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold a lock between threads and processes on every platform; waits until the current holder releases it.

    Args:
        path: The lock file; its folder is created. It holds nothing and may be deleted while nobody works there.
    """
    from filelock import FileLock  # noqa: PLC0415 - takes 0.1 s to import, and most commands lock nothing

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Hold a lock between threads and processes if nobody else does; the system releases that of a process that dies.

    Args:
        path: The lock file, in a folder that exists.

    Yields:
        Whether the lock is held; False too where the folder is gone.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415 - as above

    if not path.parent.is_dir():
        yield False
        return
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except (Timeout, OSError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


# --- retries ----------------------------------------------------------------------------------------------------------


class TemporaryFailure(Exception):  # noqa: N818 - it carries the error, and never leaves `retry`
    """Raised by a call under `retry` to be repeated; after the last attempt `error` is raised instead."""

    def __init__(self, error: Exception, retry_after: str | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after = retry_after
        """Seconds that the other side asks to wait, as in the HTTP header of that name."""


def retry(
    call: Callable[[], Result],
    *,
    attempts: int,
    first_wait: float,
    longest_wait: float,
    sleep: Callable[[float], None] = time.sleep,
) -> Result:
    """Repeat a call that raises `TemporaryFailure`, waiting as long as it asks or twice as long each time.

    Args:
        call: Returns the result, or raises `TemporaryFailure`; any other exception passes through at once.
        attempts: How often to call it, at least 1.
        first_wait: Seconds before the second attempt.
        longest_wait: Upper limit of every wait, in seconds.
        sleep: Waits; replaced in tests.

    Raises:
        Exception: The last attempt's error.
    """
    for attempt in range(1, attempts + 1):
        try:
            return call()
        except TemporaryFailure as failure:
            if attempt == attempts:
                raise failure.error from failure.__cause__
            sleep(_seconds_to_wait(failure.retry_after, first_wait * 2 ** (attempt - 1), longest_wait))
    raise ValueError(f"expected at least one attempt, got {attempts}")


def _seconds_to_wait(retry_after: str | None, backoff: float, longest: float) -> float:
    try:
        return min(max(float(retry_after or ""), 0.0), longest)
    except ValueError:  # none, or a date, which the servers in question do not send
        return min(backoff, longest)


def remove_half_line(path: Path) -> None:
    """Remove what a crash has left of the last line of a file that is appended to; a missing file is left missing."""
    with contextlib.suppress(FileNotFoundError), path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def file_name(text: str) -> str:
    """A text as part of a file's name: a dash for each character that is no letter, digit, dot or dash."""
    return "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in text)


# --- memory -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Pause the search for reference cycles, which takes a fifth of the time where millions of rows are made."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

"""Atomic writes, locks and retries."""

from __future__ import annotations

import ast
import errno
import gc
import os
import threading
from pathlib import Path

import pytest

from medical_vqa.errors import DataError
from medical_vqa.io import (
    TemporaryFailure,
    atomic_path,
    atomic_write,
    describe_disk_errors,
    file_lock,
    retry,
    sha256,
    sha256_file,
    try_lock,
    without_garbage_collection,
)

SOURCE = Path(__file__).parents[1] / "src"


def test_a_write_replaces_the_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "card.json"
    atomic_write(path, b"old")
    atomic_write(path, "Größe\n", durable=True)
    assert path.read_bytes() == "Größe\n".encode()
    assert list(path.parent.iterdir()) == [path]
    assert sha256_file(path) == sha256(path.read_bytes())


def test_a_write_that_fails_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    atomic_write(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("the writer failed")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full, 3 more bytes are needed; free some space"),
        (errno.EROFS, "cannot be written .*; choose another folder or change its permissions"),
    ],
)
def test_a_disk_that_refuses_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DataError, match=message):
        atomic_write(tmp_path / "file", "abc", durable=True)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_described_also_where_it_is_not_known_how_much_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the disk is full; free some space"), describe_disk_errors(tmp_path, 0):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_lock_is_held_by_one_thread_at_a_time(tmp_path: Path) -> None:
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        waiting.set()
        with file_lock(tmp_path / "folder" / "lock"):
            order.append("second")

    thread = threading.Thread(target=second)
    with file_lock(tmp_path / "folder" / "lock"):
        thread.start()
        waiting.wait()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_no_module_imports_the_locks_of_one_platform() -> None:
    imported = {
        name.name
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import)
        for name in node.names
    }
    assert not imported & {"fcntl", "msvcrt"}


def failing(*failures: Exception):
    remaining = list(failures)

    def call() -> str:
        if remaining:
            raise remaining.pop(0)
        return "answer"

    return call


def test_a_temporary_failure_is_repeated_after_twice_as_long_or_as_long_as_asked() -> None:
    waits: list[float] = []
    busy = [TemporaryFailure(OSError("busy"), after) for after in (None, None, "7", "-1", "soon", "900")]
    answer = retry(failing(*busy), attempts=7, first_wait=1.0, longest_wait=60.0, sleep=waits.append)
    assert (answer, waits) == ("answer", [1.0, 2.0, 7.0, 0.0, 16.0, 60.0])


def test_the_last_failure_is_raised_and_a_lasting_one_at_once() -> None:
    waits: list[float] = []
    settings = {"attempts": 2, "first_wait": 1.0, "longest_wait": 60.0, "sleep": waits.append}
    with pytest.raises(OSError, match="still busy"):
        retry(failing(TemporaryFailure(OSError("busy")), TemporaryFailure(OSError("still busy"))), **settings)
    assert waits == [1.0]
    with pytest.raises(KeyError):
        retry(failing(KeyError("wrong")), **settings)
    assert waits == [1.0]


def test_garbage_collection_goes_on_after_an_error() -> None:
    with pytest.raises(DataError), without_garbage_collection():
        assert not gc.isenabled()
        raise DataError("damaged")
    assert gc.isenabled()


def test_a_lock_that_is_held_is_not_waited_for(tmp_path: Path) -> None:
    with try_lock(tmp_path / "lock") as first, try_lock(tmp_path / "lock") as second:
        assert (first, second) == (True, False)
    with try_lock(tmp_path / "lock") as again:
        assert again
    with try_lock(tmp_path / "gone" / "lock") as gone:
        assert not gone

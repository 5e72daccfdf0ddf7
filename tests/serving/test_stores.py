"""Every store keeps the same contract."""

from __future__ import annotations

import contextlib
import os
import sys
import time

import pytest
from shared_stores import bucket, redis_url

from medical_vqa.errors import ConfigError
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.image_store.base import open_store
from medical_vqa.serving.image_store.folder import FolderStore
from medical_vqa.serving.image_store.memory import MemoryStore

ID, OTHER = "a" * 24 + "-" + "B" * 22, "c" * 24 + "-" + "D" * 22


@pytest.fixture(params=["memory", "folder", "s3", "redis"])
def url(request, tmp_path):
    with contextlib.ExitStack() as stack:
        yield {
            "memory": lambda: "memory://",
            "folder": lambda: f"file://{tmp_path / 'up loads'}",
            "s3": lambda: stack.enter_context(bucket()),
            "redis": lambda: stack.enter_context(redis_url()),
        }[request.param]()


def opened(url, ttl=3600.0):
    store = open_store(url, ttl=ttl, max_bytes=1 << 20)
    store.check()
    return store


def test_what_is_put_is_there_and_what_is_deleted_is_gone(url):
    store = opened(url)
    assert store.get(ID) is None and not store.contains(ID) and not store.delete(ID)
    store.put(ID, b"\x00blob")
    store.put(OTHER, b"other")
    assert store.get(ID) == b"\x00blob" and store.contains(ID)
    assert store.delete(ID)
    assert store.get(ID) is None and not store.contains(ID)
    assert store.get(OTHER) == b"other"


def test_what_is_too_old_is_gone(url):
    store = opened(url, ttl=1.0)
    store.put(ID, b"blob")
    time.sleep(2.1 if url.startswith("s3") else 1.2)  # S3 gives whole seconds
    store.sweep()
    assert store.get(ID) is None and not store.contains(ID)


def test_memory_expires_by_its_clock_and_counts_what_it_sweeps():
    now = [0.0]
    store = MemoryStore(ttl=10.0, max_bytes=250, clock=lambda: now[0])
    store.put("one", b"blob")
    now[0] = 9.0
    store.put("two", b"blob")
    assert store.get("one") == b"blob"
    now[0] = 11.0
    assert not store.contains("one") and not store.delete("one") and store.contains("two")
    assert store.sweep() == 1
    assert store.size == 4


def test_memory_is_bounded_and_the_least_recently_used_goes_first():
    store = MemoryStore(ttl=None, max_bytes=250)
    for name in ("one", "two"):
        store.put(name, bytes(100))
    store.get("one")
    store.put("three", bytes(100))
    assert [store.contains(name) for name in ("one", "two", "three")] == [True, False, True]
    assert store.size == 200
    with pytest.raises(ApiError):
        store.put("four", bytes(300))


@pytest.mark.skipif(sys.platform == "win32", reason="has no modes")
def test_a_stored_blob_is_its_owners_alone_also_in_a_folder_that_was_open(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir(mode=0o755)
    store = FolderStore(folder, ttl=None, max_bytes=1000)
    store.check()
    store.put("abc", b"blob")
    modes = {path.name: path.stat().st_mode & 0o777 for path in [folder, *folder.rglob("*")]}
    assert modes == {"store": 0o700, "ab": 0o700, "abc.image": 0o600}


def test_a_folder_is_bounded_and_the_oldest_goes_first(tmp_path):
    store = FolderStore(tmp_path, ttl=None, max_bytes=250)
    for age, id_ in ((3, "aa1"), (2, "bb2"), (1, "cc3")):
        store.put(id_, bytes(100))
        os.utime(store._path(id_), (time.time() - age,) * 2)
    assert store.sweep() == 1
    assert [store.contains(id_) for id_ in ("aa1", "bb2", "cc3")] == [False, True, True]


@pytest.mark.parametrize("address", ["redis://127.0.0.1:1/0", "/proc/nowhere/uploads"])
def test_a_store_that_cannot_be_reached_stops_the_start(address):
    with pytest.raises(ConfigError):
        open_store(address, ttl=None, max_bytes=1 << 20).check()


def test_an_unknown_scheme_names_the_nearest():
    with pytest.raises(ConfigError, match="unknown image store 'rediz'; did you mean 'redis"):
        open_store("rediz://127.0.0.1", ttl=None, max_bytes=1 << 20)


def test_a_store_that_stops_answering_is_503_and_not_a_crash():
    with redis_url() as address:
        store = opened(address)
    with pytest.raises(ApiError) as refused:
        store.get(ID)
    assert (refused.value.status, refused.value.code) == (503, "not_ready")

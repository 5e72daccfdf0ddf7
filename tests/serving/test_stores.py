"""Every store keeps one contract; blobs of images survive it."""

from __future__ import annotations

import contextlib
import os
import time

import pytest
from shared_stores import bucket, redis_url

from medical_vqa.errors import ConfigError
from medical_vqa.serving.errors import RefusedError
from medical_vqa.serving.image_store.backends import FolderStore, MemoryStore, open_store

ID, OTHER = "a" * 24 + "-" + "B" * 22, "c" * 24 + "-" + "D" * 22


@pytest.fixture(params=["memory", "folder", "s3", "redis"])
def where(request, tmp_path):
    with contextlib.ExitStack() as stack:
        yield {
            "memory": lambda: "memory://",
            "folder": lambda: f"file://{tmp_path / 'up loads'}",
            "s3": lambda: stack.enter_context(bucket()),
            "redis": lambda: stack.enter_context(redis_url()),
        }[request.param]()


def opened(where, ttl=3600.0, limit=1 << 20):
    store = open_store(where, ttl=ttl, limit=limit)
    store.check()
    return store


def test_what_is_put_is_found_and_what_is_deleted_is_gone(where):
    store = opened(where)
    assert store.get(ID) is None and not store.has(ID) and not store.delete(ID)
    store.put(ID, b"\x00blob")
    store.put(OTHER, b"other")
    assert store.get(ID) == b"\x00blob" and store.has(ID)
    assert store.delete(ID)
    assert store.get(ID) is None and not store.has(ID)
    assert store.get(OTHER) == b"other"


def test_what_is_too_old_is_gone(where):
    store = opened(where, ttl=1.0)
    store.put(ID, b"blob")
    if where.startswith("memory"):
        store._clock = lambda: time.monotonic() + 2
    else:
        time.sleep(1.2 if where.startswith("redis") else 2.1)  # S3 gives whole seconds
    store.sweep()
    assert store.get(ID) is None and not store.has(ID)


def test_memory_is_bounded_and_the_least_recently_used_goes_first():
    store = MemoryStore(ttl=None, limit=250)
    for name in ("one", "two"):
        store.put(name, bytes(100))
    store.get("one")
    store.put("three", bytes(100))
    assert [store.has(name) for name in ("one", "two", "three")] == [True, False, True]
    assert store.bytes == 200
    with pytest.raises(RefusedError):
        store.put("four", bytes(300))


def test_a_folder_is_bounded_and_the_oldest_goes_first(tmp_path):
    store = FolderStore(tmp_path, ttl=None, limit=250)
    for age, id_ in ((3, "aa1"), (2, "bb2"), (1, "cc3")):
        store.put(id_, bytes(100))
        os.utime(store._path(id_), (time.time() - age,) * 2)
    assert store.sweep() == 1
    assert [store.has(id_) for id_ in ("aa1", "bb2", "cc3")] == [False, True, True]


@pytest.mark.parametrize("where", ["redis://127.0.0.1:1/0", "/proc/nowhere/uploads"])
def test_a_store_that_cannot_be_reached_stops_the_start(where):
    with pytest.raises(ConfigError):
        open_store(where, ttl=None, limit=1 << 20).check()


def test_an_unknown_scheme_names_the_nearest():
    with pytest.raises(ConfigError, match="unknown image store 'rediz'; did you mean 'redis"):
        open_store("rediz://127.0.0.1", ttl=None, limit=1 << 20)


def test_a_store_that_stops_answering_is_503_and_not_a_crash():
    with redis_url() as where:
        store = opened(where)
    with pytest.raises(RefusedError) as refused:
        store.get(ID)
    assert (refused.value.status, refused.value.code) == (503, "not_ready")

"""What was acknowledged is there, undamaged; what is damaged is never answered from."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import live
import power_loss
import pytest
from echo_model import make_engine, wait_until
from live import Connection, png
from shared_stores import redis_url

from medical_vqa import io
from medical_vqa.serving.image_store.base import store_unavailable
from medical_vqa.serving.image_store.folder import FolderStore
from medical_vqa.serving.image_store.memory import MemoryStore

ID = "a" * 24 + "-" + "B" * 22


def uploaded(url, gray=100):
    return live.request("POST", f"{url}/upload_image", files={"image_file": png(gray)}).json()["image_id"]


def asked(url, image_id):
    return live.request("POST", f"{url}/ask_question", json={"image_id": image_id, "question": "q"})


def flip(path: Path, position: float, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[int(position * (len(content) - 1))] ^= 1 << bit
    path.write_bytes(content)


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0.0, 0.01, 0.2, 0.5, 0.8, 1.0])
def test_a_flipped_bit_is_never_answered_from_and_the_blob_is_quarantined(tmp_path, position):
    with live.serving(make_engine(), store=FolderStore(tmp_path, ttl=None, max_bytes=1 << 20)) as url:
        image_id = uploaded(url)
    (file,) = tmp_path.glob("??/*")
    flip(file, position)
    with live.serving(make_engine(), store=FolderStore(tmp_path, ttl=None, max_bytes=1 << 20)) as url:
        assert [asked(url, image_id).status_code for _ in range(2)] == [404, 404]
        assert live.request("GET", f"{url}/images/{image_id}/picture").status_code == 404
        assert "medical_vqa_damaged_blobs_total 1.0" in live.request("GET", f"{url}/metrics").text
    assert [path.suffix for path in tmp_path.glob("??/*")] == [".damaged"]


@pytest.mark.parametrize("content", [b"", b"x", bytes(200), b"mvqa-1\r\n"])
def test_a_blob_that_is_no_blob_is_quarantined(tmp_path, content):
    store = FolderStore(tmp_path, ttl=None, max_bytes=1 << 20)
    store.put(ID, content)
    with live.serving(make_engine(), store=store) as url:
        assert asked(url, ID).status_code == 404
    assert store.get(ID) is None


def test_the_blob_of_another_image_is_damage(tmp_path):
    store = FolderStore(tmp_path, ttl=None, max_bytes=1 << 20)
    with live.serving(make_engine(), store=store) as url:
        one, two = uploaded(url, 1), uploaded(url, 2)
        store.put(one, store.get(two))
        assert live.request("GET", f"{url}/images/{one}/picture").status_code == 404
        assert asked(url, two).json()["answer"] == "2 q"


def test_a_quarantined_blob_is_gone_in_every_store(tmp_path):
    from medical_vqa.serving.image_store.redis_store import RedisStore

    with redis_url() as address:
        for store in (
            MemoryStore(ttl=None, max_bytes=100),
            FolderStore(tmp_path, ttl=None, max_bytes=100),
            RedisStore(address, ttl=None, max_bytes=100),
        ):
            store.put(ID, b"blob")
            store.quarantine(ID)
            store.quarantine(ID)
            assert store.get(ID) is None and not store.contains(ID)


# --- what is left behind ----------------------------------------------------------------------------------------------


def test_a_sweep_removes_what_a_killed_writer_has_left(tmp_path):
    store = FolderStore(tmp_path, ttl=None, max_bytes=100)
    store.put("aa1", b"blob")
    old, new = tmp_path / "aa" / "aa2.image.0.partial", tmp_path / "aa" / "aa3.image.0.partial"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    store.sweep()
    assert (old.exists(), new.exists(), store.contains("aa1")) == (False, True, True)


def test_the_image_that_is_asked_about_most_is_not_the_first_to_go():
    with live.serving(make_engine(), store=MemoryStore(ttl=None, max_bytes=3_000)) as url:
        popular = uploaded(url)
        for gray in range(10):
            uploaded(url, gray)
            assert asked(url, popular).status_code == 200


# --- durability -------------------------------------------------------------------------------------------------------


def test_the_disk_has_content_and_every_name_before_a_write_returns(tmp_path, monkeypatch):
    """What a power failure would leave: a content at the time of its fsync, and names at those of their folders."""
    contents: dict[int, bytes] = {}
    names: dict[Path, set[str]] = {}

    def fsync(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            names[path] = {entry.name for entry in path.iterdir()}
        else:
            contents[path.stat().st_ino] = path.read_bytes()

    monkeypatch.setattr(io.os, "fsync", fsync)
    store = FolderStore(tmp_path / "store", ttl=None, max_bytes=100)
    store.check()
    store.put("aa1", b"blob")
    file = tmp_path / "store" / "aa" / "aa1.image"
    assert contents[file.stat().st_ino] == b"blob"
    assert all(path.name in names[path.parent] for path in (file, file.parent, file.parent.parent))
    store.delete("aa1")
    assert names[file.parent] == set()  # a power failure does not bring back what was deleted


USE = """
import sys
from pathlib import Path
from medical_vqa.serving.image_store.folder import FolderStore
store = FolderStore(Path(sys.argv[1]), ttl=None, max_bytes=1 << 30)
sys.stdin.readline()
for n in range(12):
    store.put(f"{n % 5 + 10}-{n}", b"%d" % n * 500)
    print("HTTP/1.1 200 OK", flush=True)  # what the recording takes for an acknowledgment
"""


@pytest.mark.skipif(not power_loss.available(), reason="needs strace and the right to trace: apt-get install strace")
def test_no_acknowledged_write_is_lost_or_torn_by_a_power_failure_at_any_moment(tmp_path):
    root = tmp_path / "store"
    root.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", USE, str(root)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as writer:
        assert writer.stdin is not None
        disk, recording = power_loss.Disk(root), power_loss.Recording(writer.pid, tmp_path / "calls")
        writer.stdin.write("\n")
    lines = recording.lines()
    acknowledged = [line for line, _, _ in power_loss.responses(lines)]
    assert len(acknowledged) == 12
    for moment in disk.replay(lines, range(0, len(lines), 5)):
        left = tmp_path / f"left{moment}"
        disk.leave(left, root, random.Random(moment))
        store = FolderStore(left, ttl=None, max_bytes=1 << 30)
        count = sum(line < moment for line in acknowledged)
        assert all(store.get(f"{n % 5 + 10}-{n}") == b"%d" % n * 500 for n in range(count))
        assert all(path.read_bytes() == (root / path.relative_to(left)).read_bytes() for path in left.rglob("*.image"))


WRITER = """
import sys
from pathlib import Path
from medical_vqa.serving.image_store.folder import FolderStore
store = FolderStore(Path(sys.argv[1]), ttl=None, max_bytes=1 << 30)
for n in range(100_000):
    name = f"{n % 90 + 10}-{sys.argv[2]}-{n}"
    store.put(name, name.encode() * 500)
    print(name, flush=True)
"""


def test_no_acknowledged_write_is_lost_when_its_writer_is_killed(tmp_path):
    acknowledged = []
    for turn in range(4):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(turn)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(random.Random(turn).randrange(20, 80)):
                acknowledged.append(writer.stdout.readline().strip())
            writer.send_signal(signal.SIGKILL)
            acknowledged += writer.stdout.read().split("\n")[:-1]
    store = FolderStore(tmp_path, ttl=None, max_bytes=1 << 30)
    assert len(acknowledged) > 80
    assert all(store.get(name) == name.encode() * 500 for name in acknowledged)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_many_questions_beyond_the_queue_are_429_and_not_500():
    from echo_model import Echo

    model = Echo(hold=True)
    engine = make_engine(model, queue_size=4)

    async def work(url, image_id):
        async with Connection(url) as busy, Connection(url) as many:
            first = asyncio.create_task(busy.send(live.question(image_id, "first?")))
            await model.begun()
            body = b'{"image_id":"%b","questions":[%b]}' % (
                image_id.encode(),
                b",".join(b'"q%d"' % n for n in range(32)),
            )
            result = await many.send(live.post("/ask_questions", body, "application/json"))
            await wait_until(lambda: all(work.future.cancelled() for work in engine.scheduler.queued()))
            model.release()
            await first
            return result

    with live.serving(engine) as url:
        image_id = uploaded(url)
        status, headers, body = asyncio.run(work(url, image_id))
    assert status == 429 and b'"overloaded"' in body
    assert headers["x-request-id"] and headers["x-content-type-options"] == "nosniff"


def test_a_store_that_is_down_makes_the_server_unready_and_its_cause_is_logged_once(capsys):
    from medical_vqa.errors import ConfigError
    from medical_vqa.serving.logs import configure_logging

    class Down(MemoryStore):
        down = False

        def check(self):
            if self.down:
                raise ConfigError("the disk is gone")

        def put(self, image_id, blob):
            try:
                raise OSError(28, "No space left on device")
            except OSError as error:
                raise store_unavailable() from error

    import io as text_io
    import logging

    root, stream = logging.getLogger(), text_io.StringIO()
    handlers, level = root.handlers, root.level
    configure_logging("info", stream)
    store = Down(ttl=None, max_bytes=1 << 20)
    try:
        with live.serving(make_engine(), store=store) as url:
            assert live.request("GET", f"{url}/readyz").status_code == 200
        with live.serving(make_engine(), store=store) as url:
            store.down = True
            reply = live.request("GET", f"{url}/readyz")
            assert (reply.status_code, reply.json()["detail"]["code"]) == (503, "not_ready")
            assert live.request("POST", f"{url}/upload_image", files={"image_file": png()}).status_code == 503
    finally:
        root.handlers, root.level = handlers, level
    lines = [line for line in stream.getvalue().splitlines() if "No space left" in line]
    assert len(lines) == 1 and '"request_id"' in lines[0]

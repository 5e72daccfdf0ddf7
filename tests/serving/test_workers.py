"""Several processes of one server: they share address, store and counts, and one that is killed is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import time

import live
import psutil
import pytest
from live import Connection, Instance, png, question, upload

from medical_vqa.errors import ConfigError
from medical_vqa.serving.settings import MEBIBYTE, read_settings
from medical_vqa.serving.workers import Workers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "workers share no store in memory; set store to a folder"),
        ({"store": "x", "rate_limit": "60/minute"}, "count rates together in a redis:// store alone"),
        ({"store": "x", "page": True}, "page needs one process"),
        ({"store": "x", "audit_log": "log"}, "audit_log needs one process"),
        ({"store": "x", "memory_bytes": 700 * MEBIBYTE}, "each worker needs 512 MiB of memory_bytes, which allow 1"),
    ],
)
def test_what_processes_would_not_know_of_each_other_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        read_settings({}, workers=2, **options)


def test_workers_divide_the_memory_and_the_limits_that_follow_from_it():
    settings = read_settings({}, workers=4, store="x", memory_bytes=4096 * MEBIBYTE, batch_size=3)
    one = settings.for_one_worker()
    assert (one.memory_bytes, one.workers, one.batch_size) == (1024 * MEBIBYTE, 4, 3)
    assert one.max_upload_bytes == settings.max_upload_bytes // 4


def workers(instance):
    found = []
    for child in psutil.Process(instance.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # also where it has ended a moment ago
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def lives(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def wait(condition):
    until = time.monotonic() + 2 * live.PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


async def uploads(url, count):
    async with Connection(url) as connection:
        replies = [await connection.send(upload(png(number))) for number in range(count)]
    assert [status for status, _, _ in replies] == [200] * count
    return [json.loads(body)["image_id"] for _, _, body in replies]


async def statuses(url, ids):
    """Of one question about each image, on a connection each."""
    found = []
    for id_ in ids:
        async with Connection(url) as connection:
            found.append((await connection.send(question(id_, "What is shown?")))[0])
    return found


def accepted(instance):
    """Connections are accepted once a worker has its model; the socket is open before."""
    return live.request("GET", f"{instance.url}/readyz").status_code == 200


def test_where_one_worker_cannot_be_started_those_before_it_end(monkeypatch):
    start, started = Workers._start, []

    def start_one(self):
        if started:
            raise BlockingIOError("Resource temporarily unavailable")
        started.append(start(self))
        return started[0]

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(Workers, "_start", start_one)
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(BlockingIOError):
            Workers(live.run_until_stopped, None, listener, 2).run(lambda: None, live.PATIENCE)
        assert not started[0].process.is_alive()
    finally:
        started[0].process.kill()
        for number, handler in handlers.items():
            signal.signal(number, handler)


@pytest.mark.slow
def test_any_worker_answers_about_an_image_and_a_killed_one_is_replaced(run, tmp_path):
    with Instance(run, store=str(tmp_path / "store"), workers=2) as instance:
        assert accepted(instance)
        wait(lambda: len(workers(instance)) == 2)
        first = workers(instance)
        ids = asyncio.run(uploads(instance.url, 10))
        assert asyncio.run(statuses(instance.url, ids)) == [200] * 10
        metrics = live.request("GET", f"{instance.url}/metrics").text
        assert 'http_requests_total{handler="/upload_image",method="POST",status="200"} 10.0' in metrics
        first[0].send_signal(signal.SIGKILL)
        wait(lambda: len(workers(instance)) == 2 and set(workers(instance)) != set(first))
        assert asyncio.run(statuses(instance.url, ids)) == [200] * 10
        children = psutil.Process(instance.process.pid).children(recursive=True)
        assert instance.stop() == 0
        wait(lambda: not any(map(lives, children)))


@pytest.mark.slow
def test_workers_end_with_the_first_process_and_a_mistake_is_one_sentence(run, tmp_path):
    with Instance(run, store=str(tmp_path / "store"), workers=2) as instance:
        assert accepted(instance)
        children = workers(instance)
        instance.kill()
        wait(lambda: not any(map(lives, children)))
    broken = Instance(tmp_path / "nowhere", store=str(tmp_path / "store"), workers=2)
    assert broken.process.wait(2 * live.PATIENCE) == 2
    assert "Traceback" not in broken.logs() and "nowhere" in broken.logs()
    broken.stop()

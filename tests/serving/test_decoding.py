"""Decoding processes: bounded in memory and time, replaced when they die."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import weakref
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from pathlib import Path

import psutil
import pytest
from echo_model import make_engine
from live import PATIENCE, SOURCE, png
from PIL import Image

from medical_vqa.data.imaging.decoded_frame import DecodeLimits
from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.errors import ConfigError, ImageError
from medical_vqa.pipelines import serve
from medical_vqa.serving import server
from medical_vqa.serving.decoding import process as decoding_process
from medical_vqa.serving.decoding import upload
from medical_vqa.serving.decoding.pool import DecoderLimits, DecoderPool
from medical_vqa.serving.decoding.upload import DecodeJob, decode
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.service.decoders import Decoders
from medical_vqa.serving.service.service import Service
from medical_vqa.serving.settings import read_settings

SPEC = PictureSpec(side=8)
MEBIBYTE = 1 << 20


def job(data, **limits):
    return DecodeJob(data, DecodeLimits(**limits), SPEC)


def make_pool(processes=1, **options):
    limits = {"memory_bytes": 1024 * MEBIBYTE, "timeout": 120.0, "queue_size": 4, "deadline": 120.0} | options
    return DecoderPool(processes, DecoderLimits(**limits))


def decoded(pool, *jobs):
    async def work():
        return await asyncio.gather(*(pool.decode(job) for job in jobs), return_exceptions=True)

    return asyncio.run(work())


@pytest.fixture(scope="module")
def pool():
    pool = make_pool()
    yield pool
    pool.close()


def test_a_process_returns_what_decoding_here_returns(pool):
    (image,) = decoded(pool, job(png(77)))
    assert image.picture.shape == (8, 8, 1) and (image.picture == 77).all()
    assert image.digest == decode(job(png(77))).digest
    assert Image.open(io.BytesIO(image.png)).getpixel((0, 0)) == 77


@dataclass(frozen=True)
class Imported:
    """Which modules of readers the process has before its first file."""

    size: int = 0

    def run(self):
        return {name: name in sys.modules for name in ("pydicom", "nibabel")}


def test_the_first_file_does_not_wait_for_the_readers_of_its_format():
    """On a busy machine importing them took longer than a file may."""
    pool = make_pool()
    try:
        assert decoded(pool, Imported()) == [{"pydicom": True, "nibabel": True}]
    finally:
        pool.close()


def test_refusals_come_back_with_their_codes(pool):
    wide = io.BytesIO()
    Image.new("L", (2000, 2000)).save(wide, "PNG")
    *errors, image = decoded(pool, job(b"none"), job(wide.getvalue(), pixels=1000), job(png(1)))
    assert [(e.status, e.code) for e in errors] == [(400, "not_an_image"), (413, "too_large")]
    assert image.info.width == 16


def test_a_picture_that_takes_too_much_memory_is_refused_and_the_process_lives(pool):
    big = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(big, "PNG", compress_level=1)
    (failed,) = decoded(pool, job(big.getvalue(), pixels=10**10))
    assert (failed.status, failed.code) == (400, "not_an_image")
    (process,) = pool._processes
    assert process._process.is_alive()
    assert decoded(pool, job(png(2)))[0].info.width == 16


def test_a_process_that_dies_costs_one_answer_and_is_replaced():
    pool = make_pool()
    decoded(pool, job(png(1)))
    (process,) = pool._processes
    os.kill(process._process.pid, signal.SIGKILL)
    process._process.join()
    assert decoded(pool, job(png(3)))[0].info.width == 16
    pool.close()
    assert process._process is None


def test_a_pool_that_is_closed_while_its_processes_start_leaves_none():
    before = set(multiprocessing.active_children())
    threads = set(threading.enumerate())
    pool = make_pool(processes=2)
    pool.start()
    pool.close()
    for starting in set(threading.enumerate()) - threads:
        starting.join(PATIENCE)
    assert set(multiprocessing.active_children()) <= before


def test_decoders_start_before_the_model_is_loaded_and_are_those_of_the_server(monkeypatch):
    """The first upload otherwise waited until they had imported what they need."""
    events: list[tuple[str, object]] = []
    monkeypatch.setattr(Decoders, "start", lambda self: events.append(("decoders", self)))
    monkeypatch.setattr(serve, "build_engine", lambda _: events.append(("model", None)))
    monkeypatch.setattr(server, "run", lambda *_, decoders, **__: events.append(("server", decoders)))
    serve.serve(read_settings({}))
    assert [name for name, _ in events] == ["decoders", "model", "server"]
    assert events[0][1] is events[2][1]
    assert Service(make_engine(), read_settings({}), decoders=events[0][1])._decoders is events[0][1]


def test_a_server_whose_model_cannot_be_loaded_leaves_no_decoder(monkeypatch):
    def fail(_):
        raise ConfigError("there is no such model")

    before = set(multiprocessing.active_children())
    monkeypatch.setattr(serve, "build_engine", fail)
    with pytest.raises(ConfigError, match="no such model"):
        serve.serve(read_settings({}))
    assert set(multiprocessing.active_children()) <= before


def python(*lines, before=""):
    """An interpreter that runs lines with this module as `t`, and `before` ahead of every import."""
    body = "".join(f"    {line}\n" for line in lines)
    script = f"{before}\nimport multiprocessing, test_decoding as t\nif __name__ == '__main__':\n{body}"
    places = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1] / "support"), str(SOURCE)])
    environ = {**os.environ, "PYTHONPATH": places}
    return subprocess.Popen([sys.executable, "-c", script], env=environ, stdout=subprocess.PIPE, text=True)


left_open = []


def leave_a_pool_open():
    left_open.append(make_pool())
    assert decoded(left_open[0], job(png(1)))[0].info.width == 16


@pytest.mark.parametrize(
    ("before", "lines"),
    [
        ("", ["t.leave_a_pool_open()"]),
        # finalizers that exist before `multiprocessing` is imported run after its own
        ("import weakref\nclass Any: pass\nany = Any()\nweakref.finalize(any, print)", ["t.leave_a_pool_open()"]),
        (
            "",
            [
                "process = multiprocessing.get_context('spawn').Process(target=t.leave_a_pool_open)",
                "process.start()",
                "process.join()",
                "assert process.exitcode == 0",
            ],
        ),
    ],
    ids=["interpreter", "interpreter with earlier finalizers", "process of multiprocessing"],
)
def test_an_interpreter_ends_although_nobody_closes_its_pool(before, lines):
    with python(*lines, before=before) as process:
        try:
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


class Endless:
    """An upload that is decoded until the process ends."""

    size = 1

    def run(self):
        print(os.getpid(), flush=True)
        while True:
            pass


def test_a_process_ends_in_the_middle_of_an_upload_when_its_parent_is_killed():
    with python("t.decoded(t.make_pool(), t.Endless())") as parent:
        decoder = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        try:
            decoder.wait(PATIENCE)
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                decoder.kill()


def test_a_pool_is_closed_in_the_middle_of_an_upload():
    pool = make_pool(timeout=100 * PATIENCE, deadline=100 * PATIENCE)
    upload = threading.Thread(target=decoded, args=(pool, Endless()), daemon=True)
    upload.start()
    (process,) = pool._processes
    while process._process is None:
        upload.join(0.01)
    closing = threading.Thread(target=pool.close, daemon=True)
    closing.start()
    closing.join(PATIENCE)
    upload.join(PATIENCE)
    assert not closing.is_alive() and not upload.is_alive()
    assert process._process is None
    (refused,) = decoded(pool, job(png(1)))
    assert isinstance(refused, RuntimeError)


def test_a_process_that_started_too_slowly_is_replaced(monkeypatch):
    monkeypatch.setattr(decoding_process, "_START_TIMEOUT", 0.0)
    pool = make_pool()
    pool._processes[0]._start_early()
    monkeypatch.undo()
    first, second = decoded(pool, job(png(1)), job(png(2)))
    assert (first.picture == 1).all() and (second.picture == 2).all()
    pool.close()


def test_a_process_that_cannot_be_started_is_started_for_the_next_upload(monkeypatch):
    def refuse(self):
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(SpawnProcess, "start", refuse)
    pool = make_pool()
    (failed,) = decoded(pool, job(png(1)))
    assert (failed.status, failed.code) == (400, "not_an_image")
    monkeypatch.undo()
    assert decoded(pool, job(png(2)))[0].info.width == 16
    pool.close()


def test_what_takes_too_long_is_refused_and_the_next_is_decoded():
    pool = make_pool(timeout=0.02)
    slow = io.BytesIO()  # within the limits, so that nothing but the time refuses it
    Image.effect_noise((4000, 4000), 90).save(slow, "PNG", compress_level=1)
    (failed,) = decoded(pool, job(slow.getvalue()))
    assert "takes more than 0.02 s to decode; make it smaller, or raise MEDICAL_VQA_DECODE_TIMEOUT" in failed.message
    assert (failed.status, failed.code) == (413, "too_large")  # it may well be a picture
    pool._processes[0]._timeout = 120.0
    assert decoded(pool, job(png(3)))[0].info.width == 16
    pool.close()


def test_too_many_that_wait_get_429():
    pool = make_pool(processes=0, queue_size=2)
    results = decoded(pool, *[job(png(n)) for n in range(4)])
    assert [isinstance(result, ApiError) for result in results] == [False, False, True, True]
    assert results[2].code == "overloaded"
    pool.close()


def test_a_client_with_many_uploads_does_not_hold_up_another(monkeypatch):
    order = []
    monkeypatch.setattr(upload, "decode", lambda job: order.append(job.data))
    pool = make_pool(processes=0, queue_size=9)

    async def work():
        heavy = [pool.decode(job(b"heavy"), client="a") for _ in range(6)]
        await asyncio.gather(*heavy, pool.decode(job(b"polite"), client="b"))

    asyncio.run(work())
    pool.close()
    assert order.index(b"polite") == 1  # after the one that was already being decoded


def test_a_client_that_fills_the_queue_leaves_room_for_others():
    pool = make_pool(processes=0, queue_size=3)

    async def work():
        heavy = [pool.decode(job(png(n)), client="a") for n in range(5)]
        return await asyncio.gather(*heavy, pool.decode(job(png(9)), client="b"), return_exceptions=True)

    results = asyncio.run(work())
    pool.close()
    assert [isinstance(result, ApiError) for result in results] == [False] * 3 + [True] * 2 + [False]


def test_an_upload_whose_client_has_gone_is_forgotten_while_another_is_being_decoded(monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(upload, "decode", lambda job: released.wait(60))
    pool = make_pool(processes=0)

    async def work():
        first = asyncio.create_task(pool.decode(job(b"x")))
        await asyncio.sleep(0)
        second = asyncio.create_task(pool.decode(job(b"y" * 1_000_000)))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait({second})
        held = sum(waiting.job.size for waiting in pool._queue)
        released.set()
        await first
        return held

    held = asyncio.run(work())
    pool.close()
    assert held == 0


@pytest.mark.parametrize("gone", [False, True])
def test_an_upload_that_cannot_be_used_is_forgotten_at_once_and_not_at_the_next_collection(gone):
    class Unusable:
        size = 1

        def run(self):
            raise ImageError("no image")

    pool = make_pool(processes=0)

    async def work():
        unusable = Unusable()
        forgotten = weakref.ref(unusable)
        task = asyncio.create_task(pool.decode(unusable))
        del unusable
        await asyncio.sleep(0)
        if gone:
            task.cancel()
        await asyncio.wait({task})
        if not gone:
            assert task.exception().code == "not_an_image"
        while pool._running:
            await asyncio.sleep(0.01)
        return forgotten

    gc.disable()
    try:
        assert asyncio.run(work())() is None
    finally:
        gc.enable()
        pool.close()


def test_the_wait_for_a_decoder_counts_towards_the_deadline(monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(upload, "decode", lambda job: released.wait(60))
    pool = make_pool(processes=0, deadline=0.05)

    async def work():
        results = await asyncio.gather(*(pool.decode(job(b"x")) for _ in range(2)), return_exceptions=True)
        released.set()
        return results

    assert [(error.status, error.code) for error in asyncio.run(work())] == [(429, "deadline")] * 2
    pool.close()


def test_what_has_waited_too_long_is_not_decoded():
    pool = make_pool(processes=0, deadline=-1.0)
    (late,) = decoded(pool, job(png(1)))
    assert (late.status, late.code) == (429, "deadline")
    pool.close()

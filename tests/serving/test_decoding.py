"""Decoding processes: bounded in memory and time, replaced when they die."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import time

import pytest
from live import png
from PIL import Image

from medical_vqa.data.imaging.decode import IngestLimits
from medical_vqa.data.imaging.pictures import PictureSpec
from medical_vqa.serving.decoding import Decoders, Job, decode
from medical_vqa.serving.errors import RefusedError

SPEC = PictureSpec(side=8)
MEBIBYTE = 1 << 20


def job(data, **limits):
    return Job(data, IngestLimits(**limits), SPEC)


def decoders(processes=1, **options):
    chosen = {"memory": 1024 * MEBIBYTE, "timeout": 20.0, "waiting": 4, "deadline": 20.0} | options
    return Decoders(processes, **chosen)


def refusal(made, *jobs):
    async def work():
        return await asyncio.gather(*(made.decode(one) for one in jobs), return_exceptions=True)

    return asyncio.run(work())


@pytest.fixture(scope="module")
def one():
    made = decoders()
    yield made
    made.close()


def test_a_process_gives_what_decoding_here_gives(one):
    (found,) = refusal(one, job(png(77)))
    assert found.picture.shape == (8, 8, 1) and (found.picture == 77).all()
    assert found.digest == decode(job(png(77))).digest
    assert Image.open(io.BytesIO(found.png)).getpixel((0, 0)) == 77


def test_refusals_come_back_with_their_codes(one):
    wide = io.BytesIO()
    Image.new("L", (2000, 2000)).save(wide, "PNG")
    found = refusal(one, job(b"none"), job(wide.getvalue(), pixels=1000), job(png(1)))
    assert [(f.status, f.code) for f in found[:2]] == [(400, "not_an_image"), (413, "too_large")]
    assert found[2].about["width"] == 16


def test_a_picture_that_takes_too_much_memory_is_refused_and_the_process_lives(one):
    big = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(big, "PNG", compress_level=1)
    ((failed),) = refusal(one, job(big.getvalue(), pixels=10**10))
    assert (failed.status, failed.code) == (400, "not_an_image")
    before = one._idle.get()
    one._idle.put(before)
    assert before._process.is_alive()
    assert refusal(one, job(png(2)))[0].about["width"] == 16


def test_a_process_that_dies_costs_one_answer_and_is_replaced():
    made = decoders()
    refusal(made, job(png(1)))
    child = made._idle.get()
    made._idle.put(child)
    os.kill(child._process.pid, signal.SIGKILL)
    child._process.join()
    assert refusal(made, job(png(3)))[0].about["width"] == 16
    made.close()
    assert child._process is None


def test_what_takes_too_long_is_refused_and_the_next_is_decoded():
    made = decoders(timeout=0.02)
    slow = io.BytesIO()
    Image.effect_noise((6000, 6000), 90).save(slow, "PNG", compress_level=1)
    began = time.monotonic()
    (failed,) = refusal(made, job(slow.getvalue()))
    assert "takes more than" in failed.message and time.monotonic() - began < 60
    made._timeout = 20.0
    child = made._idle.get()
    child._timeout = 20.0
    made._idle.put(child)
    assert refusal(made, job(png(3)))[0].about["width"] == 16
    made.close()


def test_too_many_that_wait_get_429():
    made = decoders(processes=0, waiting=2)
    found = refusal(made, *[job(png(n)) for n in range(4)])
    assert [isinstance(f, RefusedError) for f in found] == [False, False, True, True]
    assert found[2].code == "overloaded"
    made.close()


def test_what_has_waited_too_long_is_not_decoded():
    made = decoders(processes=0, deadline=-1.0)
    (late,) = refusal(made, job(png(1)))
    assert (late.status, late.code) == (429, "deadline")
    made.close()

"""Two servers on one store: each answers for the other's uploads, and a killed one takes nothing with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time

import live
import pytest
from echo_model import engine
from live import Connection, Instance, png, question, serving, settings, upload
from shared_stores import bucket, redis_url

from medical_vqa.serving.image_store import images

COUNTS = {"folder": 1000, "redis": 200, "s3": 60}


@pytest.fixture(params=COUNTS)
def store(request, tmp_path):
    with contextlib.ExitStack() as stack:
        url = {
            "folder": lambda: f"file://{tmp_path}",
            "redis": lambda: stack.enter_context(redis_url()),
            "s3": lambda: stack.enter_context(bucket()),
        }[request.param]()
        yield url, COUNTS[request.param]


async def uploads(instance, numbers, kept, *, until_dead=False):
    async with Connection(instance.url) as connection:
        for number in numbers:
            try:
                status, _, body = await connection.send(upload(png(number % 250, side=8 + number // 250)))
            except (OSError, asyncio.IncompleteReadError):
                assert until_dead
                return
            assert status == 200, body
            kept.append(json.loads(body)["image_id"])


async def asked(instance, ids):
    async with Connection(instance.url) as connection:
        return [(await connection.send(question(id_, "What is shown?")))[0] for id_ in ids]


def test_no_upload_is_lost_when_one_of_two_servers_is_killed_mid_request(store, run):
    """Eight clients upload to one server, which is killed with -9 among them; then to the other, until the count is
    reached. Every id that any client was given must be answered for by the one that lives."""
    url, count = store

    async def kill_mid_request(first, second):
        kept = []
        first_half = [asyncio.create_task(uploads(first, range(n, count, 8), kept, until_dead=True)) for n in range(8)]
        while len(kept) < count // 2:
            await asyncio.sleep(0.01)
        first.process.send_signal(signal.SIGKILL)
        await asyncio.gather(*first_half)
        before = len(kept)
        assert count // 2 <= before < count  # it died among its work
        await asyncio.gather(*(uploads(second, range(before + n, count, 8), kept) for n in range(8)))
        statuses = await asyncio.gather(*(asked(second, kept[n::8]) for n in range(8)))
        return kept, [status for some in statuses for status in some]

    started = Instance(run, store=url), Instance(run, store=url)  # both at once
    with started[0] as first, started[1] as second:
        kept, statuses = asyncio.run(asyncio.wait_for(kill_mid_request(first, second), 300))
    assert len(set(kept)) == len(kept) >= count
    assert statuses.count(200) == len(kept)  # none lost


def test_a_deletion_on_one_server_reaches_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "RECHECK", 0.2)
    chosen = settings(store=str(tmp_path))
    with serving(engine(), chosen) as one, serving(engine(), chosen) as two:
        id_ = live.request("POST", f"{one}/upload_image", files={"image_file": png()}).json()["image_id"]
        assert ask(two, id_) == 200
        assert live.request("DELETE", f"{two}/images/{id_}").status_code == 204
        assert ask(two, id_) == 404
        time.sleep(0.3)
        assert ask(one, id_) == 404


def ask(url, id_):
    return live.request("POST", f"{url}/ask_question", json={"image_id": id_, "question": "What is shown?"}).status_code

"""Two servers on one store: each answers for the other's uploads, and a killed one takes nothing with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal

import pytest
from live import Connection, Instance, png, question, upload
from shared_stores import bucket, redis_url

from medical_vqa.serving.images import RECHECK

COUNTS = {"folder": 1000, "redis": 400, "s3": 100}


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

    with Instance(run, store=url) as first, Instance(run, store=url) as second:
        kept, statuses = asyncio.run(asyncio.wait_for(kill_mid_request(first, second), 110))
    assert len(set(kept)) == len(kept) >= count
    assert statuses.count(200) == len(kept)  # none lost


def test_a_deletion_on_one_server_reaches_the_other(tmp_path, run):
    async def delete(first, second):
        kept = []
        await uploads(first, [1], kept)
        async with Connection(first.url) as one, Connection(second.url) as two:
            assert (await two.send(question(kept[0], "What is shown?")))[0] == 200
            gone = f"DELETE /images/{kept[0]} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            assert (await two.send(gone))[0] == 204
            assert (await two.send(question(kept[0], "What else?")))[0] == 404
            await asyncio.sleep(RECHECK)
            return (await one.send(question(kept[0], "And now?")))[0]

    with Instance(run, store=str(tmp_path)) as first, Instance(run, store=str(tmp_path)) as second:
        assert asyncio.run(delete(first, second)) == 404

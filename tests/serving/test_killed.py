"""A server that is killed again and again: no upload is lost that it has acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal

import pytest
from live import Connection, Instance, png, upload


async def uploads_until_killed(instance, numbers, chance, clients=4):
    """Upload one picture after another on several connections, and kill the server at some moment; acknowledged ids."""
    acknowledged = {}

    async def client():
        async with Connection(instance.url) as connection:
            for number in numbers:
                status, _, body = await connection.send(upload(png(number % 256, side=16 + number // 256)))
                if status == 200:
                    acknowledged[json.loads(body)["image_id"]] = number

    async def kill():
        await asyncio.sleep(chance.uniform(0.3, 3.0))
        instance.process.send_signal(signal.SIGKILL)

    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    await asyncio.gather(kill(), return_exceptions=True)
    await asyncio.gather(*tasks, return_exceptions=True)
    return acknowledged


async def missing(instance, ids):
    """The images that a server does not have, or that are not answered about."""
    gone = []
    async with Connection(instance.url) as connection:
        for image_id in ids:
            request = f"GET /images/{image_id}/picture HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            status, _, body = await connection.send(request)
            if status != 200 or not body.startswith(b"\x89PNG"):
                gone.append((image_id, status))
    return gone


@pytest.mark.slow
def test_no_acknowledged_upload_is_lost_when_the_server_is_killed_at_random_times(run, tmp_path):
    chance, numbers, acknowledged, kills = random.Random(0), iter(range(1000)), {}, 0
    while len(acknowledged) < 900 and kills < 40:
        instance = Instance(run, store=str(tmp_path / "store"), store_ttl="none", store_bytes=1 << 30).wait()
        acknowledged |= asyncio.run(uploads_until_killed(instance, numbers, chance))
        with contextlib.suppress(Exception):
            instance.stop(signal.SIGKILL)
        kills += 1
    assert kills >= 3
    with Instance(run, store=str(tmp_path / "store"), store_ttl="none", store_bytes=1 << 30) as instance:
        assert asyncio.run(missing(instance, acknowledged)) == []
    print(f"{len(acknowledged)} acknowledged uploads, {kills} kills, none lost")

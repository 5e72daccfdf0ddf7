"""Two servers on one store: each answers for the other's uploads, and nothing is lost with a killed one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time

import live
import pytest
from echo_model import make_engine
from live import Connection, Instance, png, question, serving, settings, upload
from shared_stores import bucket, redis_url

from medical_vqa.serving.image_store import repository
from medical_vqa.serving.image_store.memory import MemoryStore

COUNTS = {"folder": 300, "redis": 200, "s3": 60}


@pytest.fixture(params=COUNTS)
def store(request, tmp_path):
    with contextlib.ExitStack() as stack:
        url = {
            "folder": lambda: f"file://{tmp_path}",
            "redis": lambda: stack.enter_context(redis_url()),
            "s3": lambda: stack.enter_context(bucket()),
        }[request.param]()
        yield url, COUNTS[request.param]


async def uploads(instance, numbers, image_ids, *, until_dead=False):
    async with Connection(instance.url) as connection:
        for number in numbers:
            try:
                status, _, body = await connection.send(upload(png(number % 250, side=8 + number // 250)))
            except (OSError, asyncio.IncompleteReadError):
                assert until_dead
                return
            assert status == 200, body
            image_ids.append(json.loads(body)["image_id"])


async def question_statuses(instance, ids):
    async with Connection(instance.url) as connection:
        return [(await connection.send(question(id_, "What is shown?")))[0] for id_ in ids]


def test_no_upload_is_lost_when_one_of_two_servers_is_killed_mid_request(store, run):
    """Eight clients upload to one server, which is killed with -9 meanwhile; then to the other, until the count is
    reached. Every id that any client received must be answered for by the one that lives."""
    url, count = store

    async def kill_mid_request(first, second):
        image_ids = []
        first_half = [
            asyncio.create_task(uploads(first, range(n, count, 8), image_ids, until_dead=True)) for n in range(8)
        ]
        while len(image_ids) < count // 2:
            await asyncio.sleep(0.01)
        first.process.send_signal(signal.SIGKILL)
        await asyncio.gather(*first_half)
        before = len(image_ids)
        assert count // 2 <= before < count  # it died during its work
        await asyncio.gather(*(uploads(second, range(before + n, count, 8), image_ids) for n in range(8)))
        statuses = await asyncio.gather(*(question_statuses(second, image_ids[n::8]) for n in range(8)))
        return image_ids, [status for part in statuses for status in part]

    started = Instance(run, store=url), Instance(run, store=url)  # both at once
    with started[0] as first, started[1] as second:
        image_ids, statuses = asyncio.run(asyncio.wait_for(kill_mid_request(first, second), 300))
    assert len(set(image_ids)) == len(image_ids) >= count
    assert statuses.count(200) == len(image_ids)  # none lost


def test_a_deletion_on_one_server_reaches_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(repository, "RECHECK_SECONDS", 0.2)
    on_store = settings(store=str(tmp_path))
    with serving(make_engine(), on_store) as one, serving(make_engine(), on_store) as two:
        id_ = live.request("POST", f"{one}/upload_image", files={"image_file": png()}).json()["image_id"]
        assert ask(two, id_) == 200
        assert live.request("DELETE", f"{two}/images/{id_}").status_code == 204
        assert ask(two, id_) == 404
        time.sleep(0.3)
        assert ask(one, id_) == 404


def test_servers_on_one_redis_share_the_rate_of_a_client():
    with redis_url() as store:
        limited = settings(store=store, rate_limit="3/minute")
        with serving(make_engine(), limited) as one, serving(make_engine(), limited) as two:
            statuses = [live.request("GET", f"{url}/model").status_code for url in (one, two, one, two)]
    assert statuses == [200, 200, 200, 429]


def test_where_the_redis_of_the_rates_does_not_answer_requests_get_503():
    limited = settings(store="redis://127.0.0.1:1/0", rate_limit="3/minute")
    with serving(make_engine(), limited, MemoryStore(ttl=None, max_bytes=1 << 20)) as url:
        reply = live.request("GET", f"{url}/model")
    assert (reply.status_code, reply.json()["detail"]["code"]) == (503, "not_ready")


def ask(url, id_):
    return live.request("POST", f"{url}/ask_question", json={"image_id": id_, "question": "What is shown?"}).status_code

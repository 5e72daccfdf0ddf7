"""Disks and stores that do not answer: requests are refused in time, memory stays bounded, and a stop ends."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import live
import numpy as np
import pytest
from echo_model import make_engine
from starlette.formparsers import MultiPartParser

from medical_vqa.serving import fair_turns
from medical_vqa.serving.clients import Client, set_current_client
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.image_store import calls
from medical_vqa.serving.image_store.memory import MemoryStore


class Store(MemoryStore):
    """A store behind a network: its reads can be held up, and how many run at once is counted."""

    blocking = True

    def __init__(self):
        super().__init__(ttl=None, max_bytes=1 << 26)
        self.answers = threading.Event()
        self.answers.set()
        self.seconds = 0.0
        self._lock2 = threading.Lock()
        self.running = {"image": 0, "values": 0}
        self.most = {"image": 0, "values": 0}

    def get(self, image_id):
        assert self.answers.wait(live.PATIENCE)
        kind = "values" if image_id.endswith(".values") else "image"
        with self._lock2:
            self.running[kind] += 1
            self.most[kind] = max(self.most[kind], self.running[kind])
        time.sleep(self.seconds)
        with self._lock2:
            self.running[kind] -= 1
        return super().get(image_id)

    def contains(self, image_id):
        assert self.answers.wait(live.PATIENCE)
        return super().contains(image_id)


def nifti(gray):
    nib = pytest.importorskip("nibabel")
    values = np.full((8, 8, 8), gray, np.int16)
    values[2:6, 2:6] = 300
    return nib.Nifti1Image(values, np.eye(4)).to_bytes()


def test_a_store_that_does_not_answer_is_503_in_time(monkeypatch):
    monkeypatch.setattr(calls, "CALL_TIMEOUT", 0.05)
    store = Store()
    with (
        live.serving(make_engine(), live.settings(image_cache_bytes=1 << 20), store) as url,
        live.client_of(base_url=url) as client,
    ):
        image_id = client.post("/upload_image", files={"image_file": live.png()}).json()["image_id"]
        conversation = client.post("/conversations").json()["id"]
        store.answers.clear()
        replies = [
            client.get(f"/images/{image_id}/picture"),
            client.get(f"/conversations/{conversation}"),
        ]
        store.answers.set()
    assert [(reply.status_code, reply.json()["detail"]["code"]) for reply in replies] == [(503, "not_ready")] * 2


def test_few_blobs_are_in_memory_at_once_however_many_pictures_are_requested():
    store = Store()
    with live.serving(make_engine(), live.settings(), store) as url, live.client_of(base_url=url) as client:
        image_id = client.post("/upload_image", files={"image_file": live.png()}).json()["image_id"]
        store.seconds = 0.02
        with ThreadPoolExecutor(12) as pool:
            paths = [f"{url}/images/{image_id}/picture"] * 24
            replies = list(pool.map(lambda path: live.request("GET", path), paths))
    assert {reply.status_code for reply in replies} == {200}
    assert store.most["image"] <= 4


def test_the_values_of_few_series_are_read_at_once_however_many_are_asked_about():
    store = Store()
    with (
        live.serving(make_engine(), live.settings(series_cache_bytes=1 << 20), store) as url,
        live.client_of(base_url=url) as client,
    ):
        files = [client.post("/series", files={"files": nifti(gray)}) for gray in range(8)]
        ids = [reply.json()["series"][0]["image_id"] for reply in files]
    with live.serving(make_engine(), live.settings(), store) as url:  # which has none of them in memory
        store.seconds = 0.02

        def ask(image_id):
            return live.request("POST", f"{url}/ask_question", json={"image_id": image_id, "question": "Is it a CT?"})

        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(ask, ids))
    assert {reply.status_code for reply in replies} == {200}
    assert 1 <= store.most["values"] <= 2


@pytest.mark.slow
def test_a_stop_does_not_wait_for_a_disk_that_does_not_answer(tmp_path):
    folder = tmp_path / "store"
    quick = {"deadline": 0.5, "drain_timeout": 1.0}
    first = live.Instance("shipped", store=str(folder)).wait()
    image_id = live.request("POST", f"{first.url}/upload_image", files={"image_file": live.png()}).json()["image_id"]
    first.stop()
    path = folder / image_id[:2] / f"{image_id}.image"
    path.unlink()
    os.mkfifo(path)  # whoever reads it waits for ever
    jobs = tmp_path / "jobs" / ("0" * 32)
    jobs.mkdir(parents=True)
    os.mkfifo(jobs / "job.json")  # as does whoever looks for jobs
    second = live.Instance("shipped", store=str(folder), jobs=jobs.parent, **quick).wait()
    with ThreadPoolExecutor(1) as pool:
        body = {"image_id": image_id, "question": "Is it a CT?"}
        asked = pool.submit(live.request, "POST", f"{second.url}/ask_question", json=body)
        time.sleep(0.5)  # the sooner it is stopped, the less is proven
        second.process.send_signal(signal.SIGTERM)
        reply = asked.result()
        assert second.process.wait(live.PATIENCE) == 0
        second.stop()
    assert (reply.status_code, reply.json()["detail"]["code"]) == (503, "not_ready")
    assert reply.headers["x-request-id"] and reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(("path", "field"), [("/upload_image", "image_file"), ("/series", "files")])
def test_a_full_temporary_folder_is_503_and_not_the_clients_mistake(monkeypatch, path, field):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MultiPartParser, "on_part_begin", full)
    with live.serving(make_engine()) as url:
        reply = live.request("POST", f"{url}{path}", files={field: live.png()})
    assert (reply.status_code, reply.json()["detail"]["code"]) == (503, "not_ready")
    assert "temporary folder" in reply.json()["detail"]["message"]


# --- turns ------------------------------------------------------------------------------------------------------------


async def take(turns, name, order, release):
    set_current_client(Client(name))
    async with turns.turn():
        order.append(name)
        await release.wait()


def test_turns_are_fair_among_clients_and_bounded_in_number():
    async def work():
        turns, release, order = fair_turns.FairTurns(1, 3, live.PATIENCE), asyncio.Event(), []
        tasks = [asyncio.create_task(take(turns, name, order, release)) for name in ("a", "a", "a", "a", "b")]
        tasks.append(asyncio.create_task(take(turns, "a", order, release)))
        await asyncio.sleep(0)
        release.set()
        return order, await asyncio.gather(*tasks, return_exceptions=True)

    order, results = asyncio.run(work())
    assert order == ["a", "b", "a", "a", "a"]
    assert results[:5] == [None] * 5
    assert isinstance(results[5], ApiError) and results[5].code == "overloaded"


def test_a_turn_whose_client_has_gone_is_passed_on():
    async def work():
        turns, release, order = fair_turns.FairTurns(1, 3, live.PATIENCE), asyncio.Event(), []
        first, gone, last = [asyncio.create_task(take(turns, name, order, release)) for name in "abc"]
        await asyncio.sleep(0)
        release.set()
        await first  # the turn is now that of b, which does not know it yet
        gone.cancel()
        await last
        assert turns._free == 1
        return order

    assert asyncio.run(work()) in (["a", "b", "c"], ["a", "c"])


def test_a_turn_that_does_not_come_in_time_is_429():
    async def work():
        turns, release = fair_turns.FairTurns(1, 3, 0.02), asyncio.Event()
        first = asyncio.create_task(take(turns, "a", [], release))
        await asyncio.sleep(0)
        with pytest.raises(ApiError) as late:
            await take(turns, "b", [], release)
        release.set()
        await first
        return late.value.code

    assert asyncio.run(work()) == "deadline"


def test_what_a_client_used_while_nobody_waited_is_no_debt_later(monkeypatch):
    """One that has drawn pictures all day is not last, for as long, once another one comes."""
    now = [0.0]
    monkeypatch.setattr(fair_turns.time, "monotonic", lambda: now[0])

    async def work():
        turns, order = fair_turns.FairTurns(1, 9, live.PATIENCE), []
        for _ in range(100):
            async with turns.turn():
                now[0] += 1.0
        release = asyncio.Event()
        busy = asyncio.create_task(take(turns, "new", [], release))
        await asyncio.sleep(0)
        tasks = [asyncio.create_task(take(turns, name, order, release)) for name in ("new", "new", "new", "")]
        await asyncio.sleep(0)
        now[0] += 2.0
        release.set()
        await asyncio.gather(busy, *tasks)
        return order

    assert asyncio.run(work()).index("") == 0

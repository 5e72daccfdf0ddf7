"""Many clients at once: nothing lost, nothing mixed up, nothing late, nothing computed for nobody."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time

import live
from echo_model import Echo, engine
from live import Connection, Instance, png, question, upload


async def send(url, *requests):
    async with Connection(url) as connection:
        return [await connection.send(request) for request in requests]


async def new_image(url, data):
    ((status, _, body),) = await send(url, upload(data))
    assert status == 200, body
    return json.loads(body)["image_id"]


def test_200_clients_at_once_each_get_the_answer_to_their_own_question():
    async def client(url, number):
        grey = number % 50
        id_ = await new_image(url, png(grey))
        asked = [f"Client {number}, question {n}?" for n in range(5)]
        replies = await send(url, *(question(id_, words) for words in asked))
        return [
            (status, json.loads(body)["answer"] == f"{grey} {words}")
            for (status, _, body), words in zip(replies, asked, strict=True)
        ]

    async def everybody(url):
        return await asyncio.gather(*(client(url, number) for number in range(200)))

    with live.serving(engine(Echo(seconds=0.002)), live.settings(queue=1000, decoders=0)) as url:
        found = asyncio.run(asyncio.wait_for(everybody(url), 60))
    assert sum(len(one) for one in found) == 1000
    assert all(pair == (200, True) for one in found for pair in one)


def test_at_ten_times_the_load_what_is_accepted_is_in_time_and_the_rest_gets_429():
    deadline = 1.0
    model = Echo(seconds=0.2)  # 8 at once: 40 questions per second

    async def client(url, id_, number):
        await asyncio.sleep(number / 400)  # ten times that
        began = time.monotonic()
        ((status, headers, body),) = await send(url, question(id_, f"q{number}"))
        return status, time.monotonic() - began, headers, json.loads(body)

    async def flood(url):
        id_ = await new_image(url, png(5))
        return await asyncio.gather(*(client(url, id_, number) for number in range(600)))

    made = engine(model, batch=8, queue=100, deadline=deadline)
    with live.serving(made, live.settings(deadline=deadline)) as url:
        found = asyncio.run(asyncio.wait_for(flood(url), 60))
    answered = [(seconds, body["timings"]["total_ms"] / 1000) for status, seconds, _, body in found if status == 200]
    refused = [(headers, body) for status, _, headers, body in found if status == 429]
    assert len(answered) + len(refused) == 600  # no 5xx, nothing lost
    assert len(answered) >= 20  # it goes on answering at the rate it can
    assert len(refused) >= 400
    assert max(inside for _, inside in answered) <= deadline + 0.2
    assert max(seconds for seconds, _ in answered) <= deadline + 2.0  # client and server share a processor here
    assert all(int(headers["retry-after"]) >= 1 for headers, _ in refused)
    assert {body["detail"]["code"] for _, body in refused} <= {"overloaded", "deadline"}


def test_work_of_clients_that_hang_up_is_dropped_before_it_is_computed():
    model = Echo(seconds=0.2)

    async def hang_up(url):
        id_ = await new_image(url, png(5))
        busy = asyncio.create_task(send(url, question(id_, "busy")))
        await asyncio.sleep(0.05)
        connections = [await asyncio.open_connection(*url.removeprefix("http://").split(":")) for _ in range(5)]
        for number, (_, writer) in enumerate(connections):
            writer.write(question(id_, f"gone {number}"))
        await asyncio.sleep(0.05)
        for _, writer in connections:
            await live.hang_up(writer)
        await busy
        await send(url, question(id_, "still here"))

    with live.serving(engine(model, batch=1)) as url:
        asyncio.run(hang_up(url))
    assert model.questions == ["busy", "still here"]


def test_a_slow_question_does_not_hold_up_the_rest_of_the_server():
    async def others(url):
        id_ = await new_image(url, png(5))
        slow = asyncio.create_task(send(url, question(id_, "slow")))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        get = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        await send(url, *[get] * 20)
        seconds = time.monotonic() - began
        assert not slow.done()
        await slow
        return seconds

    with live.serving(engine(Echo(seconds=1.0))) as url:
        assert asyncio.run(others(url)) < 0.6


def test_sigterm_under_load_answers_every_request_that_was_accepted(run):
    async def client(instance, id_, number, stopped, counts):
        async with Connection(instance.url) as connection:
            while not stopped.is_set():
                try:
                    status, _, body = await connection.send(question(id_, f"Question {number} {counts['sent']}?"))
                except (OSError, asyncio.IncompleteReadError) as error:
                    counts["torn"] += bool(getattr(error, "partial", b""))  # a response that began and did not end
                    return
                counts["sent"] += 1
                counts[status] = counts.get(status, 0) + 1
                assert status != 200 or json.loads(body)["answer"]

    async def accepted(instance, id_, number):
        """Sent whole before the signal: must be answered."""
        ((status, _, _),) = await send(instance.url, question(id_, f"Before the signal {number}?"))
        return status

    async def load(instance):
        id_ = await new_image(instance.url, png(90, side=40))
        stopped, counts = asyncio.Event(), {"sent": 0, "torn": 0}
        loops = [asyncio.create_task(client(instance, id_, n, stopped, counts)) for n in range(16)]
        await asyncio.sleep(0.5)
        before = [asyncio.create_task(accepted(instance, id_, n)) for n in range(40)]
        await asyncio.sleep(0.03)
        instance.process.send_signal(signal.SIGTERM)
        statuses = await asyncio.gather(*before)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*loops), 12)
        stopped.set()
        return counts, statuses

    with Instance(run) as instance:
        counts, statuses = asyncio.run(load(instance))
        began = time.monotonic()
        code = instance.process.wait(10)
        assert time.monotonic() - began < 10
        assert "Traceback" not in instance.logs()
    assert code in (0, -signal.SIGTERM)
    assert statuses == [200] * 40
    assert counts["torn"] == 0 and counts[200] == counts["sent"] > 20

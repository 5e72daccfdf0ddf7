"""Work and memory are bounded before they are spent: bodies, headers, connections, and JSON of many values."""

from __future__ import annotations

import asyncio
import json

import live
import pytest
from echo_model import make_engine

from medical_vqa.errors import ConfigError
from medical_vqa.serving import http_protocol
from medical_vqa.serving.fair_queue import FairQueue
from medical_vqa.serving.middleware.body_limits import BodyBudget


@pytest.fixture(scope="module")
def client():
    with live.serving(make_engine()) as url, live.client_of(base_url=url) as client:
        yield client


def message_of(reply):
    body = reply.json()
    return (body.get("error") or body["detail"])["message"]


async def connected(url):
    host, _, port = url.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


async def received(url, *parts):
    """All that a server sends until it closes the connection."""
    reader, writer = await connected(url)
    for part in parts:
        writer.write(part)
    text = await asyncio.wait_for(reader.read(), live.PATIENCE)
    await live.hang_up(writer)
    return text


# --- JSON -------------------------------------------------------------------------------------------------------------


def test_a_chat_of_half_a_million_empty_parts_is_refused_before_it_is_validated(client):
    body = b'{"model":"x","messages":[{"role":"user","content":[%b]}]}' % b",".join([b"{}"] * 500_000)
    reply = client.post("/v1/chat/completions", content=body)
    assert reply.status_code == 422 and "JSON values" in message_of(reply)


def test_a_chat_with_some_wrong_parts_names_the_first_alone(client):
    body = {"model": "x", "messages": [{"role": "user", "content": [{"type": "image"}] * 60}]}
    reply = client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 422
    assert message_of(reply).count("content.") == 1


@pytest.mark.parametrize("path", ["/ask_question", "/ask_questions", "/v1/chat/completions"])
def test_a_body_with_thousands_of_unknown_fields_is_refused_before_it_is_validated(client, path):
    reply = client.post(path, json={str(n): 1 for n in range(5_000)})
    assert reply.status_code == 422 and "more than 64 fields" in message_of(reply)


@pytest.mark.parametrize(
    ("path", "size"), [("/ask_question", 65_537), ("/ask_questions", 200_000), ("/nothing", 70_000)]
)
def test_a_body_without_an_image_is_small(client, path, size):
    reply = client.post(path, content=b" " * size, headers={"Content-Type": "application/json"})
    assert reply.status_code == 413 and "this route's limit" in message_of(reply)


def test_thirty_two_of_the_longest_questions_fit(client):
    image_id = client.post("/upload_image", files={"image_file": live.png()}).json()["image_id"]
    body = json.dumps({"image_id": image_id, "questions": ["\u4e2d" * 1000] * 32})  # 6 bytes a character
    reply = client.post("/ask_questions", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 200 and len(reply.json()["answers"]) == 32


def test_nested_lists_are_refused(client):
    for depth in (10_000, 1_000_000):
        assert client.post("/v1/chat/completions", content=b"[" * depth).status_code in (400, 422)


# --- headers and connections ------------------------------------------------------------------------------------------


def test_a_header_without_end_is_refused_after_64_kib(client):
    text = asyncio.run(received(str(client.base_url).rstrip("/"), b"GET / HTTP/1.1\r\nX: ", b"a" * 100_000))
    assert text.startswith(b"HTTP/1.1 431") and b'"code":"too_large"' in text


def test_too_many_header_fields_end_the_connection(client):
    text = asyncio.run(received(str(client.base_url).rstrip("/"), b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n"))
    assert text.startswith(b"HTTP/1.1 400")


def test_a_header_that_does_not_arrive_in_time_ends_the_connection(monkeypatch):
    monkeypatch.setattr(http_protocol, "HEADER_TIMEOUT", 0.05)
    with live.serving(make_engine()) as url:
        assert asyncio.run(received(url, b"GET / HTT")).startswith(b"HTTP/1.1 408")
        assert asyncio.run(received(url)).startswith(b"HTTP/1.1 408")


def test_what_is_not_http_gets_a_problem(client):
    text = asyncio.run(received(str(client.base_url).rstrip("/"), b"\x16\x03\x01 hello\r\n\r\n"))
    assert text.startswith(b"HTTP/1.1 400") and b'"code":"invalid"' in text


@pytest.mark.parametrize("digits", [b"9" * 5_000, b"0" * 5_000, b"99999999999999999"])
def test_a_content_length_of_many_digits_is_the_clients_mistake(client, digits):
    head = b"POST /ask_question HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: " + digits + b"\r\n\r\n"
    assert asyncio.run(received(str(client.base_url).rstrip("/"), head))[9:12] in (b"400", b"413")


def test_requests_that_are_sent_without_waiting_are_bounded(client):
    requests = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000
    text = asyncio.run(received(str(client.base_url).rstrip("/"), requests))
    assert text.count(b"HTTP/1.1 200") <= 1 + http_protocol.MAX_PIPELINED


def test_a_connection_too_many_is_refused_and_the_others_live():
    async def work(url):
        first = await connected(url)
        refused = await received(url)
        first[1].write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await asyncio.wait_for(first[0].read(), live.PATIENCE)
        await live.hang_up(first[1])
        return refused, answer

    with live.serving(make_engine(), live.settings(max_connections=1)) as url:
        refused, answer = asyncio.run(work(url))
    assert refused.startswith(b"HTTP/1.1 503") and answer.startswith(b"HTTP/1.1 200")


# --- bodies in flight -------------------------------------------------------------------------------------------------


def test_a_budget_bounds_the_sum_and_each_client_and_takes_back_what_is_released():
    budget = BodyBudget(total=100, per_client=60)
    assert budget.take("a", 60) and not budget.take("a", 1)
    assert budget.take("b", 40) and not budget.take("c", 1)
    budget.release("a", 60)
    assert budget.take("c", 60) and budget.used == 100


def test_half_sent_bodies_beyond_the_budget_are_refused_and_given_back(monkeypatch):
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n"
    release = BodyBudget.release
    given_back = asyncio.Event()

    async def work(url):
        held = await connected(url)
        held[1].write(head + b" " * 29_000)
        text = b"HTTP/1.1 408"
        while not text.startswith(b"HTTP/1.1 429"):  # until the first has arrived
            text = await received(url, head + b" " * 29_999)
        await live.hang_up(held[1])
        await asyncio.wait_for(given_back.wait(), live.PATIENCE)
        return await received(url, head.replace(b"Host", b"Connection: close\r\nHost") + b" " * 30_000)

    def release_and_report(budget, client, size):
        release(budget, client, size)
        if size == 29_000:
            loop.call_soon_threadsafe(given_back.set)

    monkeypatch.setattr(BodyBudget, "release", release_and_report)
    loop = asyncio.new_event_loop()
    with live.serving(make_engine(), live.settings(max_upload_bytes=40_000, body_bytes=40_000)) as url:
        after = loop.run_until_complete(work(url))
    loop.close()
    assert after.startswith(b"HTTP/1.1 422")  # it was read


def test_a_budget_below_one_body_is_refused_at_the_start():
    with pytest.raises(ConfigError, match="body_bytes must not be below max_upload_bytes"):
        live.settings(body_bytes=2_000, max_upload_bytes=4_000)


# --- fairness ---------------------------------------------------------------------------------------------------------


def test_clients_are_served_in_turn_however_much_one_has_waiting():
    queue = FairQueue()
    for n in range(4):
        queue.push("heavy", n)
    queue.push("polite", 9)
    assert [queue.pop(1.0) for _ in range(5)] == [("heavy", 0), ("polite", 9), ("heavy", 1), ("heavy", 2), ("heavy", 3)]


def test_what_work_has_cost_decides_and_not_its_number():
    queue = FairQueue()
    for client in ("a", "b"):
        for n in range(4):
            queue.push(client, n)
    order = [queue.pop(cost)[0] for cost in (3.0, 1.0, 1.0, 1.0, 1.0)]
    assert order == ["a", "b", "b", "b", "a"]


def test_a_client_of_twice_the_weight_is_served_twice_as_often():
    queue = FairQueue()
    for client, weight in (("a", 2.0), ("b", 1.0)):
        for n in range(9):
            queue.push(client, n, weight)
    assert [queue.pop(1.0)[0] for _ in range(9)].count("a") == 6


def test_nobody_saves_up_service_while_absent():
    queue = FairQueue()
    for n in range(100):
        queue.push("busy", n)
    for _ in range(50):
        queue.pop(1.0)
    for n in range(10):
        queue.push("late", n)
    assert [queue.pop(1.0)[0] for _ in range(8)].count("late") == 4


def test_an_item_that_is_preferred_goes_before_its_clients_older_ones_and_others_wait():
    queue = FairQueue()
    for n in range(4):
        queue.push("a", n)
    assert queue.pop(fits=lambda n: n > 0, prefer=lambda n: n == 2) == ("a", 2)
    assert queue.pop(fits=lambda n: n > 0, prefer=lambda n: n == 9) == ("a", 1)
    assert (queue.heads(), queue.waiting("a"), queue.waiting("b")) == ([0], 2, 0)
    with pytest.raises(LookupError):
        queue.pop(fits=lambda n: n > 9)


def test_removed_items_are_never_served():
    queue = FairQueue()
    for n in range(4):
        queue.push("ab"[n % 2], n)
    assert sorted(queue.remove(lambda n: n > 0)) == [1, 2, 3]
    assert (len(queue), list(queue), queue.pop()) == (1, [0], ("a", 0))
    with pytest.raises(LookupError):
        queue.pop()

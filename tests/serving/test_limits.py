"""Work and memory are bounded before they are spent: bodies, headers, connections, and JSON of many values."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import io
import json
import resource
import select
import signal
import socket
import sys
import time
from urllib.parse import urlsplit

import live
import numpy as np
import pytest
from echo_model import Echo, make_engine
from PIL import Image
from starlette.types import Message

from medical_vqa.errors import ConfigError
from medical_vqa.serving import http_protocol, server
from medical_vqa.serving.api.app import create_app
from medical_vqa.serving.fair_queue import FairQueue
from medical_vqa.serving.middleware.body_limits import BodyBudget, BodyLimitsMiddleware


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


@pytest.mark.parametrize("path", ["/ask_question", "/v1/chat/completions", "/series"])
def test_a_compressed_body_is_refused_as_such(client, path):
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    reply = client.post(path, content=gzip.compress(b'{"image_id":"x","question":"x"}'), headers=headers)
    assert reply.status_code == 415
    assert message_of(reply) == (
        "the body is compressed (Content-Encoding), which this server does not undo; send it as it is"
    )
    assert client.get("/model", headers={"Content-Encoding": "identity"}).status_code == 200


@pytest.mark.parametrize(("path", "field"), [
    ("/upload_image", "image_file"), ("/upload_image", "frame"), ("/ask", "image_file"), ("/ask", "question"),
])  # fmt: skip
def test_a_field_that_occurs_twice_is_refused_and_none_is_silently_left_out(client, path, field):
    picture, text = (("image_file", ("a", live.png())), ("question", (None, "Is it?")))
    repeated = ("frame", (None, "0")) if field == "frame" else picture if field == "image_file" else text
    once = [picture, text] if path == "/ask" else [picture]
    assert client.post(path, files=once).status_code == 200
    reply = client.post(path, files=[*once, repeated, *([repeated] if field == "frame" else [])])
    assert reply.status_code == 422
    assert message_of(reply) == "a field occurs twice; send each once, and several pictures to POST /series"


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


def chat_of(text):
    return b'{"model":"medical-vqa","messages":[{"role":"user","content":"%b"}]}' % text


def test_a_text_of_millions_of_escapes_is_refused_before_it_is_parsed(client):
    as_json = {"Content-Type": "application/json"}
    slashes = client.post("/v1/chat/completions", content=chat_of((b"A" * 63 + b"\\/") * 4_090), headers=as_json)
    escapes = client.post("/v1/chat/completions", content=chat_of(b"\\u0041" * 1_000_001), headers=as_json)
    assert (slashes.status_code, escapes.status_code) == (200, 422)
    assert "escaped characters" in message_of(escapes)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_the_texts_of_a_conversation_are_bounded_together(client, path):
    field = "input" if path.endswith("responses") else "messages"
    body = {"model": "medical-vqa", field: [{"role": "user", "content": "ab " * 30_000}] * 2}
    assert client.post(path, json=body).status_code == 200
    refused = client.post(path, json=body | {field: body[field] * 2})
    assert refused.status_code == 400 and "262,144 characters" in message_of(refused)
    assert refused.json()["error"]["param"] == field


def test_an_image_url_with_other_characters_than_those_of_base64_is_refused(client):
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA\N{GRINNING FACE}"}}
    body = {"model": "medical-vqa", "messages": [{"role": "user", "content": [part, {"type": "text", "text": "q"}]}]}
    assert client.post("/v1/chat/completions", json=body).status_code == 400


def test_nested_lists_are_refused(client):
    for depth in (10_000, 1_000_000):
        assert client.post("/v1/chat/completions", content=b"[" * depth).status_code in (400, 422)


# --- headers and connections ------------------------------------------------------------------------------------------


def test_a_header_without_end_is_refused_after_64_kib(client):
    text = asyncio.run(received(str(client.base_url).rstrip("/"), b"GET / HTTP/1.1\r\nX: ", b"a" * 100_000))
    assert text.startswith(b"HTTP/1.1 431") and b'"code":"too_large"' in text


def test_an_address_of_more_than_8_kib_is_refused(client):
    start = b"GET /images/x/view?" + b"a=1&" * 2_100
    text = asyncio.run(received(str(client.base_url).rstrip("/"), start + b" HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert text.startswith(b"HTTP/1.1 414") and b'"code":"too_large"' in text


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


def refused_upload(url):
    """A connection whose body was refused by its announced length, and which has read nothing of the response."""
    connection = socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=live.PATIENCE)
    connection.sendall(b"POST /ask_question HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n")
    select.select([connection], [], [], live.PATIENCE)
    return connection


def test_a_client_that_sends_all_of_a_refused_body_before_it_reads_receives_the_reason(client):
    """A connection that is closed while bytes arrive is reset, and the response with it."""
    with refused_upload(str(client.base_url)) as connection:
        for _ in range(90):
            connection.sendall(bytes(100_000))
        text = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert text.startswith(b"HTTP/1.1 413") and b"send less" in text


@pytest.mark.parametrize(("limit", "value"), [("LINGER_TIMEOUT", 0.05), ("MAX_LINGERING", 0)])
def test_a_client_that_goes_on_sending_a_refused_body_is_cut_off(monkeypatch, limit, value):
    monkeypatch.setattr(http_protocol, limit, value)
    with live.serving(make_engine()) as url, refused_upload(url) as connection, pytest.raises(ConnectionError):
        while True:
            connection.sendall(bytes(100_000))


def test_a_stop_does_not_wait_for_the_rest_of_a_refused_body(monkeypatch):
    monkeypatch.setattr(http_protocol, "LINGER_TIMEOUT", 1e6)
    with contextlib.ExitStack() as closing:
        with live.serving(make_engine()) as url:
            connection = closing.enter_context(refused_upload(url))
        with pytest.raises(ConnectionError):
            while True:
                connection.sendall(bytes(100_000))


def test_requests_that_are_sent_without_waiting_are_bounded(client):
    requests = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000
    text = asyncio.run(received(str(client.base_url).rstrip("/"), requests))
    assert text.count(b"HTTP/1.1 200") <= 1 + http_protocol.MAX_PIPELINED


def test_a_connection_too_many_is_refused_while_all_others_have_requests_to_answer():
    model = Echo(hold=True)

    async def work(url):
        async with live.Connection(url) as first:
            _, _, body = await first.send(live.upload(live.png()))
            first.write(live.question(json.loads(body)["image_id"], "q"))
            await model.begun()
            refused = await received(url)
            model.release()
            return refused, await first.read()

    with live.serving(make_engine(model), live.settings(max_connections=1)) as url:
        refused, answer = asyncio.run(work(url))
    assert refused.startswith(b"HTTP/1.1 503") and answer[0] == 200


def test_a_connection_too_many_takes_the_place_of_the_one_that_waits_longest_for_its_client():
    health = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    async def work(url):
        silent, half_sent = [await connected(url), await connected(url)]
        head = b"POST /ask_question HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
        half_sent[1].write(head)
        answers = [await received(url, health)]
        ended = await asyncio.wait_for(silent[0].read(), live.PATIENCE)
        further = await connected(url)
        answers.append(await received(url, health))
        ended += await asyncio.wait_for(half_sent[0].read(), live.PATIENCE)
        for _, writer in (silent, half_sent, further):
            await live.hang_up(writer)
        return answers, ended

    with live.serving(make_engine(), live.settings(max_connections=2)) as url:
        answers, ended = asyncio.run(work(url))
    assert [answer[9:12] for answer in answers] == [b"200", b"200"] and ended == b""


def test_a_body_in_tiny_chunks_is_refused(client, monkeypatch):
    monkeypatch.setattr(http_protocol, "MAX_SMALL_PIECES", 100)
    head = b"POST /ask_question HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    text = asyncio.run(received(str(client.base_url).rstrip("/"), head + b"1\r\n \r\n" * 101))
    assert text.startswith(b"HTTP/1.1 400") and b"pieces of less than 64 bytes" in text


def test_a_request_to_upgrade_is_answered_as_any_other(client):
    fields = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"

    async def work(url):
        reader, writer = await connected(url)
        writer.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), live.PATIENCE)
        await live.hang_up(writer)
        return head

    assert asyncio.run(work(str(client.base_url).rstrip("/"))).startswith(b"HTTP/1.1 404")


def test_the_system_limit_of_open_files_is_raised_or_bounds_the_connections(monkeypatch):
    limits = [(256, 1024)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    assert server._allowed_connections(512) == 512 and limits[-1][0] >= 512
    assert server._allowed_connections(4096) == 1024 - server._OTHER_FILES and limits[-1] == (1024, 1024)


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


@contextlib.contextmanager
def picture_that_nobody_reads(url, client, budget):
    """A response of some megabytes, of which the server can send no more than what the system takes."""
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (1600, 1600, 3), np.uint8)
    Image.fromarray(noise).save(out, "PNG")
    image_id = client.post("/upload_image", files={"image_file": out.getvalue()}).json()["image_id"]
    wait_for(lambda: budget.used == 0)
    path = f"/images/{image_id}/picture"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, _, port = url.removeprefix("http://").partition(":")
        connection.connect((host, int(port)))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        yield path, connection


@pytest.fixture
def budget(monkeypatch):
    """The budget of the server that starts next."""
    budgets = []
    initialize = BodyBudget.__init__

    def initialize_and_keep(self, *arguments, **options):
        initialize(self, *arguments, **options)
        budgets.append(self)

    monkeypatch.setattr(BodyBudget, "__init__", initialize_and_keep)
    return budgets


def wait_for(condition):
    until = time.monotonic() + live.PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_large_responses_in_flight_are_bounded_until_they_are_read(budget):
    ten_megabytes = {"max_upload_bytes": 10_000_000, "max_series_bytes": 10_000_000, "body_bytes": 10_000_000}
    with live.serving(make_engine(), live.settings(**ten_megabytes)) as url, live.client_of(base_url=url) as client:
        with picture_that_nobody_reads(url, client, budget[-1]) as (path, _):
            wait_for(lambda: budget[-1].used > 7_000_000)
            refused = client.get(path)
            assert (refused.status_code, refused.json()["detail"]["code"]) == (429, "overloaded")
        wait_for(lambda: budget[-1].used == 0)
        assert client.get(path).content.startswith(b"\x89PNG")


def test_a_client_that_reads_nothing_of_its_answer_loses_its_connection(budget, monkeypatch):
    monkeypatch.setattr(http_protocol, "WRITE_TIMEOUT", 0.05)
    with (
        live.serving(make_engine()) as url,
        live.client_of(base_url=url) as client,
        picture_that_nobody_reads(url, client, budget[-1]) as (_, connection),
    ):
        wait_for(lambda: connection.recv(1, socket.MSG_PEEK) and budget[-1].used == 0)


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


def form_of(files: int) -> bytes:
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nx\r\n'
    return part * files + b"--b--\r\n"


def test_a_form_of_a_thousand_files_leaves_other_requests_their_turns():
    """Which was parsed, read and closed at once: nobody else was answered for a third of a second."""
    app = create_app(make_engine(), live.settings())
    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    scope = {"type": "http", "method": "POST", "path": "/series", "headers": headers, "query_string": b""}
    body = form_of(1000)
    turns = 0
    counted: list[int] = []

    class Decoded(Exception):
        pass

    async def upload_series(files, *, client):
        counted.append(turns)
        assert len(files) == 1000
        raise Decoded

    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message):
        pass

    async def count_turns():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def run():
        app.state.service.upload_series = upload_series
        app.state.models.default.upload_series = upload_series
        other = asyncio.create_task(count_turns())
        await app(
            scope | {"app": app, "client": ("127.0.0.1", 1), "http_version": "1.1", "scheme": "http"}, receive, send
        )
        other.cancel()

    asyncio.run(run())
    assert counted
    assert counted[0] > 1000


@pytest.mark.parametrize("size", [1, 8_191, 8_192, 8_193, 100_000])
def test_a_form_arrives_whole_in_pieces(size):
    body = bytes(n % 251 for n in range(size))
    messages = [
        {"type": "http.request", "body": body, "more_body": True},
        {"type": "http.request", "body": b"", "more_body": True},
        {"type": "http.request", "body": body[::-1], "more_body": False},
        {"type": "http.disconnect"},
    ]
    received: list[Message] = []

    async def application(scope, receive, send):
        while not received or received[-1]["type"] != "http.disconnect":
            received.append(await receive())

    async def receive():
        return messages.pop(0)

    layer = BodyLimitsMiddleware(application, max_bytes=1 << 20, timeout=60, budget=BodyBudget(1 << 20, 1 << 20))
    headers = [(b"content-type", b"Multipart/form-data; boundary=b")]
    scope = {"type": "http", "path": "/upload_image", "headers": headers}
    asyncio.run(layer(scope, receive, receive))
    *pieces, end = received
    assert b"".join(piece["body"] for piece in pieces) == body + body[::-1]
    assert max(len(piece["body"]) for piece in pieces) <= 8_192
    assert [piece["more_body"] for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    assert end == {"type": "http.disconnect"}


def test_the_search_for_garbage_leaves_out_what_lives_as_long_as_the_server(monkeypatch):
    """It kept the event loop for a fifth of a second each time that many objects had been made."""
    frozen: list[int] = []
    monkeypatch.setattr(server.Server, "run", lambda *_, **__: frozen.append(gc.get_freeze_count()))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(server, "configure_logging", lambda *_, **__: None)
    interval = sys.getswitchinterval()
    before = gc.get_freeze_count()
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server.run(make_engine(), live.settings(), listener=listener)
        assert frozen[0] > before + 10_000
    finally:
        gc.unfreeze()
        sys.setswitchinterval(interval)

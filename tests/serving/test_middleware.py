"""What every response passes: request ids, security headers, metrics, and the 500 of an unhandled exception."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import time
import weakref
from pathlib import Path

import live
import pytest
from echo_model import make_engine
from fastapi import routing
from starlette.types import Message

from medical_vqa.serving.api.openai import chat
from medical_vqa.serving.errors import overloaded
from medical_vqa.serving.logs import configure_logging
from medical_vqa.serving.metrics import Metrics
from medical_vqa.serving.middleware.outer import OuterMiddleware
from medical_vqa.serving.service.service import Service


@pytest.fixture(scope="module")
def client():
    with live.serving(make_engine()) as url, live.client_of(base_url=url) as client:
        yield client


@pytest.fixture
def broken(monkeypatch):
    """A server with a bug behind GET /model and GET /v1/models."""

    def fail(*_):
        raise KeyError("a secret of the server")

    monkeypatch.setattr(Service, "info", fail)
    monkeypatch.setattr(chat, "_entry", fail)
    with live.serving(make_engine()) as url, live.client_of(base_url=url) as client:
        yield client


@pytest.fixture
def logged():
    """The log, as the server configures it, once it has the line of a request: that is written after the response."""
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers, root.level
    configure_logging("info", stream)

    def lines():
        until = time.monotonic() + live.PATIENCE
        while '"event": "request"' not in stream.getvalue():
            assert time.monotonic() < until
            time.sleep(0.01)
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    yield lines
    root.handlers = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    "request_id",
    [
        "7", "order-17.retry_2", "0b9f0a52-6f0e-4a57-9d7b-3f6d1c0a7e55", "0b9f0a526f0e4a579d7b3f6d1c0a7e55", "x" * 128,
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",  # W3C traceparent
        "Root=1-67891233-abcdef012345678912345678",  # AWS X-Amzn-Trace-Id
        "105445aa7843bc8bf206b12000100000/1;o=1",  # Google X-Cloud-Trace-Context
        "QmFzZTY0+/Kk==",
    ],
)  # fmt: skip
def test_a_clients_request_id_is_returned(client, request_id):
    assert client.get("/model", headers={"X-Request-ID": request_id}).headers["x-request-id"] == request_id


@pytest.mark.parametrize("request_id", ["", "x" * 129, "a b", 'a"b', "a\tb<script>", "a{b}", "ünicode".encode()])
def test_a_request_id_that_could_do_harm_in_a_log_is_replaced(client, request_id):
    reply = client.get("/model", headers={"X-Request-ID": request_id})
    assert reply.headers["x-request-id"].isalnum() and len(reply.headers["x-request-id"]) == 32


def test_every_request_has_an_id_of_its_own_on_one_connection(client):
    ids = {client.get(path).headers["x-request-id"] for path in ("/model", "/model", "/nothing", "/healthz")}
    assert len(ids) == 4


def test_security_headers_are_on_every_response(client):
    for reply in (client.get("/healthz"), client.get("/nothing"), client.post("/ask_question", content=b"x")):
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["x-frame-options"] == "DENY"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert reply.headers["cache-control"] == "no-store"


def test_the_policy_allows_scripts_only_on_pages():
    with live.serving(make_engine(), live.settings(page=True)) as url:
        policies = {
            path: live.request("GET", f"{url}/{path}").headers["content-security-policy"]
            for path in ("healthz", "docs", "page")
        }
    assert all(policy.startswith("default-src 'none'") for policy in policies.values())
    assert [path for path, policy in policies.items() if "script-src" in policy] == ["docs", "page"]
    assert all("frame-ancestors 'none'; base-uri 'none'" in policy for policy in policies.values())


@pytest.mark.parametrize("path", ["/model", "/v1/models"])
def test_an_unhandled_exception_is_a_500_with_the_id_under_which_it_is_logged(broken, logged, path):
    reply = broken.get(path, headers={"X-Request-ID": "request-17"})
    assert reply.status_code == 500
    assert reply.headers["x-request-id"] == "request-17"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "secret" not in reply.text
    assert reply.json()["error" if path.startswith("/v1") else "detail"]["code"] == "internal"
    unhandled, request = logged()
    assert (unhandled["event"], unhandled["request_id"]) == ("unhandled exception", "request-17")
    assert unhandled["exception"][0]["exc_type"] == "KeyError"
    assert (request["event"], request["status"], request["route"]) == ("request", 500, path)


def test_a_failure_of_the_model_is_logged_under_the_requests_id(logged):
    with live.serving(make_engine()) as url, live.client_of(base_url=url) as client:
        image_id = client.post("/upload_image", files={"image_file": live.png()}).json()["image_id"]
        body = {"image_id": image_id, "question": "crash please"}
        reply = client.post("/ask_question", json=body, headers={"X-Request-ID": "request-18"})
    assert reply.status_code == 500
    (failure,) = [line for line in logged() if line["event"] == "the model failed"]
    assert failure["request_id"] == "request-18"


def test_an_exception_after_the_response_began_is_logged_and_raised(logged):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError("late")

    messages: list[Message] = []

    async def send(message):
        messages.append(message)

    with pytest.raises(KeyError):
        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        asyncio.run(OuterMiddleware(app, metrics=Metrics())(scope, None, send))
    assert [message["type"] for message in messages] == ["http.response.start"]
    assert [line["event"] for line in logged()] == ["unhandled exception", "request"]


def test_requests_are_counted_by_route_method_and_status(broken):
    broken.get("/healthz")
    broken.get("/healthz")
    broken.get("/model")
    broken.get("/images/secret-id/questions")
    broken.get("/no/such/path/123")
    text = broken.get("/metrics").text
    assert 'http_requests_total{handler="/healthz",method="GET",status="200"} 2.0' in text
    assert 'http_requests_total{handler="/model",method="GET",status="500"} 1.0' in text
    assert 'http_requests_total{handler="/images/{image_id}/questions",method="GET",status="404"} 1.0' in text
    assert 'http_requests_total{handler="unmatched",method="GET",status="404"} 1.0' in text
    assert 'http_request_duration_seconds_count{handler="/healthz",method="GET"} 2.0' in text
    assert "http_requests_in_progress 1.0" in text  # this one
    assert "secret-id" not in text and "/no/such/path" not in text


def test_metrics_have_the_process_and_the_version(client):
    text = client.get("/metrics").text
    assert 'medical_vqa_build_info{version="' in text
    assert "process_resident_memory_bytes" in text or not Path("/proc").exists()


def test_a_refusal_of_a_middleware_is_counted(client):
    client.post("/ask_question", content=b" " * 70_000)
    assert 'medical_vqa_refused_total{code="too_large"}' in client.get("/metrics").text


def test_without_a_request_id_the_trace_id_of_the_client_is_used(client):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    reply = client.get("/model", headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    assert reply.headers["x-request-id"] == trace


def test_without_metrics_there_is_no_route_for_them():
    with live.serving(make_engine(), live.settings(metrics=False)) as url:
        assert live.request("GET", f"{url}/metrics").status_code == 404


def test_what_a_refused_request_held_is_freed_at_once_and_not_with_the_next_collection():
    class Body:
        pass

    held = []

    async def app(scope, receive, send):
        body = Body()
        held.append(weakref.ref(body))
        raise overloaded(1.0)

    async def send(message: Message) -> None:
        pass

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    gc.disable()
    try:
        asyncio.run(OuterMiddleware(app, metrics=Metrics())(scope, send, send))
        assert held[0]() is None
    finally:
        gc.enable()


def test_no_request_waits_until_the_routes_are_worked_out(monkeypatch):
    """FastAPI puts that off until a first request, which kept the event loop for more than a tenth of a second."""
    calls: list[str] = []
    worked_out = routing.get_dependant
    monkeypatch.setattr(routing, "get_dependant", lambda **rest: calls.append(rest["path"]) or worked_out(**rest))
    with live.serving(make_engine()) as url, live.client_of(base_url=url) as client:
        prepared = len(calls)
        for path in ("/model", "/series", "/images/a/view", "/conversations", "/nothing"):
            client.get(path)
    assert len(calls) == prepared > 20

"""OpenAI's protocol: its own client asks, streams and is refused as it expects."""

from __future__ import annotations

import base64
import http.server
import json
import threading

import live
import numpy as np
import openai
import pytest
from echo_model import make_engine
from live import png

from medical_vqa.schema.bundle_card import BundleCard
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.middleware.access import hash_key
from medical_vqa.serving.remote_images import fetch_image, is_public

DATA = f"data:image/png;base64,{base64.b64encode(png(60)).decode()}"


def messages(question="What is it?", url=DATA):
    return [{"role": "user", "content": [{"type": "text", "text": question}, image(url)]}]


def image(url=DATA):
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.fixture(scope="module")
def client():
    with (
        live.serving(make_engine()) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def test_the_openai_client_asks_about_a_local_image(client):
    (model,) = client.models.list().data
    reply = client.chat.completions.create(model=model.id, messages=messages())
    assert reply.choices[0].message.content == "60 What is it?"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.medical_vqa["confidence"] == 0.8


def test_a_stream_has_the_same_answer(client):
    stream = client.chat.completions.create(
        model="echo-1", messages=messages(), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "60 What is it?"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage.total_tokens > 0


def test_log_probabilities_carry_the_confidence(client):
    reply = client.chat.completions.create(model="echo-1", messages=messages(), logprobs=True, top_logprobs=2)
    (token,) = reply.choices[0].logprobs.content
    assert round(2.718281828**token.logprob, 6) == 0.8
    assert [t.token for t in token.top_logprobs] == ["60 What is it?", "other"]


def test_the_last_question_is_asked_about_the_newest_image(client):
    earlier = [*messages("First?"), {"role": "assistant", "content": "60 First?"}]
    reply = client.chat.completions.create(
        model="echo-1", messages=[{"role": "system", "content": "x"}, *earlier, {"role": "user", "content": "And now?"}]
    )
    assert reply.choices[0].message.content == "60 And now?"


def test_an_abstention_is_the_content_and_the_refusal():
    card = BundleCard(
        family="echo",
        name="echo-1",
        calibration={"temperature": 1.0, "fitted_on": "nine answers", "threshold": 0.9, "risk": 0.1},
    )
    with live.serving(make_engine(card=card)) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="x") as client:
        message = client.chat.completions.create(model="echo-1", messages=messages()).choices[0].message
    assert message.content.startswith("I am not sure") and message.content.endswith("My best guess: 60 What is it?.")
    assert message.refusal.startswith("I am not sure")


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"model": "gpt-5"}, 404, "serves echo-1"),
        ({"messages": [{"role": "user", "content": "no image"}]}, 400, "no message has an image"),
        ({"messages": messages(" ")}, 400, "no words"),
        ({"messages": messages("x" * 1001)}, 400, "shorten it"),
        ({"messages": messages("a\x00b")}, 400, "control characters"),
        ({"messages": messages(url="data:image/png;base64,!!!")}, 400, "damaged"),
        ({"messages": messages(url="data:image/png,raw")}, 400, "expected an image as data:"),
        ({"messages": messages(url="data:image/png;base64,AAAA")}, 400, "expected"),
        ({"messages": messages(url="https://example.org/a.png")}, 400, "fetches no remote images"),
        ({"messages": messages(url="file:///etc/passwd")}, 400, "fetches no remote images"),
        ({"n": 3}, 422, "n:"),
        ({"messages": []}, 422, "messages"),
    ],
)
def test_refusals_have_openais_shape(client, changes, status, message):
    with pytest.raises(openai.APIStatusError) as error:
        client.chat.completions.create(**{"model": "echo-1", "messages": messages(), **changes})
    assert error.value.status_code == status
    assert message in error.value.body["message"]


def test_a_missing_key_is_openais_authentication_error():
    with live.serving(make_engine(), live.settings(api_keys=hash_key("right"))) as url:
        for key in ("wrong", "right"):
            with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
                if key == "wrong":
                    with pytest.raises(openai.AuthenticationError):
                        client.models.list()
                else:
                    assert client.models.list().data


def test_the_model_for_openai_endpoints_can_ask_it(echo):
    from medical_vqa.models.base import Query
    from medical_vqa.models.remote.endpoint import Endpoint
    from medical_vqa.models.remote.model import RemoteModel
    from medical_vqa.schema.bundle_card import Decoding

    model = RemoteModel(Endpoint("echo-1", f"{echo}/v1"), api_key="x", probe=False)
    (prediction,) = model.answer([Query("q", "Which?", "i", np.full((16, 16, 3), 60, np.uint8))], Decoding())
    model.close()
    assert "Which?" in prediction.answer
    assert prediction.confidence == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1", "fe80::1%eth0",
    ],
)  # fmt: skip
def test_no_address_of_a_private_network_is_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111"])
def test_the_public_internet_is_public(address):
    assert is_public(address)


class _Pictures(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/turn":
            self.send_response(302)
            self.send_header("Location", "/picture")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(png(40) if self.path == "/picture" else bytes(200_000))

    def log_message(self, *_):
        pass


@pytest.fixture
def pictures():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Pictures) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def fetched(url, **options):
    import asyncio

    return asyncio.run(
        fetch_image(url, **{"max_bytes": 100_000, "timeout": 5, "is_allowed": lambda _: True, **options})
    )


def test_a_remote_image_is_fetched_within_bounds(pictures):
    assert fetched(f"{pictures}/picture") == png(40)
    for url, status in ((f"{pictures}/large", 413), (f"{pictures}/turn", 400), ("http://127.0.0.1:1/", 400)):
        with pytest.raises(ApiError) as refused:
            fetched(url)
        assert refused.value.status == status


@pytest.mark.parametrize("url", ["ftp://a/b", "http://user:word@127.0.0.1/", "http://", "http://[::1", "gopher:x"])
def test_other_urls_are_refused(url):
    with pytest.raises(ApiError):
        fetched(url)


def test_with_remote_images_allowed_private_addresses_stay_refused(pictures):
    with live.serving(make_engine(), live.settings(remote_images=True)) as url:
        body = {"model": "echo-1", "messages": messages(url=f"{pictures}/picture")}
        reply = live.request("POST", f"{url}/v1/chat/completions", content=json.dumps(body))
        assert reply.status_code in (400, 422)
        reply = live.request("POST", f"{url}/v1/chat/completions", json=body)
    assert reply.status_code == 400
    assert "public internet" in reply.json()["error"]["message"]

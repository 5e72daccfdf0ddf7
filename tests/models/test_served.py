"""A served model, against a fake endpoint on this machine that speaks the same protocol."""

from __future__ import annotations

import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medical_vqa.data.prepared.selection import Selection
from medical_vqa.errors import ConfigError, ModelError
from medical_vqa.models.base import Decoding, Query
from medical_vqa.models.remote.openai import Endpoint, Served, confidence
from medical_vqa.pipelines.load import remote
from medical_vqa.pipelines.predict import predict
from medical_vqa.schema.records import read_predictions

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


class Fake:
    """Answers "yes"; `failures` are the statuses of the first requests, and `limit` the number it answers at all."""

    def __init__(self) -> None:
        self.failures: list[int] = []
        self.limit = 10**9
        self.asked: list[dict] = []
        self.headers: list[dict] = []
        self.lock, self.running, self.most = threading.Lock(), 0, 0
        self.reply = {
            "choices": [{"message": {"content": " Yes\n"}, "logprobs": {"content": [{"logprob": -0.1}]}}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 2},
        }
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with fake.lock:
                    fake.running += 1
                    fake.most = max(fake.most, fake.running)
                    fake.asked.append(body)
                    fake.headers.append(dict(self.headers))
                    status = fake.failures.pop(0) if fake.failures else 200 if len(fake.asked) <= fake.limit else 503
                threading.Event().wait(0.005)
                content = json.dumps(fake.reply if status == 200 else {"error": "no such luck"}).encode()
                with fake.lock:
                    fake.running -= 1
                self.send_response(status)
                self.send_header("retry-after", "0")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def fake():
    made = Fake()
    yield made
    made.close()


@pytest.fixture
def ask(fake):
    made: list[Served] = []

    def run(*, n: int = 1, concurrency: int = 4, tries: int = 3, sleep=lambda seconds: None, **settings):
        model = Served(
            Endpoint("m", fake.url, tries=tries, **settings), api_key="k", concurrency=concurrency, sleep=sleep
        )
        made.append(model)
        visual = np.full((8, 6, 3), 7, np.uint8)
        return model, model.answer([Query(str(i), f"Is it {i}?", "image", visual) for i in range(n)], Decoding())

    yield run
    for model in made:
        model.close()


def test_question_and_picture_are_sent_and_the_answer_comes_back(ask, fake):
    model, (answer,) = ask()
    assert (answer.id, answer.answer, answer.raw) == ("0", "Yes", " Yes\n")
    assert answer.confidence == pytest.approx(0.9048, abs=1e-4)
    (body,) = fake.asked
    text, picture = body["messages"][0]["content"]
    assert (body["model"], body["temperature"], body["logprobs"]) == ("m", 0, True)
    assert text["text"].endswith("Question: Is it 0?")
    sent = Image.open(io.BytesIO(base64.b64decode(picture["image_url"]["url"].partition(",")[2])))
    assert (sent.size, sent.getpixel((0, 0))) == ((6, 8), (7, 7, 7))
    assert {k.lower(): v for k, v in fake.headers[0].items()}["authorization"] == "Bearer k"
    assert model.usage.to_json() == {"requests": 1, "retries": 0, "prompt_tokens": 10, "completion_tokens": 2}


def test_answers_keep_their_order_while_several_requests_run(ask, fake):
    _, answers = ask(n=30, concurrency=6)
    assert [answer.id for answer in answers] == [str(i) for i in range(30)]
    assert 1 < fake.most <= 6


def test_what_fails_for_a_passing_reason_is_tried_again_and_counted(ask, fake):
    fake.failures = [429, 503]
    waits: list[float] = []
    model, (answer,) = ask(sleep=waits.append)
    assert answer.answer == "Yes"
    assert (model.usage.retries, waits) == (2, [0.0, 0.0])


def test_an_endpoint_that_stays_away_is_given_up_with_what_to_do(ask, fake):
    fake.failures = [503] * 9
    with pytest.raises(ModelError, match=r"in 3 tries \(HTTP 503\); answers so far are kept"):
        ask()


def test_no_endpoint_at_all(ask, fake):
    model = Served(Endpoint("m", "http://127.0.0.1:1/v1", tries=2), sleep=lambda seconds: None)
    with pytest.raises(ModelError, match="could not be had in 2 tries"):
        model.answer([Query("1", "Is it?", "i", np.zeros((2, 2, 3), np.uint8))], Decoding())
    model.close()


@pytest.mark.parametrize(("status", "advice"), [(401, "--api-key-env"), (404, "--base-url"), (400, "--no-logprobs")])
def test_what_fails_for_good_is_said_at_once(ask, fake, status, advice):
    fake.failures = [status]
    with pytest.raises(ModelError, match=advice):
        ask()
    assert len(fake.asked) == 1


@pytest.mark.parametrize("reply", [{}, {"choices": []}, {"choices": [{"message": None}]}])
def test_a_reply_of_another_shape_is_refused(ask, fake, reply):
    fake.reply = reply
    with pytest.raises(ModelError, match="without choices"):
        ask()


def test_an_empty_answer_is_an_answer_and_logprobs_can_be_left_out(ask, fake):
    fake.reply = {"choices": [{"message": {"content": None}}]}
    _, (answer,) = ask(logprobs=False)
    assert (answer.answer, answer.confidence) == ("", None)
    assert "logprobs" not in fake.asked[0]


def test_confidence_ignores_what_is_no_number():
    assert confidence({"logprobs": {"content": [{"logprob": float("-inf")}, {"logprob": None}]}}) is None
    assert confidence({"logprobs": {"content": [{"logprob": 0.001}]}}) == 1.0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "", "base_url": "http://x/v1"}, "needs a name"),
        ({"model": "m", "base_url": "x/v1"}, "expected http"),
        ({"model": "m", "base_url": "http://x/v1", "prompt": "hello"}, "{question}"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        Endpoint(**settings)


def test_a_dataset_is_answered_resumed_and_counted(fake, root: Path, tmp_path: Path):
    chosen = Selection("slake-mini", root, {"modality": "MRI"})
    n, out = len(chosen.rows("validation")), tmp_path / "run" / "predictions-validation.jsonl"
    fake.limit = 20
    loaded = remote(Endpoint("m", fake.url, tries=1), concurrency=2)
    with pytest.raises(ModelError, match="run the same command again"):
        predict(loaded, split="validation", selection=chosen, out=out)
    assert not out.exists()
    fake.limit, before = 10**9, len(fake.asked)
    usage = predict(loaded, split="validation", selection=chosen, out=out).usage
    assert len(read_predictions(out)) == n
    assert len(fake.asked) - before < n
    assert usage.requests >= n
    assert json.loads(out.with_name("predictions-validation.usage.json").read_text())["requests"] == usage.requests
    assert usage.cost(per_million_in=1e6, per_million_out=0) == usage.prompt_tokens
    card = json.loads(out.with_name("predictions-validation.card.json").read_text())
    assert card["model"]["family"] == "openai"


def test_questions_about_other_images_make_a_baseline_of_the_served_model(fake, root: Path, tmp_path: Path):
    from medical_vqa.pipelines.score import score

    chosen, out = Selection("slake-mini", root, {"modality": "MRI"}), tmp_path / "run"
    loaded = remote(Endpoint("m", fake.url, logprobs=False))
    path = out / "predictions-validation.jsonl"
    predict(loaded, split="validation", selection=chosen, out=path)
    shuffled_path = out / "shuffled-validation.jsonl"
    predict(loaded, split="validation", selection=chosen, out=shuffled_path, shuffle_images=True)
    said = [
        (text["text"], picture["image_url"]["url"])
        for text, picture in (b["messages"][0]["content"] for b in fake.asked)
    ]
    plain, shuffled = sorted(said[: len(said) // 2]), sorted(said[len(said) // 2 :])
    assert [text for text, _ in plain] == [text for text, _ in shuffled]
    assert plain != shuffled
    assert "image-shuffled" in score(path).baselines

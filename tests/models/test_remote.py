"""A remote model, against a fake endpoint on this machine that speaks the same protocol."""

from __future__ import annotations

import base64
import io
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.errors import ConfigError, MissingDependencyError, ModelError
from medical_vqa.models.base import Query
from medical_vqa.models.remote.openai import Endpoint, RemoteModel
from medical_vqa.pipelines.load import remote
from medical_vqa.pipelines.predict import predict
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import read_predictions
from medical_vqa.schema.selection import Selection

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
                self.send_header("retry-after-ms", "1")
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
    endpoint = Fake()
    yield endpoint
    endpoint.close()


@pytest.fixture
def connect(fake):
    models: list[RemoteModel] = []

    def create(*, concurrency: int = 4, tries: int = 3, **settings):
        model = RemoteModel(Endpoint("m", fake.url, tries=tries, **settings), api_key="k", concurrency=concurrency)
        models.append(model)
        return model

    yield create
    for model in models:
        model.close()


def questions(n: int) -> list[Query]:
    return [Query(str(i), f"Is it {i}?", "image", np.full((8, 6, 3), 7, np.uint8)) for i in range(n)]


@pytest.fixture
def ask(connect):
    def run(*, n: int = 1, **settings):
        model = connect(**settings)
        return model, model.answer(questions(n), Decoding())

    return run


def test_question_and_picture_are_sent_and_the_answer_comes_back(ask, fake):
    model, (answer,) = ask()
    assert (answer.id, answer.answer, answer.raw) == ("0", "Yes", " Yes\n")
    assert answer.confidence == pytest.approx(0.9048, abs=1e-4)
    (body,) = fake.asked
    text, picture = body["messages"][0]["content"]
    assert (body["model"], body["temperature"], body["logprobs"]) == ("m", 0, True)
    assert text["text"].endswith("Question: Is it 0?")
    picture_sent = Image.open(io.BytesIO(base64.b64decode(picture["image_url"]["url"].partition(",")[2])))
    assert (picture_sent.size, picture_sent.getpixel((0, 0))) == ((6, 8), (7, 7, 7))
    assert {k.lower(): v for k, v in fake.headers[0].items()}["authorization"] == "Bearer k"
    assert model.usage.to_json() == {"requests": 1, "retries": 0, "prompt_tokens": 10, "completion_tokens": 2}


def test_answers_keep_their_order_while_several_requests_run(ask, fake):
    _, answers = ask(n=30, concurrency=6)
    assert [answer.id for answer in answers] == [str(i) for i in range(30)]
    assert 1 < fake.most <= 6


def test_requests_that_fail_for_a_temporary_reason_are_repeated_and_counted(ask, fake):
    fake.failures = [429, 503]
    model, (answer,) = ask()
    assert answer.answer == "Yes"
    assert (model.usage.requests, model.usage.retries) == (1, 2)


def test_an_endpoint_that_stays_unavailable_is_given_up_with_what_to_do(connect, fake):
    fake.failures = [503] * 9
    model = connect()
    with pytest.raises(ModelError, match=r"in 3 tries \(HTTP 503\); answers so far are saved"):
        model.answer(questions(1), Decoding())
    assert (len(fake.asked), model.usage.requests, model.usage.retries) == (3, 0, 2)


def test_no_endpoint_at_all(monkeypatch):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.0)
    model = RemoteModel(Endpoint("m", "http://127.0.0.1:1/v1", tries=2))
    with pytest.raises(ModelError, match=r"did not answer in 2 tries \(ConnectError"):
        model.answer(questions(1), Decoding())
    model.close()


def test_without_the_client_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'medical-vqa\[remote\]'"):
        RemoteModel(Endpoint("m", "http://127.0.0.1:1/v1"))


def test_an_endpoint_that_needs_no_key_gets_none_of_the_users(fake, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    model = RemoteModel(Endpoint("m", fake.url))
    model.answer(questions(1), Decoding())
    model.close()
    assert "secret" not in json.dumps(fake.headers)


@pytest.mark.parametrize(("status", "advice"), [(401, "--api-key-env"), (404, "--base-url"), (400, "--no-logprobs")])
def test_a_refused_request_is_not_repeated(ask, fake, status, advice):
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


@pytest.mark.parametrize(
    ("logprobs", "confidence"),
    [
        ([float("-inf"), None], None),
        ([0.001], 1.0),
        ([-0.1, None, -0.3], pytest.approx(0.8187, abs=1e-4)),
        ([], None),
    ],
)
def test_confidence_ignores_log_probabilities_that_are_no_finite_number(ask, fake, logprobs, confidence):
    fake.reply["choices"][0]["logprobs"] = {"content": [{"logprob": value} for value in logprobs]}
    _, (answer,) = ask()
    assert answer.confidence == confidence


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
    selection = Selection(dataset="slake-mini", root=root, where={"modality": "MRI"})
    n, out = len(SelectedDataset.open(selection).rows("validation")), tmp_path / "run" / "predictions-validation.jsonl"
    fake.limit = 20
    loaded = remote(Endpoint("m", fake.url, tries=1), concurrency=2)
    with pytest.raises(ModelError, match="run the same command again"):
        predict(loaded, split="validation", selection=selection, out=out)
    assert not out.exists()
    fake.limit, before = 10**9, len(fake.asked)
    usage = predict(loaded, split="validation", selection=selection, out=out).usage
    assert len(read_predictions(out)) == n
    assert len(fake.asked) - before < n
    assert usage.requests >= n
    assert json.loads(out.with_name("predictions-validation.usage.json").read_text())["requests"] == usage.requests
    assert usage.cost(per_million_in=1e6, per_million_out=0) == usage.prompt_tokens
    card = json.loads(out.with_name("predictions-validation.card.json").read_text())
    assert card["model"]["family"] == "openai"


def test_questions_about_other_images_make_a_baseline_of_the_remote_model(fake, root: Path, tmp_path: Path):
    from medical_vqa.pipelines.score import score

    selection, out = Selection(dataset="slake-mini", root=root, where={"modality": "MRI"}), tmp_path / "run"
    loaded = remote(Endpoint("m", fake.url, logprobs=False))
    path = out / "predictions-validation.jsonl"
    predict(loaded, split="validation", selection=selection, out=path)
    shuffled_path = out / "shuffled-validation.jsonl"
    predict(loaded, split="validation", selection=selection, out=shuffled_path, shuffle_images=True)
    requests = [
        (text["text"], picture["image_url"]["url"])
        for text, picture in (b["messages"][0]["content"] for b in fake.asked)
    ]
    plain, shuffled = sorted(requests[: len(requests) // 2]), sorted(requests[len(requests) // 2 :])
    assert [text for text, _ in plain] == [text for text, _ in shuffled]
    assert plain != shuffled
    assert "image-shuffled" in score(path).baselines

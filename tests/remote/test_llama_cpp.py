"""Remote models against llama.cpp's server, a real engine with log-probabilities, with a tiny random LLaVA in GGUF."""

from __future__ import annotations

import io
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("xllamacpp", reason="needs llama.cpp's server: pip install xllamacpp")
sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))
import live
from fake_endpoint import printable
from llama_engine import CONTEXT, LlamaEngine

from medical_vqa.errors import EndpointDownError, ModelError
from medical_vqa.models.base import Query
from medical_vqa.models.remote.endpoint import Endpoint
from medical_vqa.models.remote.model import RemoteModel
from medical_vqa.pipelines.load import remote
from medical_vqa.pipelines.serve import remote_engine
from medical_vqa.schema.bundle_card import Decoding

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


def running(folder, **options):
    engine = LlamaEngine(folder, **options)
    engine.start()
    yield engine
    if engine.process is not None:
        engine.kill()


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    yield from running(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def own_engine(tmp_path):
    yield from running(tmp_path)


@pytest.fixture
def blind_engine(tmp_path):
    yield from running(tmp_path, sees=False)


@pytest.fixture
def connect():
    models = []

    def create(engine, **settings):
        endpoint = Endpoint("tiny", **{"base_url": engine.url, "max_tokens": 8, "tries": 1, **settings})
        models.append(RemoteModel(endpoint, concurrency=2))
        return models[-1]

    yield create
    for model in models:
        model.close()


def query(value: int, question: str = "Is the liver healthy?", **around) -> Query:
    return Query(str(value), question, str(value), np.full((30, 40, 3), value, np.uint8), **around)


def test_it_sees_the_picture_counts_tokens_and_gives_a_confidence(engine, connect):
    model = connect(engine)
    model.check()
    dark, bright, again = model.answer([query(0), query(255), query(0)], Decoding())
    assert dark.raw == again.raw != bright.raw
    assert 0 < dark.confidence < 1
    assert dark.confidence_basis == "probability"
    assert model.usage.requests == 3
    assert model.usage.prompt_tokens > 3 * 100
    cut = "3 answers were cut off after 8 tokens; raise max_tokens in models.yaml"
    assert model.notes == (cut,)  # it takes every option


def test_it_streams_what_it_answers_as_a_whole(engine, connect):
    model, texts = connect(engine), []
    streamed = model.submit(query(9), texts.append).result()
    assert streamed.raw == model.answer([query(9)], Decoding())[0].raw
    assert len(texts) > 1
    assert printable(texts[-1]) == printable(streamed.raw)


def test_it_takes_a_conversation_and_several_pictures(engine, connect):
    model, other = connect(engine), np.full((30, 40, 3), 200, np.uint8)
    queries = [query(9), query(9, turns=(("Is it CT?", "Yes"),)), query(9, other_visuals=(other,))]
    alone, after_a_turn, with_another = model.answer(queries, Decoding())
    assert len({alone.raw, after_a_turn.raw, with_another.raw}) == 3


def test_canceling_leaves_the_engine_free_for_the_next_question(engine, connect):
    model, begun = connect(engine, max_tokens=CONTEXT), threading.Event()
    long_answer = model.submit(query(9), lambda _: begun.set())
    assert begun.wait(60)
    long_answer.cancel()
    assert len(model.answer([query(1)], Decoding())) == 1


def test_a_conversation_longer_than_its_context_is_one_sentence(engine, connect):
    turns = (("long " * 190, "Yes"),) * 3
    with pytest.raises(ModelError, match=rf"longer than tiny can read .*{CONTEXT} tokens"):
        connect(engine).answer([query(1, "word " * 190, turns=turns)], Decoding())


def test_an_address_without_its_version_works(engine, connect):
    assert len(connect(engine, base_url=engine.url.removesuffix("/v1")).answer([query(1)], Decoding())) == 1


def test_without_its_projector_it_takes_no_pictures(blind_engine, connect):
    with pytest.raises(ModelError, match=r"takes no pictures .*mmproj"):
        connect(blind_engine).answer([query(1)], Decoding())


def test_killed_while_it_answers_and_back_again(own_engine, connect):
    model = connect(own_engine, max_tokens=CONTEXT)

    def kill(_text: str) -> None:
        if own_engine.process is not None:
            own_engine.kill()

    with pytest.raises(EndpointDownError, match=r"the answer broke off|did not answer"):
        model.submit(query(9), kill).result()
    with pytest.raises(EndpointDownError, match="no connection: Connection refused"):
        model.answer([query(1)], Decoding())
    own_engine.start()
    assert len(model.answer([query(1)], Decoding())) == 1


@pytest.mark.slow
def test_a_server_in_front_of_it_ends_every_request_when_it_is_killed_under_load(own_engine):
    loaded = remote(Endpoint("tiny", own_engine.url, max_tokens=64, tries=2), concurrency=32)
    settings = live.settings(remote_deadline=live.PATIENCE)
    with live.serving(remote_engine(loaded, settings), settings) as url, ThreadPoolExecutor(16) as clients:
        out = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32), np.uint8)).save(out, "PNG")
        uploaded = live.request("POST", f"{url}/upload_image", files={"image_file": ("a.png", out.getvalue())})
        answered = threading.Event()

        def ask(number: int) -> tuple[int, str]:
            body = {"image_id": uploaded.json()["image_id"], "question": f"Is it {number}?"}
            reply = live.request("POST", f"{url}/ask_question", json=body)
            if reply.status_code == 200:
                answered.set()
            return reply.status_code, reply.json().get("detail", {}).get("code", "")

        requests = [clients.submit(ask, number) for number in range(64)]
        assert answered.wait(live.PATIENCE)
        own_engine.kill()
        outcomes = Counter(request.result() for request in requests)
    assert set(outcomes) == {(200, ""), (503, "engine_unavailable")}
    assert outcomes.total() == 64

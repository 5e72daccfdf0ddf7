"""Remote models against a real engine: `transformers serve` with tiny random models in their published layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_endpoint import printable
from PIL import Image

import medical_vqa as mv
from medical_vqa.errors import EndpointDownError, ModelError
from medical_vqa.models.base import Query
from medical_vqa.models.remote.endpoint import Endpoint
from medical_vqa.models.remote.model import RemoteModel
from medical_vqa.schema.bundle_card import Decoding

pytestmark = [pytest.mark.slow, pytest.mark.allow_hosts(["127.0.0.1"])]


def query(value: int, question: str = "Is the liver healthy?") -> Query:
    return Query(str(value), question, str(value), np.full((30, 40, 3), value, np.uint8))


@pytest.fixture(params=["llava", "gemma3"])
def engine(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def model(engine):
    model = RemoteModel(Endpoint(engine.model, engine.url, max_tokens=8, tries=1), concurrency=2)
    yield model
    model.close()


def test_a_real_engine_sees_the_picture_and_counts_tokens(model):
    model.check()
    answers = model.answer([query(0), query(255), query(0)], Decoding())
    assert [answer.id for answer in answers] == ["0", "255", "0"]
    assert answers[0].raw == answers[2].raw
    assert model.usage.requests == 3
    assert model.usage.completion_tokens >= 3
    assert all(answer.confidence is None for answer in answers)  # it ignores logprobs


def test_a_real_engine_streams_and_goes_on_after_the_asker_has_left(model):
    (whole,) = model.answer([query(9)], Decoding())
    texts: list[str] = []
    streamed = model.submit(query(9), texts.append).result()
    assert printable("".join(texts[-1:])) == printable(streamed.raw)  # it holds bytes back that are no whole character
    model.submit(query(8), texts.append).cancel()
    assert model.answer([query(9)], Decoding())[0].raw == whole.raw


def test_a_real_engine_takes_a_conversation(model):
    picture = np.full((30, 40, 3), 9, np.uint8)
    follow_up = Query("q", "And the spleen?", "i", picture, turns=(("Is the liver healthy?", "Yes"),))
    assert model.answer([follow_up], Decoding())[0].id == "q"
    assert model.usage.prompt_tokens > 100


def test_a_real_engine_names_the_model_that_it_serves_instead(engine):
    model = RemoteModel(Endpoint("renamed", engine.url, tries=1), probe=False)
    with pytest.raises(ModelError, match="has no model renamed"):
        model.answer([query(0)], Decoding())
    model.close()


def test_an_address_without_its_version_finds_the_real_engine(engine):
    model = RemoteModel(Endpoint(engine.model, engine.url.removesuffix("/v1"), max_tokens=4, tries=1))
    assert model.answer([query(0)], Decoding())[0].id == "0"
    assert "write --base-url with /v1" in model.notes[0]
    model.close()


def test_an_engine_that_is_killed_and_comes_back(llava):
    model = RemoteModel(Endpoint(llava.model, llava.url, max_tokens=4, tries=1))
    assert len(model.answer([query(0)], Decoding())) == 1
    llava.kill()
    with pytest.raises(EndpointDownError, match="did not answer"):
        model.answer([query(0)], Decoding())
    llava.start()
    assert len(model.answer([query(0)], Decoding())) == 1
    model.close()


def test_the_public_api_asks_a_real_engine(llava, tmp_path: Path):
    Image.new("L", (40, 30), 99).save(tmp_path / "picture.png")
    with mv.load(f"openai:{llava.model}", base_url=llava.url) as model:
        answer = model.ask(tmp_path / "picture.png", "Is the liver healthy?")
    assert (answer.model, answer.confidence) == (llava.model, None)

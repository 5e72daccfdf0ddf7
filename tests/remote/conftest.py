"""Fixtures of the tests of remote models: a fake endpoint, and a real engine with tiny random models."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medical_vqa.models.remote.endpoint import Endpoint
from medical_vqa.models.remote.model import RemoteModel
from medical_vqa.schema.bundle_card import Decoding

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))

from fake_endpoint import FakeEndpoint, questions
from real_engine import Engine


@pytest.fixture
def fake() -> Iterator[FakeEndpoint]:
    endpoint = FakeEndpoint()
    yield endpoint
    endpoint.close()


@pytest.fixture
def connect(fake: FakeEndpoint) -> Iterator[Any]:
    models: list[RemoteModel] = []

    def create(
        *, concurrency: int = 4, tries: int = 3, probe: bool = False, api_key: str = "k", **settings: Any
    ) -> Any:
        settings = {"base_url": fake.url, **settings}
        endpoint = Endpoint("m", tries=tries, **settings)
        model = RemoteModel(endpoint, api_key=api_key, concurrency=concurrency, probe=probe)
        models.append(model)
        return model

    yield create
    for model in models:
        model.close()


@pytest.fixture
def ask(connect: Any) -> Any:
    def run(*, n: int = 1, text: str = "Is it {}?", **settings: Any) -> Any:
        model = connect(**settings)
        return model, model.answer(questions(n, text), Decoding())

    return run


def _engine(kind: str, folder: Path) -> Iterator[Engine]:
    import tiny_hub

    engine = Engine(tiny_hub.chat(folder / kind, kind), folder / "log")
    engine.start()
    yield engine
    if engine.process is not None:
        engine.kill()


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A real engine with a tiny LLaVA-1.5."""
    yield from _engine("llava", tmp_path_factory.mktemp("llava-engine"))


@pytest.fixture(scope="session")
def gemma3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A real engine with a tiny Gemma 3, the architecture of MedGemma."""
    yield from _engine("gemma3", tmp_path_factory.mktemp("gemma3-engine"))

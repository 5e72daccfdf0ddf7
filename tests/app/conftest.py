"""Tests of the page's parts; they connect only to a small backend on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))
from fake_backend import FakeBackend

from medical_vqa.app.client import Backend
from medical_vqa.app.session import Session


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.allow_hosts(["127.0.0.1"]))


@pytest.fixture
def fake() -> Iterator[FakeBackend]:
    backend = FakeBackend()
    yield backend
    backend.stop()


@pytest.fixture
def other() -> Iterator[FakeBackend]:
    """A second small backend, for comparison."""
    backend = FakeBackend("other-model")
    yield backend
    backend.stop()


@pytest.fixture
def backend(fake: FakeBackend) -> Backend:
    """A client of the small backend that does not wait between attempts."""
    return Backend(fake.address, sleep=lambda _: None)


@pytest.fixture
def session() -> Session:
    return Session()

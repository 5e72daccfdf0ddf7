"""Tests of the server run against it over a real socket; nothing but this machine may be reached."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

sys.path.insert(0, str(Path(__file__).parent))
import echo_model
import live


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """No line per request, which would cost more than the request."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.enable_socket)
            item.add_marker(pytest.mark.allow_hosts(["127.0.0.1", "::1", "localhost"]))


@pytest.fixture(scope="session")
def scan() -> bytes:
    """A real picture of the sample."""
    from medical_vqa.data.formats.slake_mini import SlakeMini

    return (SlakeMini().bundled() / "imgs" / "xmlab112" / "source.jpg").read_bytes()


@pytest.fixture
def echo() -> Iterator[str]:
    """A server whose answers contain image and question."""
    with live.serving(echo_model.make_engine()) as url:
        yield url

"""Tests of the server run against it over a real socket; nothing but this machine may be reached."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import live
import models


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.enable_socket)
            item.add_marker(pytest.mark.allow_hosts(["127.0.0.1", "::1", "localhost"]))


@pytest.fixture(autouse=True)
def _warnings(recwarn: Any) -> Iterator[None]:
    yield


def png(grey: int = 100, side: int = 16) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((side, side), grey, np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="session")
def scan() -> bytes:
    """A real picture of the sample."""
    from medical_vqa.data.sample import SlakeMini

    return (SlakeMini().bundled() / "imgs" / "xmlab112" / "source.jpg").read_bytes()


@pytest.fixture
def echo() -> Iterator[str]:
    """A server whose answers name image and question."""
    with live.serving(models.engine()) as url:
        yield url

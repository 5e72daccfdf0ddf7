"""Fixtures of the contract tests: tiny checkpoints in published layouts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
from layouts import LAYOUTS


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes a checkpoint of a layout once; gives its folder."""
    folders: dict[str, Path] = {}

    def write(name: str) -> Path:
        if name not in folders:
            folders[name] = LAYOUTS[name].write(tmp_path_factory.mktemp(name))
        return folders[name]

    return write

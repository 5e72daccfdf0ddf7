"""The tools that check deployment files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def tool():
    """Runs a checker that pip installed next to python; returns its exit status and its output."""

    def run(name: str, *arguments: str | Path, stdin: str = "") -> tuple[int, str]:
        path = shutil.which(name, path=str(Path(sys.executable).parent))
        assert path, f"{name} is not installed; run: pip install -e '.[dev]'"
        process = subprocess.run([path, *map(str, arguments)], check=False, input=stdin, capture_output=True, text=True)
        return process.returncode, process.stdout + process.stderr

    return run

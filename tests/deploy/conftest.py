"""The tools that check deployment files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def tool():
    """Runs a checker that pip installed beside python; returns its exit status and what it said."""

    def run(name: str, *arguments: str | Path, stdin: str = "") -> tuple[int, str]:
        found = shutil.which(name, path=str(Path(sys.executable).parent))
        assert found, f"{name} is not installed; run: pip install -e '.[dev]'"
        done = subprocess.run([found, *map(str, arguments)], check=False, input=stdin, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    return run

"""The structure figures, on a package small enough to count by hand."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"

MAIN = '''"""A module."""

def public(rows):
    """Two lines below.

    With more."""
    first = _once(rows)
    return _twice(first) + _twice(rows)


def _once(rows):
    return rows


def _twice(rows):
    return rows


class Reader:
    def __init__(self):
        self._state = self._load()

    def _load(self):
        found = 1
        a = 1
        b = 2
        c = 3
        d = 4
        return found, a, b, c, d
'''


def test_functions_private_uses_and_words_are_counted(tmp_path):
    package = tmp_path / "src/medical_vqa"
    (package / "data").mkdir(parents=True)
    (package / "main.py").write_text(MAIN)
    (package / "data/other.py").write_text("def f():\n    # the floor\n    return 1\n")
    (package / "data/style.css").write_text("")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/page.md").write_text("A folder of one's own.\n")
    output = subprocess.run(
        [sys.executable, TOOLS / "measure_structure.py", tmp_path / "src"], capture_output=True, text=True, check=True
    ).stdout
    assert "modules: 2\n" in output
    assert [line.split() for line in output.splitlines()[2:4]] == [[".", "1", "0"], ["data", "1", "1"]]
    assert "functions and methods: 6; lines without docstring: median 2.5, p90 7, max 7" in output
    assert "private functions and methods: 3\n  referenced exactly once: 2\n" in output  # _once and _load
    assert "at most 5 lines of body: 1\n" in output
    assert "medical_vqa: idioms of the word list: 1\n" in output
    assert "medical_vqa: variables named by a bare participle: 1\n  found 1\n" in output
    assert "docs: idioms of the word list: 1\n" in output


@pytest.mark.slow
def test_one_score_is_followed_from_the_command_to_the_file():
    output = subprocess.run(
        [sys.executable, TOOLS / "trace_score.py", "--functions"], capture_output=True, text=True, check=True
    ).stdout
    figures = dict(line.split(": ") for line in output.splitlines()[:3])
    assert int(figures["modules entered"]) > 5
    assert int(figures["calls"]) > int(figures["distinct functions called"]) > 20
    assert "  score" in output and "predictions-validation.jsonl" in output

"""The security checklist, and the cases of medical images, name tests that exist, one for every line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs/explanation/security.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["explanation/security.md", "decisions/0006-image-ingest.md"])
def test_every_test_that_the_page_names_exists(page):
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert len(named) > 25
    for file, name in named:
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), (file, name)


def test_every_line_of_the_chapter_is_there_and_has_a_test_or_a_reason():
    lines = ["5.1.1", *(f"5.2.{n}" for n in range(1, 7)), *(f"5.3.{n}" for n in (1, 2, 3)), "5.4.1", "5.4.3"]
    for line in lines:
        (row,) = re.findall(rf"^\| {re.escape(line)}\b.*$", TABLE, re.MULTILINE)
        assert "`tests/" in row or "does not apply" in row

"""A prepared dataset is parsed once by each command, however many stages use it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.pipelines.audit import audit, audit_page
from medical_vqa.pipelines.report import report
from medical_vqa.pipelines.score import score

_recorded: list[str] | None = None  # an audit hook cannot be removed, only be silent


def _record(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _recorded is not None:
        _recorded.append(str(arguments[0]))


sys.addaudithook(_record)


@contextmanager
def opened(folder: Path) -> Iterator[Counter[str]]:
    """Counts, by name, the files of a folder that the block opens; complete when it ends."""
    global _recorded  # noqa: PLW0603
    counts: Counter[str] = Counter()
    _recorded = []
    try:
        yield counts
        counts.update(Path(name).name for name in _recorded if Path(name).parent == folder)
    finally:
        _recorded = None


@pytest.fixture
def scored_files(run: Path) -> Path:
    return run / "predictions-validation.jsonl"


@pytest.mark.slow
def test_scoring_opens_the_manifest_and_each_split_once(root: Path, scored_files: Path) -> None:
    with opened(root / "slake-mini") as counts:
        score(scored_files)
    assert {name: counts[name] for name in ("manifest.json", "train.jsonl", "validation.jsonl")} == {
        "manifest.json": 1,
        "train.jsonl": 1,
        "validation.jsonl": 1,
    }


@pytest.mark.slow
def test_a_report_on_scored_answers_opens_them_no_more(root: Path, scored_files: Path, tmp_path: Path) -> None:
    scored = score(scored_files)
    with opened(root / "slake-mini") as counts:
        report(scored, tmp_path / "report.html")
    assert not counts.keys() & {"manifest.json", "train.jsonl", "validation.jsonl"}


def test_an_audit_with_its_page_opens_the_manifest_and_each_split_once(root: Path, tmp_path: Path) -> None:
    with opened(root / "slake-mini") as counts:
        dataset = PreparedDataset.open("slake-mini", root)
        audit_page(audit(dataset, compare_images=False), dataset, tmp_path / "audit.html")
    assert {name: counts[name] for name in ("manifest.json", "train.jsonl", "validation.jsonl")} == {
        "manifest.json": 1,
        "train.jsonl": 1,
        "validation.jsonl": 1,
    }

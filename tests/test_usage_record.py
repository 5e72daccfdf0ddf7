"""What a remote model spent is written while the answers are, and adds up over runs."""

from __future__ import annotations

import json
from pathlib import Path

from medical_vqa.models.remote.usage import Usage
from medical_vqa.pipelines.usage_record import UsageRecord


def test_the_record_is_written_once_a_second_and_continues_after_a_crash(tmp_path: Path) -> None:
    now, usage, calls = [0.0], Usage(), []
    file = tmp_path / "predictions-test.usage.json"
    record = UsageRecord(tmp_path / "predictions-test.jsonl", usage, clock=lambda: now[0])
    report = record.watched(lambda done, total: calls.append((done, total)))
    assert report is not None
    usage.add(None)
    report(1, 3)
    assert not file.exists()
    now[0] = 1.0
    usage.add(None)
    report(2, 3)
    assert json.loads(file.read_text())["requests"] == 2
    assert calls == [(1, 3), (2, 3)]

    again = Usage()
    resumed = UsageRecord(tmp_path / "predictions-test.jsonl", again)  # the first run ended without a word
    again.add(None)
    assert resumed.write().requests == 3  # type: ignore[union-attr]


def test_a_local_model_leaves_no_record(tmp_path: Path) -> None:
    record = UsageRecord(tmp_path / "predictions-test.jsonl", None)
    assert record.watched(None) is None
    assert record.write() is None
    assert not list(tmp_path.iterdir())

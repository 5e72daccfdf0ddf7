"""What a remote model spent is written while the answers are, and adds up over runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medical_vqa.errors import DataError
from medical_vqa.models.remote.usage import Usage
from medical_vqa.pipelines.usage_record import UsageRecord


def test_the_record_is_complete_after_each_answer_and_continues_after_a_crash(tmp_path: Path) -> None:
    usage, calls = Usage(), []
    file = tmp_path / "predictions-test.usage.json"
    record = UsageRecord(tmp_path / "predictions-test.jsonl", usage)
    report = record.watched(lambda done, total: calls.append((done, total)))
    assert report is not None
    for done in (1, 2):
        usage.add(None)
        report(done, 3)
        assert json.loads(file.read_text())["requests"] == done
    assert calls == [(1, 3), (2, 3)]

    again = Usage()
    resumed = UsageRecord(tmp_path / "predictions-test.jsonl", again)  # the first run ended without a word
    again.add(None)
    assert resumed.write().requests == 3  # type: ignore[union-attr]
    assert json.loads(file.read_text())["requests"] == 3


@pytest.mark.parametrize("content", ["", "[]", '{"requests": "many"}'])
def test_a_damaged_record_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "predictions-test.usage.json").write_text(content)
    with pytest.raises(DataError, match=r"predictions-test\.usage\.json is no record of usage .* delete it"):
        UsageRecord(tmp_path / "predictions-test.jsonl", Usage())


def test_a_local_model_leaves_no_record(tmp_path: Path) -> None:
    record = UsageRecord(tmp_path / "predictions-test.jsonl", None)
    assert record.watched(None) is None
    assert record.write() is None
    assert not list(tmp_path.iterdir())

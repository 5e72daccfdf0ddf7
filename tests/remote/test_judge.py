"""A remote model as judge: both orders, equal answers without asking, judgments kept, agreement with earlier ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint

from medical_vqa.errors import ConfigError, MedicalVqaError
from medical_vqa.evaluation.statistics.agreement import cohen_kappa
from medical_vqa.pipelines.inputs import AnsweredRows
from medical_vqa.pipelines.judge import judge, judgment_file, read_judgment
from medical_vqa.schema.records import Example, Prediction, read_predictions, write_jsonl

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

ROWS = [
    Example("d/1", "i1", "What modality is it?", ("CT",), "i1"),
    Example("d/2", "i2", "Where is the mass?", ("Left lung",), "i2"),
    Example("d/3", "i3", "Which organ is it?", ("Liver",), "i3"),
    Example("d/4", "i4", "What is it?", ("Heart",), "i4"),
]
ANSWERS = ["ct.", "the lung on the left", "Spleen", ""]


class Rows(AnsweredRows):
    """The rows above in place of a prepared dataset."""

    def examples(self) -> list[Example]:
        return ROWS


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("medical_vqa.pipelines.judge.answered_rows", lambda *_, **__: Rows(None, "test"))  # type: ignore[arg-type]
    path = tmp_path / "predictions-test.jsonl"
    write_jsonl(path, [Prediction(row.id, answer) for row, answer in zip(ROWS, ANSWERS, strict=True)])
    return path


def run(fake: FakeEndpoint, file: Path, judgments: dict[str, str], **options: Any) -> Any:
    """Judge, with a reply for each text that a prompt contains; others are different."""

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        prompt = body["messages"][0]["content"]
        text = next((reply for part, reply in judgments.items() if part in prompt), "different")
        return 200, {"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}

    fake.answer = answer
    out = file.with_name("judged.jsonl")
    return judge(file, "openai:m", base_url=fake.url, api_key="k", out=out, concurrency=2, **options)


def test_equal_and_empty_answers_are_settled_without_asking(fake: FakeEndpoint, file: Path) -> None:
    judged = run(fake, file, {"the lung on the left": "Same."})
    assert [answer.judged_right for answer in read_predictions(judged.path)] == [True, True, False, False]
    assert (judged.compared, len(fake.asked)) == (2, 4)
    assert judged.accuracy.value == 0.5
    assert judged.exact_match.value == 0.25
    assert judged.usage.prompt_tokens == 36
    assert "judged right by m 50.0" in str(judged)


def test_a_judgment_that_depends_on_the_order_counts_as_wrong(fake: FakeEndpoint, file: Path) -> None:
    judged = run(fake, file, {"First answer: Left lung": "same"})
    assert judged.order_dependent == 1
    assert judged.accuracy.value == 0.25


def test_a_reply_that_is_no_judgment_counts_as_wrong_and_is_counted(fake: FakeEndpoint, file: Path) -> None:
    judged = run(fake, file, {"Spleen": "I cannot say."})
    assert judged.unreadable == 1


def test_judgments_are_not_asked_again_after_an_interruption(fake: FakeEndpoint, file: Path) -> None:
    fake.limit = 2
    with pytest.raises(MedicalVqaError):
        judge(file, "openai:m", base_url=fake.url, api_key="k", out=file.with_name("judged.jsonl"), concurrency=1)
    assert not file.with_name("judged.jsonl").exists()
    fake.limit = 10**9
    asked_before = len(fake.asked)
    run(fake, file, {})
    assert len(fake.asked) - asked_before < 4
    asked_before = len(fake.asked)
    assert run(fake, file, {"the lung": "same"}).usage.requests == 0
    assert len(fake.asked) == asked_before


def test_a_judgment_that_a_crash_cut_off_is_asked_again(fake: FakeEndpoint, file: Path) -> None:
    run(fake, file, {})
    judgments = judgment_file(file.with_name("judged.jsonl"), "m")
    judgments.write_bytes(judgments.read_bytes()[:-10])
    fake.asked.clear()
    run(fake, file, {})
    assert len(fake.asked) == 2
    assert len(judgments.read_text().splitlines()) == 2


def test_earlier_judgments_are_compared_by_kappa(fake: FakeEndpoint, file: Path) -> None:
    judgments = [True, True, True, False]
    answers = zip(ROWS, ANSWERS, judgments, strict=True)
    write_jsonl(file, [Prediction(row.id, answer, judged_right=right) for row, answer, right in answers])
    judged = run(fake, file, {"the lung on the left": "same"})
    assert judged.agreement.value == pytest.approx(0.5)  # 3 of 4 equal, 2 of 4 by chance
    assert "Cohen's kappa 0.50" in str(judged)


def test_the_judged_file_is_not_overwritten(fake: FakeEndpoint, file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(ConfigError, match=r"predictions-test.jsonl is a file that is read; name another file to write"):
        judge(file, "openai:m", base_url=fake.url, api_key="k", out=file)
    assert (file.read_bytes(), fake.asked) == (before, [])


def test_a_local_model_is_no_judge(file: Path) -> None:
    with pytest.raises(ConfigError, match="no remote model"):
        judge(file, "shipped")


@pytest.mark.parametrize(
    ("text", "judgment"),
    [
        ("Same", "same"),
        ("**Different.**", "different"),
        ("<think>not the same</think>different", "different"),
        ("They are not the same; different", "different"),
        ("maybe", None),
        ("", None),
    ],
)
def test_the_judgment_is_the_last_of_the_two_words(text: str, judgment: str | None) -> None:
    assert read_judgment(text) == judgment


def test_kappa_of_equal_constant_judgments_is_undefined() -> None:
    assert cohen_kappa([True, True], [True, True], ["a", "b"]).value is None
    assert cohen_kappa([True, False], [True, False], ["a", "b"]).value == 1.0
    assert json.loads(cohen_kappa([True, False], [False, True], ["a", "b"]).model_dump_json())["value"] == -1.0


def test_resamples_without_a_kappa_are_not_counted_as_one_of_zero() -> None:
    judgments = [True, True, True, False]
    interval = cohen_kappa(judgments, judgments, list("abcd")).interval
    assert (interval.low, interval.reason) == (None, "every resample gives the same score")

"""Rows by column give what the same rows give one by one."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medical_vqa import registry
from medical_vqa.errors import DataError
from medical_vqa.evaluation.extraction import final_answer
from medical_vqa.evaluation.joining import join
from medical_vqa.evaluation.protocols.base import Context
from medical_vqa.evaluation.scoring import answer_warnings, with_unanswered_rows
from medical_vqa.evaluation.statistics.breakdown import NOT_STATED, by_levels, default_facts
from medical_vqa.evaluation.statistics.intervals import cluster_numbers
from medical_vqa.evaluation.statistics.tally import AnswerTable
from medical_vqa.pipelines.score import baseline_answers
from medical_vqa.schema.example_table import ExampleTable
from medical_vqa.schema.prediction_table import PredictionTable
from medical_vqa.schema.records import Example, Prediction, read_predictions, read_records, write_jsonl
from medical_vqa.schema.table_files import read_examples, read_prediction_table
from medical_vqa.text import plain_letters

TEXTS = (
    "yes", "no", "Yes.", "the left lung", "left lung", "lung, liver", "liver, lung", "", " ", "0", "3 cm", "CT",
    "\u0421T", "lu\u200bng", "\u80ba", "A", "<think>x</think><answer>CT</answer>", "\\boxed{lung}", "<think>never ends",
)  # fmt: skip
ODD_LINES = {
    "an empty line": "",
    "no raw text": '{"id": "new", "answer": "lung"}',
    "an empty raw text": '{"id": "new", "answer": "lung", "raw": ""}',
    "other order of fields": '{"answer": "lung", "id": "new", "raw": "lung"}',
    "no alternatives": '{"id": "new", "answer": "lung", "raw": "lung", "confidence": null, "alternatives": null}',
    "a verdict": '{"id": "new", "answer": "lung", "raw": "lung", "confidence": 1, "judged_right": true}',
    "guards": '{"id": "new", "answer": "lung", "guards": {"withheld": true, "reason_code": "low_confidence"}}',
    "a text without its end": '{"id": "new", "answer": "There is no", "cut_off": true}',
    "a confidence of whole numbers": '{"id": "new", "answer": "lung", "raw": "lung", "confidence": 1}',
    "letters of two and three bytes": '{"id": "new", "answer": "Stra\u00dfe \u80ba", "raw": "\u80ba"}',
    "white space around": '  {"id": "new", "answer": "lung"}  ',
}
ODD_ROWS = {
    "an empty line": "",
    "a second picture": '{"id": "n", "image_id": "i", "question": "q", "answers": [], "group": "i", "facts": {}, '
    '"other_image_ids": ["j", "k"]}',
    "no facts": '{"id": "n", "image_id": "i", "question": "q", "answers": ["a"], "group": "i"}',
    "the same facts, written otherwise": '{"id": "n", "image_id": "i", "question": "q", "answers": [], "group": "i", '
    '"facts": {"answer_type":"OP\\u0045N"}}',
    "texts like keys": '{"id": "n", "image_id": "i", "question": "a : b", "answers": ["\\":"], "group": "i", '
    '"facts": {"options": "{\\"A\\": 1}"}}',
}


def examples(rng: random.Random, n: int) -> list[Example]:
    rows = []
    for number in range(n):
        facts = {"answer_type": rng.choice(("OPEN", "CLOSED", "open "))}
        if rng.random() < 0.8:
            facts["organ"] = rng.choice(("lung", "liver", ""))
        answers = tuple(rng.choice(TEXTS) for _ in range(rng.choice((0, 1, 1, 1, 2))))
        others = ("image/x",) if rng.random() < 0.1 else ()
        image = f"image/{rng.randrange(n // 3)}"
        group = image if rng.random() < 0.7 else f"patient {rng.randrange(5)}"
        rows.append(Example(f"set/test/{number}", image, rng.choice(TEXTS) + "?", answers, group, facts, others))
    return rows


def predictions(rng: random.Random, rows: list[Example]) -> list[Prediction]:
    given = []
    for row in rows:
        if rng.random() < 0.9:
            text = rng.choice((*TEXTS, *row.answers))
            alternatives = (("lung", 0.25),) if rng.random() < 0.3 else ()
            given.append(Prediction(row.id, text, text, rng.choice((None, 0.5, 1.0)), alternatives))
    given += [Prediction("set/train/9", "lung", "lung"), *rng.sample(given, 2)]
    rng.shuffle(given)
    return given


@pytest.fixture(params=range(4))
def rng(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(request.param)


def test_rows_read_by_column_are_those_read_one_by_one(rng: random.Random, tmp_path: Path) -> None:
    rows = examples(rng, 60)
    write_jsonl(tmp_path / "rows.jsonl", rows)
    table = read_examples(tmp_path / "rows.jsonl")
    assert list(table) == rows == list(read_records(tmp_path / "rows.jsonl", Example))
    assert [table[3], table[-1], *table[2:4]] == [rows[3], rows[-1], *rows[2:4]]
    part = table.take(np.array([5, 2, 7]))
    assert (list(part), part[1]) == ([rows[5], rows[2], rows[7]], rows[2])


@pytest.mark.parametrize("odd", ODD_ROWS.values(), ids=ODD_ROWS)
def test_questions_read_by_column_are_those_read_one_by_one(odd: str, tmp_path: Path) -> None:
    usual = [Example(str(number), "i", "q", ("a",), "i", {"answer_type": "OPEN"}) for number in range(3)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([*(json.dumps(row.to_json()) for row in usual), odd]) + "\n", encoding="utf-8")
    table = read_examples(path)
    assert list(table) == list(read_records(path, Example))
    assert table.facts.distinct() == len({tuple(map(str, row.facts.items())) for row in table})


def test_a_file_of_many_blocks_is_read_as_one_by_one(tmp_path: Path) -> None:
    """Lines cross the ends of blocks; one is longer than a block, and the first unusual one comes late."""
    rng = random.Random(0)
    rows = examples(rng, 2000)
    rows[1500] = replace(rows[1500], question="\u80ba" * 70_000)
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, rows)
    assert path.stat().st_size > 400_000
    assert list(read_examples(path)) == rows
    with path.open("a", encoding="utf-8") as file:
        file.write('{"id": "n"}\n')
    with pytest.raises(DataError, match=r"missing field"):
        read_examples(path)


def test_the_line_of_a_byte_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    usual = json.dumps(Prediction("1", "lung", "lung").to_json()).encode()
    path.write_bytes(usual + b"\n" + '{"id": "2", "answer": "Röntgen"}'.encode("cp1252") + b"\n")
    with pytest.raises(DataError, match=r"predictions\.jsonl:2: expected UTF-8, found the byte 0xf6; save the file"):
        read_prediction_table(path)


@pytest.mark.parametrize("odd", ODD_LINES.values(), ids=ODD_LINES)
def test_predictions_read_by_column_are_those_read_one_by_one(odd: str, tmp_path: Path) -> None:
    usual = [Prediction(str(number), "lung", "Lung.", 0.5, (("liver", 0.25),)) for number in range(3)]
    path = tmp_path / "predictions.jsonl"
    lines = [json.dumps(row.to_json()) for row in usual]
    path.write_text("\n".join([*lines, odd]) + "\n", encoding="utf-8")
    expected = list(read_records(path, Prediction))
    assert list(read_prediction_table(path)) == expected == read_predictions(path)
    path.write_text("\n".join([odd, *lines]), encoding="utf-8-sig")
    assert list(read_prediction_table(path)) == list(read_records(path, Prediction))


@pytest.mark.parametrize(
    "line",
    [
        "{", "[1]", "3", "null", '{"id": 3, "answer": "lung"}', '{"id": "a"}', '{"id": "a", "answer": null}',
        '{"id": "a", "answer": "lung", "raw": "lung", "confidence": NaN}', '{"id": "a", "answer": ["CT"]}',
        '{"id": "a", "answer": "lung", "raw": "lung", "confidence": 2}', '{"id": "a", "answer": "b", "more": 1}',
        '{"id": "1", "answer": "given before", "raw": "given before"}', '{"id": "a"\n"answer": "b"}',
        '{"id": "new", "answer": "lung \\ud800", "raw": "lung"}', '{"id": "a", "answer": "b", "cut_off": 1}',
        '{"id": "new", "answer": "lung", "answer": "liver", "raw": "liver"}',
        '{"id": "new", "answer": "lung", "guards": {"withheld": true, "withheld": false}}',
    ],
)  # fmt: skip
def test_a_mistake_in_a_predictions_file_is_named_as_when_it_is_read_line_by_line(line: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    usual = [json.dumps(Prediction(str(number), "lung", "lung", 0.5).to_json()) for number in range(3)]
    path.write_text("\n".join([*usual, line, *usual[:0]]) + "\n", encoding="utf-8")
    with pytest.raises(DataError) as one_by_one:
        read_predictions(path)
    with pytest.raises(DataError) as by_column:
        read_prediction_table(path)
    assert str(by_column.value) == str(one_by_one.value)


def test_predictions_are_joined_as_one_by_one(rng: random.Random) -> None:
    rows = examples(rng, 60)
    given = predictions(rng, rows)
    answered = join(rows, given)
    times = {row.id: sum(p.id == row.id for p in given) for row in rows}
    scored = [row for row in rows if row.answers and times[row.id] == 1]
    assert list(answered.scored) == scored
    assert [answered.answers[row.id] for row in scored] == [next(p for p in given if p.id == r.id) for r in scored]
    expected = {
        "no prediction": [r.id for r in rows if r.answers and not times[r.id]],
        "no accepted answer in the dataset": [r.id for r in rows if not r.answers],
        "predicted more than once": [r.id for r in rows if r.answers and times[r.id] > 1],
        "prediction for a question that is not in this split": ["set/train/9"],
    }
    assert {one.reason: list(one.ids) for one in answered.excluded} == {
        reason: sorted(ids) for reason, ids in expected.items() if ids
    }


def test_predictions_in_the_order_of_the_questions_are_joined_as_in_any_other(rng: random.Random) -> None:
    rows = examples(rng, 30)
    given = [Prediction(row.id, rng.choice(TEXTS)) for row in rows]
    in_order, shuffled = join(rows, given), join(rows, rng.sample(given, len(given)))
    assert (list(in_order.scored), in_order.excluded) == (list(shuffled.scored), shuffled.excluded)
    assert dict(in_order.answers) == dict(shuffled.answers)
    with pytest.raises(DataError, match="two examples have the id"):
        join([*rows, rows[0]], [*given, given[0]])


def test_every_metric_counts_by_column_what_it_counts_one_by_one(rng: random.Random) -> None:
    rows = examples(rng, 60)
    answered = join(rows, predictions(rng, rows))
    context = Context((), answered.scored)
    metrics = [registry.create("metrics", name) for name in registry.names("metrics")]
    metrics += [
        m for name in registry.names("protocols") for m in registry.find("protocols", name).published_metrics(context)
    ]
    table = AnswerTable(answered.scored, answered.answers)
    for metric in metrics:
        counted = table.tally(metric)
        pairs = [(row, metric.counts(answered.answers[row.id], row)) for row in answered.scored]
        expected = [(row, counts) for row, counts in pairs if counts is not None]
        assert [row.id for row, _ in expected] == list(counted.examples.ids), metric.signature()
        assert [counts for _, counts in expected] == [tuple(counts) for counts in counted.counts.tolist()]
        assert np.array_equal(np.unique(counted.clusters, return_inverse=True)[1],
                              cluster_numbers([row.group for row, _ in expected]))  # fmt: skip
    em = table.tally(registry.create("metrics", "em"))
    for facts in [*default_facts(answered.scored), ("answer_type", "organ")]:
        levels: dict[tuple[str, ...], list[str]] = {}
        for row in answered.scored:
            levels.setdefault(tuple(row.facts.get(fact) or NOT_STATED for fact in facts), []).append(row.id)
        parts = by_levels(em, facts)
        assert {level: list(part.examples.ids) for level, part in parts.items()} == levels
        assert list(parts) == list(levels)
    unanswered = with_unanswered_rows(em, answered)
    assert unanswered is not None
    assert [row.id for row in unanswered.examples] == [
        *(row.id for row in answered.scored),
        *(row.id for row in rows if row.answers and row.id not in answered.answers),
    ]


def test_warnings_and_final_answers_are_those_of_single_rows(rng: random.Random) -> None:
    rows = examples(rng, 60)
    answered = join(rows, predictions(rng, rows))
    em = registry.create("metrics", "em")
    found = answer_warnings(em, AnswerTable(answered.scored, answered.answers))
    empty, alike = [], []
    for row in answered.scored:
        answer = answered.answers[row.id]
        plain = replace(answer, answer=plain_letters(answer.answer))
        plain_row = replace(row, answers=tuple(map(plain_letters, row.answers)))
        if not answer.answer.strip() and any(gold.strip() for gold in row.answers):
            empty.append(row.id)
        elif em.counts(answer, row) == (0.0, 1.0) and em.counts(plain, plain_row) == (1.0, 1.0):
            alike.append(row.id)
    assert sorted(one.n for one in found) == sorted(len(ids) for ids in (empty, alike) if ids)
    assert {one.ids for one in found} == {tuple(sorted(ids)) for ids in (empty, alike) if ids}
    final = answered.answers.predictions.with_answers(final_answer)
    assert [one.answer for one in final] == [final_answer(answered.answers[row.id].answer) for row in answered.scored]


def test_a_baseline_answers_each_question_once_and_every_row(rng: random.Random) -> None:
    rows = examples(rng, 60)
    training = [row for row in examples(rng, 40) if row.answers]
    for answers in baseline_answers(training, rows).values():
        assert [one.id for one in answers] == [row.id for row in rows]
        by_question = {row.question: one.answer for row, one in zip(rows, answers, strict=True)}
        assert [one.answer for one in answers] == [by_question[row.question] for row in rows]


def test_a_table_of_objects_keeps_them() -> None:
    rows = [Example("a", "i", "q?", ("x",), "g"), Example("b", "i", "q?", ("x",), "g")]
    assert ExampleTable.of(rows)[1] is rows[1]
    assert ExampleTable.of(table := ExampleTable.of(rows)) is table
    assert (table == rows, table == rows[:1], table == "ab") == (True, False, False)
    given = [Prediction("a", "x", judged_right=True)]
    assert next(iter(PredictionTable.of(given).take(np.array([0, 0])))) is given[0]

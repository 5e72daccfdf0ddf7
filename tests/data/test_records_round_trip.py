from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medical_vqa.errors import DataError
from medical_vqa.schema.records import (
    Example,
    Prediction,
    Turn,
    read_jsonl,
    read_predictions,
    read_records,
    write_jsonl,
)
from medical_vqa.schema.table_files import read_examples, read_prediction_table

# A lone surrogate cannot be written as UTF-8, so no published file holds one.
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
examples = st.builds(
    Example,
    id=words,
    image_id=words,
    question=words,
    answers=st.lists(words, max_size=3).map(tuple),
    group=words,
    facts=st.dictionaries(words, words, max_size=3),
    other_image_ids=st.lists(words, max_size=2).map(tuple),
    turns=st.lists(st.builds(Turn, question=words, answer=words), max_size=2).map(tuple),
    system=words,
)
confidences = st.floats(0, 1).map(lambda value: round(value, 6))
predictions = st.builds(
    Prediction,
    id=words,
    answer=words,
    raw=words,
    confidence=st.none() | confidences,
    alternatives=st.lists(st.tuples(words, confidences), max_size=3).map(tuple),
)


@given(examples)
def test_an_example_survives_json(example: Example) -> None:
    assert Example.from_json(json.loads(json.dumps(example.to_json()))) == example


@given(st.lists(examples, max_size=4))
def test_examples_survive_a_file(rows: list[Example]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_jsonl(path, rows)
        assert [Example.from_json(row) for row in read_jsonl(path)] == rows


@given(st.lists(predictions, max_size=4, unique_by=lambda row: row.id))
def test_predictions_survive_a_file(rows: list[Prediction]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.jsonl"
        write_jsonl(path, rows)
        assert read_predictions(path) == rows


values = st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-1, 2) | words | st.lists(words, max_size=2)
prediction_rows = st.fixed_dictionaries(
    {"id": words | values, "answer": words | values},
    optional={
        "raw": words | values,
        "confidence": confidences | values,
        "alternatives": st.lists(st.tuples(words, confidences), max_size=2) | values,
        "judged_right": st.booleans() | values,
        "guards": st.fixed_dictionaries({"withheld": st.booleans() | values}, optional={"source": words}) | values,
        "unknown": values,
    },
)
example_rows = st.fixed_dictionaries(
    {"id": words | values, "image_id": words, "question": words | values, "answers": st.lists(words) | values},
    optional={
        "group": words,
        "facts": st.dictionaries(words, words | values, max_size=2) | values,
        "other_image_ids": st.lists(words, max_size=2),
        "unknown": values,
    },
)


def outcome(read: Callable[[], object]) -> object:
    """What a function returns, or the kind of error that it raises."""
    try:
        return read()
    except (DataError, TypeError, ValueError) as error:
        return type(error)


@given(prediction_rows)
def test_predictions_are_read_by_column_as_one_is_read(row: dict[str, Any]) -> None:
    assert_read_alike(json.dumps(row), Prediction, read_prediction_table)


@given(example_rows)
def test_examples_are_read_by_column_as_one_is_read(row: dict[str, Any]) -> None:
    assert_read_alike(json.dumps(row), Example, read_examples)


def assert_read_alike(
    line: str, kind: type[Example] | type[Prediction], read: Callable[[Path], Sequence[Example | Prediction]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text(line + "\n", encoding="utf-8")
        one = outcome(lambda: kind.from_json(next(read_jsonl(path))))
        assert outcome(lambda: read(path)[0]) == one


# texts that look like keys, or end like them
marks = st.text(st.sampled_from('":\\ ,{}id'), max_size=8)


@given(st.lists(st.builds(Prediction, id=words, answer=marks, raw=marks), min_size=1, max_size=3))
def test_no_text_of_a_prediction_is_taken_for_a_key(rows: list[Prediction]) -> None:
    rows = [replace(row, id=str(number)) for number, row in enumerate(rows)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_jsonl(path, rows)
        assert list(read_prediction_table(path)) == rows


@given(st.data(), st.sampled_from([" :", ":", "\t:"]), st.dictionaries(marks, marks, min_size=1, max_size=3))
def test_a_key_that_stands_twice_is_refused_by_every_reader(
    data: st.DataObject, colon: str, facts: dict[str, str]
) -> None:
    """Also where other rows or texts could hide it from a count of keys."""
    prediction = {"id": "b", "answer": data.draw(marks), "confidence": 0.5}
    example = {"id": "b", "image_id": "i", "question": "q", "answers": ["a"], "group": "i"}
    usual = {"id": "a", "answer": "lung"}
    key = data.draw(st.sampled_from(sorted(prediction)))
    fact = data.draw(st.sampled_from(sorted(facts)))
    line = f'{json.dumps(prediction)[:-1]}, "{key}"{colon} {json.dumps(prediction[key])}}}'
    of_facts = f"{json.dumps(facts)[:-1]}, {json.dumps(fact)}{colon} {json.dumps(data.draw(marks))}}}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text(f"{json.dumps(usual)}\n{line}\n", encoding="utf-8")
        for read in (read_prediction_table, read_predictions):
            with pytest.raises(DataError, match=rf"rows\.jsonl:2: .*the key '{key}' occurs twice in one object"):
                read(path)
        path.write_text(f'{json.dumps(example)[:-1]}, "facts"{colon} {of_facts}}}\n', encoding="utf-8")
        for read in (read_examples, lambda path: list(read_records(path, Example))):
            with pytest.raises(DataError, match=r"rows\.jsonl:1: .* occurs twice in one object"):
                read(path)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("id", 3, "a text"),
        ("image_id", None, "a text"),
        ("question", ["q"], "a text"),
        ("group", 1.0, "a text"),
        ("answers", "yes", "a list of texts"),
        ("answers", [3], "a list of texts"),
        ("answers", [["yes"]], "a list of texts"),
        ("facts", {"answer_type": ["OPEN"]}, "an object of texts"),
        ("facts", [], "an object of texts"),
        ("other_image_ids", [1], "a list of texts"),
        ("turns", [{"question": "q", "answer": None}], "a list of objects, each with the texts question and answer"),
        ("system", None, "a text"),
        ("image_places", [[0, 0.5]], "a list of pairs of whole numbers"),
        ("image_places", [[0]], "a list of pairs of whole numbers"),
    ],
)
def test_a_field_of_another_type_in_a_prepared_row_is_refused(
    field: str, value: object, expected: str, tmp_path: Path
) -> None:
    row = {"id": "n", "image_id": "i", "question": "q", "answers": ["a"], "group": "i", "facts": {}} | {field: value}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"rows\.jsonl:1: example .*{field} is .*; give {re.escape(expected)}"):
        read_examples(path)

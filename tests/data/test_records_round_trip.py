from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
def test_reading_many_predictions_reads_each_as_one_is_read(row: dict[str, Any]) -> None:
    assert_read_alike(row, Prediction)


@given(example_rows)
def test_reading_many_examples_reads_each_as_one_is_read(row: dict[str, Any]) -> None:
    assert_read_alike(row, Example)


def assert_read_alike(row: dict[str, Any], kind: type[Example] | type[Prediction]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text(json.dumps(row) + "\n", encoding="utf-8")
        one = outcome(lambda: kind.from_json(next(read_jsonl(path))))
        assert outcome(lambda: next(iter(read_records(path, kind)))) == one

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from medical_vqa.schema.records import Example, Prediction, read_jsonl, read_predictions, write_jsonl

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

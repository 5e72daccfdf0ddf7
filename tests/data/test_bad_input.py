"""Files as people have them: what is read, and the one sentence where it is not."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medical_vqa import registry
from medical_vqa.data.formats.table_files import table_rows
from medical_vqa.data.formats.values import answer_text, question_text
from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.errors import DataError, ImageError
from medical_vqa.pipelines.prepare import prepare_dataset
from medical_vqa.schema.records import Example

Rows = list[dict[str, Any]]
Write = Callable[[Path, Rows], None]


def write_csv(folder: Path, rows: Rows) -> None:
    with (folder / "data.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_json(folder: Path, rows: Rows) -> None:
    (folder / "data.json").write_text(json.dumps(rows), encoding="utf-8")


def write_llava(folder: Path, rows: Rows) -> None:
    turns = [
        [{"from": "human", "value": f"<image>\n{row['question']}"}, {"from": "gpt", "value": row["answer"]}]
        for row in rows
    ]
    write_json(folder, [{"image": row["image"], "conversations": one} for row, one in zip(rows, turns, strict=True)])


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., PreparedDataset]:
    def prepare(layout: str, write: Write, answers: list[Any]) -> PreparedDataset:
        source = tmp_path / "source"
        source.mkdir()
        rows = []
        for number, answer in enumerate(answers):
            Image.new("L", (20, 20), number * 9).save(source / f"{number}.png")
            rows.append({"image": f"{number}.png", "question": f"Which organ {number}?", "answer": answer})
        write(source, rows)
        return prepare_dataset(layout, source=source, root=tmp_path / "root", name="mine")

    return prepare


def answers_of(dataset: PreparedDataset) -> list[tuple[str, ...]]:
    rows: list[Example] = dataset.examples("train")
    return [row.answers for row in rows]


@pytest.mark.parametrize(
    ("layout", "write"), [("table", write_csv), ("table", write_json), ("llava-json", write_llava)]
)
def test_questions_without_an_answer_are_stated(
    layout: str, write: Write, prepared: Callable[..., PreparedDataset]
) -> None:
    dataset = prepared(layout, write, ["lung", None, "liver"])
    assert answers_of(dataset) == [("lung",), (), ("liver",)]
    assert "1 of 3 questions have no answer: they can be asked and are not scored" in dataset.manifest.notes


@pytest.mark.parametrize("cell", ['["lung", "liver"]', "['lung', 'liver']", " ['lung', 'liver'] "])
def test_a_list_that_was_written_into_a_cell_is_the_accepted_answers(
    cell: str, prepared: Callable[..., PreparedDataset]
) -> None:
    assert answers_of(prepared("table", write_csv, [cell, "[]", "[unclear]"])) == [
        ("lung", "liver"),
        (),
        ("[unclear]",),
    ]


def test_an_answer_of_several_texts_in_a_conversation_is_not_lost(prepared: Callable[..., PreparedDataset]) -> None:
    assert answers_of(prepared("llava-json", write_llava, [["lung", "liver"], 3])) == [("lung, liver",), ("3",)]


def test_parquet_with_large_images_is_read_a_few_rows_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("medical_vqa.data.formats.table_files._BATCH_BYTES", 10_000)
    table = pa.table({"image": [bytes([number]) * 3000 for number in range(40)], "number": range(40)})
    parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=20, compression="none", use_dictionary=False)
    read: list[int] = []
    iter_batches = parquet.ParquetFile.iter_batches

    def counted(file: Any, *arguments: Any, **options: Any) -> Any:
        for batch in iter_batches(file, *arguments, **options):
            read.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", counted)
    assert [row["number"] for row in table_rows(tmp_path / "rows.parquet")] == list(range(40))
    assert max(read) == 3


def test_a_thousand_unreadable_images_are_counted_and_the_first_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medical_vqa.data.prepared.prepare._MAX_LISTED", 2)
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(b"no picture" + bytes([number]))
    write_csv(tmp_path, [{"image": f"{n}.png", "question": "Which organ?", "answer": "lung"} for n in range(5)])
    with pytest.raises(ImageError) as mistake:
        prepare_dataset("table", source=tmp_path, root=tmp_path / "root")
    first, *listed = str(mistake.value).splitlines()
    assert first.startswith("5 images cannot be read")
    assert len(listed) == 3
    assert listed[-1].strip() == "and 3 more"


@pytest.mark.parametrize(
    "value", [{"score": 1}, {"a": None}, {"a": {"b": "lung"}}, [{"score": 1}], {"answer": {"n": 3}}]
)
def test_an_object_without_a_text_is_no_answer_and_no_question(value: Any) -> None:
    for read in (answer_text, question_text):
        with pytest.raises(DataError, match=r"^row 1: expected .* as text"):
            read(value, "row 1")


@pytest.mark.parametrize("value", [{"text": "lung"}, {"en": "lung"}, {"text": ["lung"]}, ["lung"], "lung"])
def test_the_text_in_an_object_is_an_answer(value: Any) -> None:
    assert answer_text(value, "row 1") == "lung"


@pytest.mark.parametrize("value", [True, ["x"], {"a": "x"}])
@pytest.mark.parametrize("field", ["id", "group", "split", "image"])
def test_what_can_be_no_name_is_refused(field: str, value: Any, tmp_path: Path) -> None:
    Image.new("L", (20, 20)).save(tmp_path / "0.png")
    row = {"id": "a", "image": "0.png", "question": "Which organ?", "answer": "lung", "group": "g", "split": "train"}
    (tmp_path / "questions.jsonl").write_text(json.dumps(row | {field: value}), encoding="utf-8")
    with pytest.raises(DataError, match=rf"row 1: {field} is .*, expected text or a number"):
        registry.create("datasets", "folder").read(tmp_path)
    if field in ("id", "group"):
        (tmp_path / "questions.jsonl").rename(tmp_path / "train.jsonl")
        with pytest.raises(DataError, match=rf"row 1: {field} is .*, expected text or a number"):
            registry.create("datasets", "table").read(tmp_path)
    if field == "id":
        turns = [{"from": "human", "value": "<image>\nWhich organ?"}, {"from": "gpt", "value": "lung"}]
        (tmp_path / "train.jsonl").unlink()
        write_json(tmp_path, [{"id": value, "image": "0.png", "conversations": turns}])
        with pytest.raises(DataError, match=r"row 1: id is .*, expected text or a number"):
            registry.create("datasets", "llava-json").read(tmp_path)

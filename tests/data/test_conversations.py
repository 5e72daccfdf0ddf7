"""Conversations of several turns and images: what a row is, and what comes back from the layouts of other programs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medical_vqa import registry
from medical_vqa.data.audit.audit import audit
from medical_vqa.data.formats.base import Published
from medical_vqa.data.prepared.convert import convert
from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.data.prepared.prepare import prepare
from medical_vqa.errors import ConfigError, DataError
from medical_vqa.schema.example_table import ExampleTable
from medical_vqa.schema.records import Example, Turn

CONVERSATION = {
    "id": "7",
    "conversations": [
        {"from": "system", "value": "You are a radiologist."},
        {"from": "human", "value": "<image>\nIs it a CT?"}, {"from": "gpt", "value": "Yes"},
        {"from": "human", "value": "Which organ?"}, {"from": "gpt", "value": "Lung"},
        {"from": "human", "value": "Compare <image> with <image>: what changed?"}, {"from": "gpt", "value": "Less"},
    ],
    "image": ["a.png", "b.png", "c.png"],
}  # fmt: skip


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def source(folder: Path, rows: list[Any], name: str = "train.json") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(rows), encoding="utf-8")
    for seed, image in enumerate("abcde"):
        (folder / f"{image}.png").write_bytes(png(seed))
    return folder


def read(folder: Path, rows: list[Any], layout: str = "llava-json") -> Published:
    return registry.create("datasets", layout).read(source(folder, rows))


def prepared(tmp_path: Path, layout: str, folder: Path, name: str) -> PreparedDataset:
    manifest = prepare(registry.create("datasets", layout), folder, tmp_path / "root", name=name)
    return PreparedDataset(tmp_path / "root" / name, manifest)


def content(published: Any, row: Example) -> dict[str, Any]:
    """A row with its images by content."""
    images = [published.read_image(image) for image in row.images]
    return row.to_json() | {"image_id": "", "group": "", "other_image_ids": images, "id": row.id.rpartition("/")[2]}


def test_every_answer_is_a_row_with_all_that_precedes_it(tmp_path):
    published = read(tmp_path / "in", [CONVERSATION])
    first, second, third = published.examples["train"]
    a, b, c = (f"llava-json/{name}.png" for name in "abc")
    assert [row.id for row in (first, second, third)] == [f"llava-json/train/7.{n}" for n in (1, 2, 3)]
    assert {row.system for row in (first, second, third)} == {"You are a radiologist."}
    assert {row.group for row in (first, second, third)} == {a}
    assert (first.question, first.answers, first.turns, first.images) == ("Is it a CT?", ("Yes",), (), (a,))
    assert (second.question, second.turns, second.images) == ("Which organ?", (Turn("Is it a CT?", "Yes"),), (a,))
    assert third.turns == (Turn("Is it a CT?", "Yes"), Turn("Which organ?", "Lung"))
    assert third.images == (a, b, c)
    assert third.question == "Compare  with : what changed?"
    assert (first.image_places, third.image_places) == ((), ((0, 0), (2, 8), (2, 14)))
    assert "1 questions are about several images" in " ".join(published.notes)
    assert "2 questions follow earlier turns" in " ".join(published.notes)


def test_parts_of_a_message_say_where_an_image_is(tmp_path):
    def message(*parts: Any) -> dict[str, Any]:
        texts = [{"type": "text", "text": part} if part != "a" else {"type": "image"} for part in parts]
        return {"role": "user", "content": texts}

    turns = [message("Look at", "this ", "a", " again"), {"role": "assistant", "content": "Yes"}]
    (row,) = read(tmp_path / "in", [{"messages": turns, "images": ["a.png"]}], "messages").examples["train"]
    assert (row.question, row.image_places) == ("Look at\nthis  again", ((0, 13),))


def test_a_turn_before_the_first_image_is_context_and_no_row(tmp_path):
    turns = [
        {"role": "user", "content": "What is a CT?"}, {"role": "assistant", "content": "X-rays from all sides"},
        {"role": "user", "content": "<image>Is this one?"}, {"role": "assistant", "content": "Yes"},
    ]  # fmt: skip
    published = read(tmp_path / "in", [{"messages": turns, "images": ["a.png"]}], "sharegpt")
    (row,) = published.examples["train"]
    assert (row.turns[0].answer, row.question, row.image_places) == ("X-rays from all sides", "Is this one?", ((1, 0),))
    assert "1 questions stand before the first image" in " ".join(published.notes)


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([("human", "<image><image>Same?"), ("gpt", "No")], "has 2 image tokens and 1 images; give each image one"),
        ([("human", "Why?"), ("gpt", "<image>")], "an image in a turn that is not the user's"),
        ([("gpt", "Hello"), ("human", "<image>Why?"), ("gpt", "So")], "an answer without a question before it"),
        ([("human", "<image>Why?"), ("gpt", "So"), ("system", "x")], "a system message after the first turn"),
        ([("human", "<image>Why?"), ("tool", "x"), ("gpt", "So")], "a turn has the role 'tool'"),
        ([("human", "<image>"), ("gpt", "So")], "the question is empty"),
    ],
)
def test_a_conversation_of_another_order_is_refused_in_one_sentence(tmp_path, turns, message):
    row = {"conversations": [{"from": role, "value": text} for role, text in turns], "image": "a.png"}
    with pytest.raises(DataError, match=rf"train\.json row 1: .*{message}"):
        read(tmp_path / "in", [row])


def test_rows_that_share_an_image_are_one_group_that_no_split_divides(tmp_path):
    def about(*names: str) -> dict[str, Any]:
        turns = [{"from": "human", "value": "<image>" * len(names) + "Why?"}, {"from": "gpt", "value": "So"}]
        return {"conversations": turns, "image": [f"{name}.png" for name in names]}

    published = read(tmp_path / "in", [about("e"), about("b"), about("a", "b"), about("c", "a"), about("d")])
    groups = {row.image_id[-5]: row.group[-5] for row in published.examples["train"]}
    assert groups["b"] == groups["a"] == groups["c"]
    assert len(set(groups.values())) == 3


@pytest.mark.parametrize("layout", ["llava-json", "sharegpt", "messages"])
def test_a_conversation_survives_each_layout(tmp_path, layout):
    other = {
        "id": "8",
        "conversations": [
            {"from": "human", "value": "What is a CT?"}, {"from": "gpt", "value": "X-rays"},
            {"from": "human", "value": "<image>\nOne?"}, {"from": "gpt", "value": "Yes"},
        ],
        "image": "d.png",
        "plane": "axial",
    }  # fmt: skip
    single = {"conversations": CONVERSATION["conversations"][1:3], "image": "e.png", "id": "9"}
    dataset = prepared(
        tmp_path,
        "llava-json",
        source(tmp_path / "in", [CONVERSATION, other, single, CONVERSATION | {"id": "1"}]),
        "one",
    )
    convert(dataset, layout, tmp_path / "out")
    again = registry.create("datasets", layout).read(tmp_path / "out")
    first = registry.create("datasets", "llava-json").read(tmp_path / "in")
    rows, expected = again.examples["train"], first.examples["train"]
    assert len(rows) == 8
    assert [content(again, row) for row in rows] == [content(first, row) for row in expected]


def test_a_layout_of_single_questions_refuses_conversations(tmp_path):
    dataset = prepared(tmp_path, "llava-json", source(tmp_path / "in", [CONVERSATION]), "one")
    with pytest.raises(ConfigError, match=r"2 rows of one have several images or earlier turns.*choose one of llava"):
        convert(dataset, "csv", tmp_path / "out")


def test_the_audit_and_the_table_know_every_image_of_a_row(tmp_path):
    folder = source(tmp_path / "in", [CONVERSATION])
    turns = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So"}]
    source(folder, [{"conversations": turns, "image": name} for name in ("c.png", "e.png")], "test.json")
    dataset = prepared(tmp_path, "llava-json", folder, "one")
    result = audit(dataset, compare_images=False)
    (leak,) = result.leaks
    assert leak.exact == ["llava-json/test/1"]
    assert [(part.name, part.images) for part in result.parts] == [("train", 3), ("test", 2)]
    assert [pair.image_ids for pair in result.shared_images] == [["llava-json/c.png"]]
    table = dataset.table("train")
    assert [name[-5] for name in table.image_ids()] == ["a", "b", "c"]
    assert list(table.take(np.array([2, 0]))) == [table[2], table[0]]
    assert list(ExampleTable.of([table[1]]).followed_by(table)) == [table[1], *table]


@pytest.mark.parametrize("places", [[[0, 0]], [[0, 0], [2, 0]], [[1, 4], [0, 0]], [[0, 0], [1, 5]]])
def test_impossible_places_of_images_are_refused(places):
    row = Example("i", "a", "Why?", ("So",), "a", {}, ("b",), (Turn("What?", "That"),)).to_json()
    with pytest.raises(DataError, match=r"example 'i': image_places are .* for 2 images and 2 turns; give one place"):
        Example.from_json(row | {"image_places": places})

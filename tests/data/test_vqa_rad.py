from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medical_vqa.data.formats.vqa_rad import VqaRad
from medical_vqa.errors import DataError


def row(qid: Any, **changes: Any) -> dict[str, Any]:
    published = {
        "qid": qid,
        "phrase_type": "freeform",
        "qid_linked_id": "03f451ca",
        "image_case_url": "https://medpix.nlm.nih.gov/case?id=48e1dd0e",
        "image_name": "synpic54610.jpg",
        "image_organ": "HEAD",
        "evaluation": "not evaluated",
        "question": "Are regions of the brain infarcted?",
        "question_rephrase": "NULL",
        "question_relation": "NULL",
        "question_frame": "NULL",
        "question_type": "PRES",
        "answer": "Yes",
        "answer_type": "CLOSED",
    }
    return {**published, **changes}


@pytest.fixture
def folder(tmp_path: Path, picture: Any) -> Path:
    (tmp_path / "VQA_RAD Image Folder").mkdir()
    (tmp_path / "VQA_RAD Image Folder" / "synpic54610.jpg").write_bytes(picture(fmt="JPEG"))
    return tmp_path


def write(folder: Path, *rows: Any, name: str = "VQA_RAD Dataset Public.json") -> Path:
    (folder / name).write_text(json.dumps(rows), encoding="utf-8")
    return folder


def test_the_phrase_type_makes_the_split(folder: Path) -> None:
    published = VqaRad().read(write(folder, row("0"), row(1, phrase_type="test_freeform"), row(2, phrase_type="para")))
    ids = {split: [e.id for e in rows] for split, rows in published.examples.items()}
    assert ids == {"train": ["vqa-rad/train/0", "vqa-rad/train/2"], "test": ["vqa-rad/test/1"]}
    assert published.read_image("vqa-rad/synpic54610").startswith(b"\xff\xd8")


def test_quirks_are_mended_in_the_facts_only(folder: Path) -> None:
    quirky = row(3, answer_type="CLOSED ", question_type="PRSE, ATRIB", answer=2, image_organ="NULL", question=" Why? ")
    del quirky["question_rephrase"]
    example = VqaRad().read(write(folder, quirky)).examples["train"][0]
    assert (example.question, example.answers) == (" Why? ", ("2",))
    assert example.facts == {
        "answer_type": "CLOSED",
        "question_type": "ATTRIB, PRES",
        "phrase_type": "freeform",
        "qid": "3",
        "pair": "03f451ca",
    }


def test_names_without_blanks_are_known(folder: Path) -> None:
    (folder / "VQA_RAD Image Folder").rename(folder / "VQA_RAD_Image_Folder")
    published = VqaRad().read(write(folder, row(0), name="VQA_RAD_Dataset_Public.json"))
    assert published.read_image("vqa-rad/synpic54610")


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (row(0), "question id '0' is already used by"),
        (row(1, answer="  "), r"Public\.json row 2: field 'answer' is empty"),
        (
            {k: v for k, v in row(1, organ="HEAD").items() if k != "image_organ"},
            r"'image_organ' is missing \(there is 'organ'",
        ),
        (row(1, image_name="../a.jpg"), "leads out"),
    ],
)
def test_a_row_that_is_not_as_published_is_refused(folder: Path, second: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        VqaRad().read(write(folder, row(0), second))


def test_a_field_that_was_not_published_becomes_a_fact_or_is_named(folder: Path) -> None:
    published = VqaRad().read(write(folder, row(0, bbox=[1, 2, 3, 4], reader="A"), row(1)))
    assert published.examples["train"][0].facts["reader"] == "A"
    assert "bbox" not in published.examples["train"][0].facts
    assert published.notes == [
        "VQA_RAD Dataset Public.json has fields that were not published: bbox, reader; text and numbers in them became "
        "facts"
    ]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected one 'VQA_RAD Dataset Public\.json', but it is not there"):
        VqaRad().read(tmp_path)


def test_the_card_has_the_official_counts() -> None:
    assert (sum(VqaRad().card.rows.values()), VqaRad().card.images) == (2248, 314)
    assert VqaRad().bundled() is None

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from medical_vqa.data.formats.slake import Slake
from medical_vqa.errors import DataError, ImageError


def test_a_row_becomes_an_example(slake_folder: Any) -> None:
    published = Slake().read(slake_folder())
    example = published.examples["train"][0]
    assert (example.id, example.image_id, example.group) == ("slake/train/0", "slake/xmlab1", "slake/xmlab1")
    assert (example.question, example.answers) == ("What modality is used to take this image?", ("MRI",))
    assert example.facts == {
        "answer_type": "OPEN",
        "content_type": "Modality",
        "modality": "MRI",
        "location": "Abdomen",
        "organ": "Abdomen",
        "base_type": "vqa",
        "language": "en",
        "qid": "0",
    }
    assert published.read_image("slake/xmlab1").startswith(b"\xff\xd8")
    assert published.missing == ["test.json"]


def test_question_and_answer_stay_as_published_and_facts_are_spelled_one_way(slake_folder: Any, slake_row: Any) -> None:
    row = slake_row(
        7, 1, question=" Where? ", answer=" Left Lung", modality="x-ray", location="brain tissue", answer_type="CLOSED "
    )
    example = Slake().read(slake_folder(train=[row])).examples["train"][0]
    assert (example.question, example.answers) == (" Where? ", (" Left Lung",))
    facts = [example.facts[key] for key in ("modality", "location", "organ", "answer_type")]
    assert facts == ["X-Ray", "Brain_Tissue", "Head", "CLOSED"]


def test_an_unknown_location_is_kept_and_has_no_organ(slake_folder: Any, slake_row: Any) -> None:
    facts = Slake().read(slake_folder(train=[slake_row(7, 1, location="Knee")])).examples["train"][0].facts
    assert facts["location"] == "Knee"
    assert "organ" not in facts


def test_both_names_of_the_validation_file_are_known(slake_folder: Any, slake_row: Any) -> None:
    folder = slake_folder(validation=[slake_row(2, 2)])
    assert Slake().read(folder).examples["validation"][0].id == "slake/validation/2"
    slake_folder(validate=[slake_row(2, 2)])
    with pytest.raises(DataError, match=r"has both validation\.json and validate\.json; keep one"):
        Slake().read(folder)


@pytest.mark.parametrize("top", ["imgs/", ""])
def test_the_hub_layout_is_read_from_its_archive(slake_folder: Any, picture: Any, top: str) -> None:
    folder = slake_folder()
    for path in sorted((folder / "imgs").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (folder / "imgs").rmdir()
    with zipfile.ZipFile(folder / "imgs.zip", "w") as archive:
        archive.writestr(f"{top}xmlab1/source.jpg", picture(fmt="JPEG"))
        archive.writestr(f"{top}xmlab1/detection.json", "[]")
    published = Slake().read(folder)
    assert published.read_image("slake/xmlab1") == picture(fmt="JPEG")
    with pytest.raises(ImageError, match=r"imgs\.zip: has no imgs/xmlab2/source\.jpg"):
        published.read_image("slake/xmlab2")


def test_a_damaged_archive_is_refused(slake_folder: Any) -> None:
    folder = slake_folder()
    (folder / "imgs").rename(folder / "elsewhere")
    assert "imgs/ or imgs.zip" in Slake().read(folder).missing
    (folder / "imgs.zip").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(DataError, match="not a complete zip archive"):
        Slake().read(folder)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected a SLAKE folder, but there is no train\.json"):
        Slake().read(tmp_path)


def test_only_the_known_empty_answer_is_let_in(slake_folder: Any, slake_row: Any) -> None:
    published = Slake().read(slake_folder(train=[slake_row(1622, 281, answer="")]))
    assert published.examples["train"][0].answers == ()
    assert published.notes == ["train qid 1622 has an empty answer: kept without one"]
    with pytest.raises(DataError, match=r"train\.json row 1 \(qid 3\): the answer is empty; fill it in"):
        Slake().read(slake_folder(train=[slake_row(3, 1, answer=" ")]))


def test_a_misspelled_field_is_named_and_an_additional_one_becomes_a_fact(slake_folder: Any, slake_row: Any) -> None:
    row = slake_row(1, 1)
    misspelled = {("anwser" if key == "answer" else key): value for key, value in row.items()}
    with pytest.raises(DataError, match=r"field 'answer' is missing \(there is 'anwser'\)"):
        Slake().read(slake_folder(train=[misspelled]))
    published = Slake().read(slake_folder(train=[{**row, "reader": "B", "bbox": [1, 2]}]))
    assert published.examples["train"][0].facts["reader"] == "B"
    assert "bbox, reader" in published.notes[0] or "reader, bbox" in published.notes[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": ["MRI"]}, "field 'answer' is a list, expected text or a whole number"),
        ({"answer": True}, "field 'answer' is true, expected text or a whole number"),
        ({"question": ""}, "field 'question' is empty"),
        ({"qid": None}, "field 'qid' is null"),
        ({"qid": 0}, r"question id 'slake/train/0' is already used by train\.json row 1"),
        ({"img_name": "../secret.jpg"}, "leads out of the dataset's folder"),
        ({"img_name": "/etc/passwd"}, "leads out of the dataset's folder"),
        ({"img_name": "source.jpg"}, r"is not like xmlab1/source\.jpg"),
    ],
)
def test_a_row_that_is_not_as_published_is_refused(
    slake_folder: Any, slake_row: Any, changes: Any, message: str
) -> None:
    folder = slake_folder()
    rows = [slake_row(0, 1), {**slake_row(1, 1), **changes}]
    (folder / "train.json").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        Slake().read(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"qid": 1}]', r"row 1: field 'img_id' is missing"),
        ("[3]", "row 1: expected an object, got a number"),
        ("{}", "expected a JSON list of rows, got an object"),
        ('[{"qid": ', r"train\.json:1: is not JSON"),
        (b"\xff\xfe\x00", "save all of it as UTF-8"),
    ],
)
def test_a_file_that_is_not_a_list_of_rows_is_refused(slake_folder: Any, text: str | bytes, message: str) -> None:
    folder = slake_folder()
    (folder / "train.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        Slake().read(folder)


def test_the_card_is_complete() -> None:
    card = Slake().card
    assert sum(card.rows.values()) == 14028
    assert card.hub_revision is not None
    assert len(card.hub_revision) == 40
    assert Slake().bundled() is None

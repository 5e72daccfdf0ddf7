"""Prediction files of other programs, joined by id or by image and question."""

import json
from dataclasses import replace

import pytest

from medical_vqa.errors import ConfigError, DataError
from medical_vqa.evaluation.imports.tables import image_names, parse_map, read_mapped


@pytest.fixture
def rows(examples):
    return [replace(e, id=f"slake/validation/{e.id}", image_id=f"slake/{e.image_id}") for e in examples]


def pairs(found):
    return [(p.id, p.answer, p.confidence) for p in found]


def test_a_csv_by_id(tmp_path, rows):
    path = tmp_path / "p.csv"
    path.write_text("\ufeffqid,text,p\n1, Lung ,0.5\nslake/validation/2,,nan\n9,x,2\n", encoding="utf-8")
    found = read_mapped(path, parse_map("id=qid,answer=text,confidence=p"), rows)
    assert pairs(found) == [("slake/validation/1", "Lung", 0.5), ("slake/validation/2", "", None), ("9", "x", None)]
    assert found[0].raw == " Lung "


@pytest.mark.parametrize(
    "image", ["slake/scan-1", "scan-1", "scan-1/source.jpg", "imgs\\scan-1\\source.jpg", "scan-1.png"]
)
def test_image_and_question_find_the_row_however_the_image_is_named(tmp_path, rows, image):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"img": image, "q": "which ORGAN is it", "out": {"text": "lung"}}) + "\n")
    found = read_mapped(path, parse_map("image=img,question=q,answer=out.text"), rows)
    assert pairs(found) == [("slake/validation/1", "lung", None)]


@pytest.mark.parametrize(
    "content",
    [
        [{"id": "1", "answer": "lung"}],
        {"model": "m", "results": [{"id": "1", "answer": "lung"}]},
        {"1": "lung"},
        {"1": {"answer": "lung"}},
        [{"id": 1, "answer": "lung"}],
    ],
)
def test_the_usual_shapes_of_json(tmp_path, rows, content):
    path = tmp_path / "p.json"
    path.write_text(json.dumps(content))
    found = read_mapped(path, parse_map("id=id,answer=answer"), rows)
    assert pairs(found) == [("slake/validation/1", "lung", None)]


def test_lists_and_truth_values_are_read_as_text(tmp_path, rows):
    path = tmp_path / "p.json"
    path.write_text(json.dumps([{"id": 1, "choices": [{"content": True}]}, {"id": 2, "choices": [{"content": None}]}]))
    found = read_mapped(path, parse_map("id=id,answer=choices.0.content"), rows)
    assert [p.answer for p in found] == ["yes", ""]


def test_rows_that_match_nothing_are_named_and_not_dropped(tmp_path, rows, score):
    path = tmp_path / "p.csv"
    path.write_text("image,question,pred\nscan-1,Which organ is it?,Lung\nscan-9,Which organ is it?,Lung\n")
    found = read_mapped(path, parse_map("image=image,question=question,answer=pred"), rows)
    results = score(rows, found)
    assert {part.reason: (part.n, part.ids[0]) for part in results.excluded} == {
        "no prediction": (5, "slake/validation/2"),
        "prediction for a question that is not in this split": (1, "scan-9: Which organ is it?"),
    }


def test_an_id_given_twice_is_excluded(tmp_path, rows, score):
    path = tmp_path / "p.csv"
    path.write_text("id,answer\n1,Lung\n1,Liver\n2,Yes\n")
    found = read_mapped(path, parse_map("id=id,answer=answer"), rows)
    results = score(rows, found)
    assert "predicted more than once" in {part.reason for part in results.excluded}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id=a", "of the answer"),
        ("answer=a", "and of the id"),
        ("image=a,answer=b", "image and question"),
        ("id=a,answer=b,score=c", "'score'"),
        ("id=,answer=b", "name the column"),
    ],
)
def test_a_map_that_cannot_work_is_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        parse_map(text)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.csv", "id,answer\n1,lung\n", "no 'qid' for id"),
        ("p.json", "{broken", "not JSON"),
        ("p.json", "3", "a list of objects"),
        ("p.txt", "", "ending in .csv"),
        ("p.jsonl", "{broken\n", "not JSON"),
        ("none.csv", None, "no predictions at"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, rows, name, text, words):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=words):
        read_mapped(tmp_path / name, parse_map("id=qid,answer=answer"), rows)


def test_a_csv_in_another_encoding_is_refused(tmp_path, rows):
    (tmp_path / "p.csv").write_bytes("id,answer\n1,Lunge \xe4\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        read_mapped(tmp_path / "p.csv", parse_map("id=id,answer=answer"), rows)


def test_image_names_go_from_the_most_exact_to_the_least():
    assert image_names("imgs/xmlab1/source.jpg") == ["imgs/xmlab1/source.jpg", "imgs/xmlab1/source", "xmlab1", "source"]

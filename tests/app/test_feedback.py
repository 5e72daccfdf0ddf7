"""Ratings become rows to train on, only with consent and a known answer."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from fake_backend import png

from medical_vqa.data import feedback
from medical_vqa.data.feedback import Rating, record
from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.errors import DataError
from medical_vqa.pipelines.prepare import prepare_dataset


def rating(id_="a-0", *, correct=True, correction="", picture=None):
    return Rating(id_, "Is the liver healthy?", "yes", correct, "fake-model", correction, picture)


def rows(folder, name="questions"):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_a_confirmed_answer_with_its_picture_is_a_row(tmp_path):
    assert record(tmp_path, rating(picture=png()))
    (row,) = rows(tmp_path)
    assert (row["question"], row["answer"], row["source"]) == ("Is the liver healthy?", "yes", "confirmed")
    assert (tmp_path / row["image"]).read_bytes() == png()


def test_without_consent_no_picture_is_stored_and_no_row_written(tmp_path):
    assert not record(tmp_path, rating())
    assert rows(tmp_path) == []
    assert not list(tmp_path.rglob("*.png"))
    assert rows(tmp_path, "ratings")[0]["correct"]


def test_a_wrong_answer_is_a_row_only_with_its_correction(tmp_path):
    assert not record(tmp_path, rating(correct=False, picture=png()))
    assert record(tmp_path, rating(correct=False, correction=" no ", picture=png()))
    (row,) = rows(tmp_path)
    assert (row["answer"], row["source"]) == ("no", "corrected")


def test_the_last_rating_counts_and_withdrawn_consent_deletes_the_picture(tmp_path):
    record(tmp_path, rating(picture=png()))
    assert not record(tmp_path, rating())
    assert rows(tmp_path) == []
    assert not list(tmp_path.rglob("*.png"))
    assert len(rows(tmp_path, "ratings")) == 2


def test_one_picture_is_stored_once(tmp_path):
    record(tmp_path, rating("a", picture=png()))
    record(tmp_path, rating("b", picture=png()))
    assert len(rows(tmp_path)) == 2
    assert len(list(tmp_path.rglob("*.png"))) == 1


def test_a_full_folder_stores_ratings_without_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(feedback, "MAX_BYTES", 10)
    assert not record(tmp_path, rating(picture=png()))
    assert rows(tmp_path, "ratings")[0]["image"] is None


def test_many_ratings_at_once_are_all_stored(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: record(tmp_path, rating(str(n), picture=png(shade=n))), range(24)))
    assert {row["id"] for row in rows(tmp_path)} == {str(n) for n in range(24)}


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="choose another folder"):
        record(tmp_path / "file", rating())


def test_the_folder_can_be_prepared_and_so_trained_on(tmp_path):
    source = tmp_path / "ratings"
    record(source, rating("a", picture=png(shade=10)))
    record(source, rating("b", correct=False, correction="脂肪肝", picture=png(shade=20)))
    prepare_dataset("folder", source=source, root=tmp_path / "root", name="ratings")
    examples = PreparedDataset.open("ratings", tmp_path / "root").examples("train")
    assert [(example.id, example.answers) for example in examples] == [("a", ("yes",)), ("b", ("脂肪肝",))]
    assert examples[1].facts["source"] == "corrected"

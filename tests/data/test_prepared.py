from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medical_vqa.data.formats.folder import Folder
from medical_vqa.data.prepared.dataset import PreparedDataset, default_root
from medical_vqa.data.prepared.manifest import MANIFEST_NAME
from medical_vqa.data.prepared.prepare import prepare
from medical_vqa.data.prepared.summary import manifest_table, shared_images
from medical_vqa.errors import ConfigError, DataError

CSV = """image,question,answer,split,organ,image_id
1.png,a?,b,train,chest,1.png
2.png,c?,d,train,head,2.png
1.png,e?,f,test,chest,1.png
"""


@pytest.fixture
def root(own_folder: Any, tmp_path: Path) -> Path:
    prepare(Folder(), own_folder(CSV), tmp_path / "root", name="mine")
    return tmp_path / "root"


def test_rows_and_images_come_back(root: Path) -> None:
    data = PreparedDataset.open("mine", root)
    assert data.splits == ("train", "test")
    assert [e.question for e in data.examples("train")] == ["a?", "c?"]
    assert data.images.load("mine/1.png").mode == "RGB"
    assert data.images.digest("mine/1.png") == data.manifest.images["mine/1.png"].sha256


def test_a_prepared_dataset_shows_its_name_and_counts(root: Path) -> None:
    data = PreparedDataset.open("mine", root)
    rows = ", ".join(f"{len(data.examples(split))} {split}" for split in data.splits)
    assert repr(data) == f"<medical_vqa.PreparedDataset 'mine': {rows} questions, {len(data.manifest.images)} images>"


def test_facts_select_rows(root: Path) -> None:
    data = PreparedDataset.open("mine", root)
    assert [e.id for e in data.examples("train", {"organ": "head"})] == ["mine/train/2"]
    with pytest.raises(ConfigError, match=r"no question has the fact 'orgn'; did you mean 'organ'\?"):
        data.examples("train", {"orgn": "head"})
    with pytest.raises(ConfigError, match="no question has organ 'knee'; known: chest, head"):
        data.examples("train", {"organ": "knee"})


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("slake", "slake --source DIR"),
        ("slake-mini", "slake-mini"),
        ("slake-clean", "slake --source DIR --resplit clean"),
        ("my-own", "folder --source DIR --as my-own"),
        ("mien", "folder --source DIR --as mien"),
    ],
)
def test_the_command_that_prepares_what_is_not_there_is_one_that_works(root: Path, name: str, command: str) -> None:
    with pytest.raises(DataError) as error:
        PreparedDataset.open(name, root)
    assert str(error.value).endswith(f"; run: medical-vqa prepare {command} --root {root}")
    assert ("(there is 'mine')" in str(error.value)) is (name == "mien")


def test_what_is_not_there_is_named(root: Path) -> None:
    with pytest.raises(
        DataError, match=r"slake is not prepared under .*medical-vqa prepare slake --source DIR --root "
    ):
        PreparedDataset.open("slake", root)
    data = PreparedDataset.open("mine", root)
    with pytest.raises(
        DataError, match="mine was prepared without a validation split; it has train, test; name one of these"
    ):
        data.examples("validation")
    with pytest.raises(DataError, match=r"has no image 'mine/9\.png'"):
        data.images.digest("mine/9.png")


def test_a_damaged_folder_is_not_read(root: Path) -> None:
    data = PreparedDataset.open("mine", root)
    path = root / "mine" / "train.jsonl"
    path.write_text(path.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="has 1 of 2 rows; prepare mine again"):
        data.examples("train")
    path.unlink()
    with pytest.raises(DataError, match="is missing; prepare mine again"):
        data.examples("train")


def test_a_manifest_of_another_version_is_not_read(root: Path) -> None:
    path = root / "mine" / MANIFEST_NAME
    row = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**row, "format": 99}), encoding="utf-8")
    with pytest.raises(
        DataError,
        match=r"has format 99 and .* reads format 1; delete .* prepare the dataset again",
    ):
        PreparedDataset.open("mine", root)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"is not JSON .*; delete"):
        PreparedDataset.open("mine", root)


def test_the_table_counts_per_split_and_fact(root: Path) -> None:
    data = PreparedDataset.open("mine", root)
    examples = {split: data.examples(split) for split in data.splits}
    table = [(row.fact, row.value, dict(row.counts)) for row in manifest_table(data.manifest, examples)]
    assert table == [
        ("questions", "", {"train": 2, "test": 1}),
        ("images", "", {"train": 2, "test": 1}),
        ("organ", "chest", {"train": 1, "test": 1}),
        ("organ", "head", {"train": 1, "test": 0}),
    ]
    assert shared_images(data.manifest, examples) == ["1 image is in both train and test"]


def test_a_fact_with_very_many_values_is_left_out_of_the_table(own_folder: Any, tmp_path: Path) -> None:
    lines = [f"1.png,a?,b,{number}" for number in range(21)]
    manifest = prepare(Folder(), own_folder("image,question,answer,case\n" + "\n".join(lines)), tmp_path)
    rows = PreparedDataset.open("folder", tmp_path).examples("train")
    assert [row.fact for row in manifest_table(manifest, {"train": rows})] == ["questions", "images"]


def test_the_default_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEDICAL_VQA_HOME", str(tmp_path))
    assert default_root() == tmp_path / "data"

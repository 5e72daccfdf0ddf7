"""Folds of `tools/cross_validate.py`."""

import runpy
import shutil
from pathlib import Path

from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.data.prepared.manifest import write_manifest

TOOL = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "cross_validate.py"))


def test_images_that_are_nearly_equal_are_in_one_fold():
    linked = {"a": "a", "b": "a", "c": "c", "d": "d", "e": "d", "f": "f"}
    fold_of = TOOL["balanced_folds"](linked, 2)
    assert fold_of["a"] == fold_of["b"]
    assert fold_of["d"] == fold_of["e"]
    assert sorted(fold_of.values()) == [0, 0, 0, 1, 1, 1]


def test_folds_do_not_depend_on_the_order_of_the_images():
    groups = {name: name for name in "abcdefgh"}
    reverse = dict(reversed(groups.items()))
    assert TOOL["balanced_folds"](groups, 3) == TOOL["balanced_folds"](reverse, 3)


def test_a_dataset_without_validation_rows_is_divided_too(root, tmp_path):
    """VQA-RAD has training rows alone; each is scored in one fold and learned from in the others."""
    sample = PreparedDataset.open("slake-mini", root)
    folder = tmp_path / "data" / "train-only"
    shutil.copytree(sample.folder, folder)
    (folder / "validation.jsonl").unlink()
    splits = {"train": sample.manifest.splits["train"]}
    write_manifest(folder, sample.manifest.model_copy(update={"name": "train-only", "splits": splits}))
    dataset = PreparedDataset.open("train-only", tmp_path / "data")
    names = TOOL["write_folds"](dataset, tmp_path / "folds", 3)
    folds = [PreparedDataset.open(name, tmp_path / "folds") for name in names]
    held_out = [row.id for fold in folds for row in fold.examples("validation")]
    assert sorted(held_out) == sorted(row.id for row in dataset.examples("train"))
    for fold in folds:
        groups = [{row.group for row in fold.examples(split)} for split in ("train", "validation")]
        assert not groups[0] & groups[1]

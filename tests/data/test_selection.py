"""Which rows are learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medical_vqa.data.formats.slake import Slake
from medical_vqa.data.prepared.dataset import default_root
from medical_vqa.data.prepared.prepare import prepare
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.schema.selection import Selection


def test_further_rows_are_of_selected_training_images_alone(slake_folder: Any, slake_row: Any, tmp_path: Path) -> None:
    chinese = {"q_lang": "zh", "question": "肝在哪里?"}
    train = [slake_row(0, 1), slake_row(3, 1, **chinese), slake_row(4, 2, **chinese), slake_row(5, 3, **chinese)]
    folder = slake_folder(train=train, validate=[slake_row(2, 2)])  # image 2 is validated on, 3 is in neither
    prepare(Slake(), folder, tmp_path / "root", partial=True)
    selection = Selection(dataset="slake", root=tmp_path / "root", where={"language": "en"}, also={"language": "zh"})
    data = SelectedDataset.open(selection)
    assert [row.facts["qid"] for row in data.rows("train")] == ["0", "3"]
    assert [row.facts["qid"] for row in data.rows("validation")] == ["2"]
    assert Selection.model_validate_json(selection.model_dump_json()) == data.selection == selection


def test_a_selection_without_a_root_is_opened_where_datasets_are_prepared(
    slake_folder: Any, slake_row: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDICAL_VQA_HOME", str(tmp_path))
    prepare(Slake(), slake_folder(train=[slake_row(0, 1)]), default_root(), partial=True)
    data = SelectedDataset.open(Selection(dataset="slake"))
    assert data.selection.root == default_root() == tmp_path / "data"
    assert data.reselect(Selection(dataset="slake", seed=1)).dataset is data.dataset

"""Which rows are learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medical_vqa.data.formats.slake import Slake
from medical_vqa.data.prepared.dataset import default_root
from medical_vqa.data.prepared.prepare import prepare
from medical_vqa.data.prepared.selection import Selection


def test_further_rows_are_of_selected_training_images_alone(slake_folder: Any, slake_row: Any, tmp_path: Path) -> None:
    chinese = {"q_lang": "zh", "question": "肝在哪里?"}
    train = [slake_row(0, 1), slake_row(3, 1, **chinese), slake_row(4, 2, **chinese), slake_row(5, 3, **chinese)]
    folder = slake_folder(train=train, validate=[slake_row(2, 2)])  # image 2 is validated on, 3 is in neither
    prepare(Slake(), folder, tmp_path / "root", partial=True)
    selection = Selection("slake", tmp_path / "root", {"language": "en"}, also={"language": "zh"})
    assert [row.facts["qid"] for row in selection.rows("train")] == ["0", "3"]
    assert [row.facts["qid"] for row in selection.rows("validation")] == ["2"]
    assert Selection.from_json(selection.to_json()) == selection


def test_a_selection_that_travels_is_found_where_datasets_are_prepared(tmp_path: Path) -> None:
    row = Selection("slake", tmp_path).to_json() | {"root": None}
    assert Selection.from_json(row).root == default_root()

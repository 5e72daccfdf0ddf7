"""Where things lie in a picture: read from SLAKE's files, kept beside the prepared pictures, found by their content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medical_vqa.data.cache.regions import FULL, GRID, UNKNOWN, RegionStore, coverage_grid
from medical_vqa.data.formats.slake import Slake
from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.data.prepared.prepare import prepare
from medical_vqa.errors import DataError


@pytest.fixture
def annotated(slake_folder: Any) -> Path:
    """SLAKE's layout with a mask and boxes of the first picture (24 x 16 pixels) and a color overlay of the second."""
    folder: Path = slake_folder()
    (folder / "mask.txt").write_text("70:Liver\n80:Spleen\n")
    (folder / "masks").mkdir()
    mask = np.zeros((32, 48), np.uint8)  # masks may be of another size than their picture
    mask[:16, :24] = 70
    Image.fromarray(mask).save(folder / "masks/xmlab1.png")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / "masks/xmlab2.png")
    (folder / "imgs/xmlab1/detection.json").write_text(json.dumps([{"Mass": [12.0, 8.0, 12.0, 8.0]}, {"Heart": []}]))
    return folder


def test_a_mask_covers_shares_of_cells():
    mask = np.zeros((GRID * 2, GRID * 2), bool)
    mask[:2, :2] = mask[2, 2] = True
    grid = coverage_grid(mask)
    assert (grid[0, 0], grid[1, 1], grid[2, 2]) == (FULL, round(FULL / 4), 0)


def test_coverage_keeps_the_area_whatever_the_size():
    mask = np.zeros((37, 91), bool)
    mask[5:20, 30:71] = True
    assert coverage_grid(mask).mean() / FULL == pytest.approx(mask.mean(), abs=2e-3)


def test_prepared_regions_are_found_by_the_picture(annotated, tmp_path):
    prepare(Slake(), annotated, tmp_path / "root", partial=True)
    prepared = PreparedDataset.open("slake", tmp_path / "root")
    store = RegionStore(prepared.folder)
    assert store.names == ("box: Mass", "mask: Liver", "mask: Spleen")
    mass, liver, spleen = store.get(prepared.images.digest("slake/xmlab1"))
    half = GRID // 2
    assert (liver[:half, :half] == FULL).all()
    assert liver[half:].max() == 0
    assert (mass[half:, half:] == FULL).all()
    assert mass[:half].max() == 0
    assert spleen.max() == 0  # looked for, and not there


def test_what_nobody_looked_for_is_unknown(annotated, tmp_path):
    prepare(Slake(), annotated, tmp_path / "root", partial=True)
    prepared = PreparedDataset.open("slake", tmp_path / "root")
    store = RegionStore(prepared.folder)
    assert (store.get(prepared.images.digest("slake/xmlab2")) == UNKNOWN).all()
    assert (store.get("of no picture") == UNKNOWN).all()


def test_a_mask_with_nothing_drawn_says_nothing(annotated, tmp_path):
    (annotated / "masks/xmlab1.png").rename(annotated / "masks/xmlab2.png")
    Image.fromarray(np.zeros((32, 48), np.uint8)).save(annotated / "masks/xmlab1.png")
    prepare(Slake(), annotated, tmp_path / "root", partial=True)
    prepared = PreparedDataset.open("slake", tmp_path / "root")
    mass, liver, spleen = RegionStore(prepared.folder).get(prepared.images.digest("slake/xmlab1"))
    assert (liver == UNKNOWN).all()
    assert (spleen == UNKNOWN).all()
    assert mass.max() == FULL  # boxes are known all the same


def test_a_dataset_without_regions_says_so(slake_folder, tmp_path):
    prepare(Slake(), slake_folder(), tmp_path / "root", partial=True)
    with pytest.raises(DataError, match=r"no regions\.npz.*data\.regions: false"):
        RegionStore(tmp_path / "root/slake")


def test_damaged_regions_are_one_sentence(annotated, tmp_path):
    prepare(Slake(), annotated, tmp_path / "root", partial=True)
    (tmp_path / "root/slake/regions.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match="is damaged"):
        RegionStore(tmp_path / "root/slake")


@pytest.mark.parametrize(("file", "text"), [("mask.txt", "liver:70"), ("imgs/xmlab1/detection.json", "[1]")])
def test_annotations_in_another_form_are_refused(annotated, tmp_path, file, text):
    (annotated / file).write_text(text)
    with pytest.raises(DataError, match="expected"):
        prepare(Slake(), annotated, tmp_path / "root", partial=True)

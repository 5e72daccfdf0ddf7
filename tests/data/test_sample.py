"""What ships must be what its card and its license say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from PIL import Image

from medical_vqa.data.formats.slake_mini import SlakeMini
from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.data.prepared.prepare import prepare
from medical_vqa.io import sha256


def test_the_sample_is_complete_and_no_picture_is_in_both_splits(tmp_path: Path) -> None:
    manifest = prepare(SlakeMini(), SlakeMini().bundled(), tmp_path)
    assert manifest.counts == dict(SlakeMini().card.rows)
    assert len(manifest.images) == SlakeMini().card.images == 150
    assert manifest.missing == ()
    data = PreparedDataset.open("slake-mini", tmp_path)
    contents = {split: {data.images.digest(e.image_id) for e in data.examples(split)} for split in data.splits}
    assert list(contents) == ["train", "validation"]
    assert not contents["train"] & contents["validation"]


def test_the_sample_is_english_covers_every_organ_and_has_the_known_empty_answer() -> None:
    published = SlakeMini().read(SlakeMini().bundled())
    for rows in published.examples.values():
        assert Counter(e.facts["language"] for e in rows).keys() == {"en"}
        assert {e.facts["organ"] for e in rows} == {"Abdomen", "Chest", "Head", "Neck", "Pelvis"}
        assert {e.facts["modality"] for e in rows} == {"CT", "MRI", "X-Ray"}
    empty = [e.id for rows in published.examples.values() for e in rows if not e.answers]
    assert empty == ["slake-mini/train/1622"]


def test_the_sample_is_small_and_carries_its_license() -> None:
    folder = SlakeMini().bundled()
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 2_900_000
    assert "CC BY 4.0" in (folder / "LICENSE").read_text(encoding="utf-8")
    assert "ISBI" in (folder / "README.md").read_text(encoding="utf-8")
    for path in folder.rglob("*.jpg"):
        with Image.open(path) as image:
            assert max(image.size) <= 256


def test_ids_name_the_sample_and_not_slake() -> None:
    published = SlakeMini().read(SlakeMini().bundled())
    example = published.examples["train"][0]
    assert example.id.startswith("slake-mini/train/")
    assert sha256(published.read_image(example.image_id))

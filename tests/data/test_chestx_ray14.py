"""ChestX-ray14 in its published layout: radiographs with labels as questions, and a model of them and SLAKE."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import medical_vqa as mv
from medical_vqa.data.cache.regions import UNKNOWN
from medical_vqa.data.formats.chestx_ray14 import FINDINGS, ChestXray14
from medical_vqa.data.formats.slake import Slake
from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.data.prepared.prepare import prepare
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.errors import DataError
from medical_vqa.pipelines.train import train
from medical_vqa.pipelines.training_inputs import training_inputs
from medical_vqa.schema.bundle_card import read_bundle_card
from medical_vqa.schema.selection import Selection

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
)
"""As published: the brackets are not quoted, and a comma ends the line."""
LABELS = {
    "00000001_000.png": ("Cardiomegaly", "1"),
    "00000001_001.png": ("Cardiomegaly|Pleural_Thickening", "1"),
    "00000002_000.png": ("No Finding", "2"),
    "00000003_000.png": ("Infiltration", "3"),
    "00000004_000.png": ("Mass|Nodule", "4"),
}
BOXES = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_001.png,Cardiomegaly,225.08,547.02,86.78,79.19,,,\n"


@pytest.fixture
def chestx_ray14(tmp_path: Path) -> Callable[..., Path]:
    """The authors' layout: two of the twelve folders of images, the table of labels, the boxes and the test list."""

    def build(labels: Mapping[str, tuple[str, str]] = LABELS, **files: str | None) -> Path:
        folder = tmp_path / "CXR8"
        rows = [
            f"{name},{label},0,{patient},058Y,M,PA,2682,2749,0.143,0.143,\n"
            for name, (label, patient) in labels.items()
        ]
        texts = {
            "Data_Entry_2017.csv": HEADER + "".join(rows),
            "BBox_List_2017.csv": BOXES,
            "test_list.txt": "00000003_000.png\n",
        }
        texts |= {name.replace("_csv", ".csv").replace("_txt", ".txt"): text for name, text in files.items()}
        folder.mkdir(exist_ok=True)
        for name, text in texts.items():
            if text is not None:
                (folder / name).write_text(text, encoding="utf-8")
        generator = np.random.default_rng(0)
        for number, name in enumerate(LABELS):
            path = folder / f"images_00{1 + number % 2}/images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (32, 32), dtype=np.uint8)).save(path)
        return folder

    return build


def answers(rows: Any, image: str) -> dict[str, str]:
    return {row.question: row.answers[0] for row in rows if row.image_id.endswith(image)}


def test_every_radiograph_is_asked_for_each_finding_in_the_words_of_slake(chestx_ray14):
    published = ChestXray14().read(chestx_ray14())
    assert {split: len(rows) for split, rows in published.examples.items()} == {"train": 60, "test": 15}
    thickened = answers(published.examples["train"], "00000001_001.png")
    assert len(thickened) == 1 + len(FINDINGS)
    assert {question for question, answer in thickened.items() if answer == "Yes"} == {
        "Are there abnormalities in this image?",
        "Can cardiomegaly be observed in this picture?",
        "Can pleural thickening be observed in this picture?",
    }
    assert set(answers(published.examples["train"], "00000002_000.png").values()) == {"No"}
    assert (
        answers(published.examples["test"], "00000003_000.png")["Can infiltration be observed in this picture?"]
        == "Yes"
    )
    assert not published.missing
    row = published.examples["train"][1]
    assert row.facts == {
        "answer_type": "CLOSED",
        "content_type": "Abnormality",
        "modality": "X-Ray",
        "location": "Lung",
        "organ": "Chest",
        "language": "en",
        "finding": "atelectasis",
        "view": "PA",
        "box_patient": "yes",
    }


def test_the_patients_with_boxes_are_those_of_slake_and_can_be_left_out(chestx_ray14):
    published = ChestXray14().read(chestx_ray14())
    by_patient = Counter((row.group, row.facts["box_patient"]) for rows in published.examples.values() for row in rows)
    assert by_patient == {
        ("chestx-ray14/patient-1", "yes"): 30,  # also of the image without a box
        ("chestx-ray14/patient-2", "no"): 15,
        ("chestx-ray14/patient-3", "no"): 15,
        ("chestx-ray14/patient-4", "no"): 15,
    }


def test_what_is_not_there_is_said(chestx_ray14):
    folder = chestx_ray14(BBox_List_2017_csv=None, test_list_txt=None)
    (folder / "images_001/images/00000002_000.png").unlink()
    published = ChestXray14().read(folder)
    assert list(published.missing) == ["BBox_List_2017.csv", "test_list.txt"]
    assert list(published.notes) == [
        "without BBox_List_2017.csv no row has the fact box_patient, which says which patients are SLAKE's",
        "without test_list.txt all rows are training rows",
        "1 of 5 radiographs have no image here: they are left out",
    ]
    assert len(published.examples["train"]) == 60
    assert "box_patient" not in published.examples["train"][0].facts


def test_the_sample_that_others_publish_is_read_too(chestx_ray14):
    folder = chestx_ray14()
    (folder / "Data_Entry_2017.csv").rename(folder / "sample_labels.csv")
    assert sum(map(len, ChestXray14().read(folder).examples.values())) == 75


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            {"1.png": ("Cardiomegally", "1")},
            "row 1: 'Cardiomegally' is no label of ChestX-ray14; did you mean 'Cardiomegaly'?",
        ),
        ({"1.png": ("", "1")}, "row 1: expected Image Index, Finding Labels and Patient ID"),
        ({"1.png": ("Mass", "")}, "row 1: expected Image Index, Finding Labels and Patient ID"),
        ({"1.png": ("No Finding|Mass", "1")}, "row 1: is labeled 'No Finding|Mass', with findings and without"),
    ],
)
def test_a_row_that_is_not_as_published_is_named(labels, message, chestx_ray14):
    with pytest.raises(DataError) as raised:
        ChestXray14().read(chestx_ray14(labels))
    assert message in str(raised.value)


def test_a_folder_without_labels_or_with_two_tables_is_refused(chestx_ray14):
    folder = chestx_ray14()
    (folder / "Data_Entry_2017_v2020.csv").write_text((folder / "Data_Entry_2017.csv").read_text())
    with pytest.raises(DataError, match=r"has both Data_Entry_2017.csv and Data_Entry_2017_v2020.csv; keep one"):
        ChestXray14().read(folder)
    for path in folder.glob("*.csv"):
        path.unlink()
    with pytest.raises(DataError, match=r"expected Data_Entry_2017.csv; name the folder that holds it"):
        ChestXray14().read(folder)


def test_the_recipe_learns_from_both_and_no_image_of_slakes_patients(
    chestx_ray14, slake_folder, slake_row, tmp_path, watcher
):
    slake = slake_folder(
        train=[slake_row(0, 1), slake_row(1, 2), slake_row(3, 1, q_lang="zh")], validate=[slake_row(2, 3)]
    )
    (slake / "imgs/xmlab1/detection.json").write_text(json.dumps([{"Mass": [2.0, 2.0, 8.0, 8.0]}]))
    (slake / "mask.txt").write_text("70:Liver\n")
    root = tmp_path / "root"
    prepare(Slake(), slake, root, partial=True)
    prepare(ChestXray14(), chestx_ray14(), root, partial=True)
    small = {
        "data.root": str(root),
        "data.mixture": [
            {"name": "chestx-ray14", "where": {"box_patient": "no"}, "validation": None, "validation_fraction": 0.5}
        ],
        "model.trunk": None,
        "model.picture": {"side": 48},
        "model.foreground": None,
        "model.channels": [8, 8, 8, 8],
        "model.width": 16,
        "model.heads": 2,
        "training.epochs": 1,
        "training.evaluate_every": 1,
        "training.device": "cpu",
    }
    recipe = mv.load_recipe("slake-radiographs", small)
    inputs = training_inputs(recipe)
    assert {row.facts.get("box_patient", "slake") for row in inputs.rows} == {"slake", "no"}
    store = inputs.regions
    radiographs = SelectedDataset.open(Selection(dataset="chestx-ray14", root=root)).images
    assert (store.get(radiographs.digest("chestx-ray14/images_002/images/00000003_000.png")) == UNKNOWN).all()
    assert (store.get(PreparedDataset.open("slake", root).images.digest("slake/xmlab1")) != UNKNOWN).any()
    card = read_bundle_card(train(recipe, tmp_path / "run", watcher=watcher).bundle)
    assert [part.selection.where for part in card.data.mixture] == [{"box_patient": "no"}]
    assert "NIH Clinical Center" in card.license

"""Questions over a series: which slices the model receives, and how their answers become one."""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import medical_vqa as mv
from medical_vqa.errors import ConfigError, ImageError
from medical_vqa.models.slices import combined
from medical_vqa.schema.records import Prediction

sys.path.insert(0, str(Path(__file__).parent / "data"))
from dicom_files import made

ABDOMEN = Path(str(files("medical_vqa") / "assets/slake-mini/imgs/xmlab278/source.jpg"))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A series of 12 slices, of which those from 6 to 8 show the picture of the sample and the others noise."""
    folder = tmp_path_factory.mktemp("study")
    picture = np.asarray(Image.open(ABDOMEN).convert("L").resize((128, 128))).astype(np.int16) - 1024
    noise = np.random.default_rng(0).integers(-1024, -768, (128, 128)).astype(np.int16)
    for z in range(12):
        header = {
            "ImagePositionPatient": [0, 0, 5 * z],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [1, 1],
            "SeriesInstanceUID": "1.2.826.999",
            "WindowCenter": "-896",
            "WindowWidth": "256",
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
            "PatientName": "Doe^Jane",
        }
        (folder / f"{z}.dcm").write_bytes(made(picture if 6 <= z <= 8 else noise, **header))
    return folder


@pytest.fixture(scope="module")
def shipped():
    return mv.load("shipped")


def test_evenly_spread_slices_are_named_with_their_own_answers(shipped, study):
    answer = shipped.ask_series(study, "What modality is used to take this image?", slices=4)
    assert (answer.selection, answer.slice_numbers) == ("even", (1, 4, 7, 10))
    assert [one.slice for one in answer.slices] == [1, 4, 7, 10]
    assert (answer.view.frames, answer.view.plane, answer.view.window) == (12, "axial", (-896, 256))
    content = json.dumps(answer.to_dict())
    assert "Doe" not in content
    assert "1.2.826" not in content


def test_slices_that_show_what_the_question_names_are_chosen(shipped, study):
    answer = shipped.ask_series(study, "Is the liver healthy?", slices=3)
    shown = {one.slice for one in answer.slices}
    assert answer.selection == "localized"
    assert shown <= {6, 7, 8}
    assert all(one.presence >= 0.5 for one in answer.slices)


def test_answers_are_combined_by_their_mean_probability():
    predictions = [
        Prediction("0", "yes", confidence=0.9, alternatives=(("no", 0.1),)),
        Prediction("1", "no", confidence=0.6, alternatives=(("yes", 0.4),)),
        Prediction("2", "no", confidence=0.6, alternatives=(("yes", 0.4),)),
    ]
    text, confidence = combined(predictions)
    assert (text, confidence) == ("yes", pytest.approx(1.7 / 3))
    assert combined([Prediction("0", "a"), Prediction("1", "b"), Prediction("2", "b")]) == ("b", None)


def test_the_command_line_answers_about_a_folder_and_names_the_slices(study, call):
    code, out, err = call("ask", study, "Which organ is shown?", "--model", "shipped", "--slices", "3")
    assert code == 0, err
    assert "slices, evenly spread: 2, 6, 10 of 12, counted from 0" in out
    assert "seen: DICOM, 128x128; frame 6 of 12" in out
    code, out, err = call("ask", study, "Is it?", "--model", "shipped", "--frame", "1")
    assert code == 2
    assert "--frame and --and are for one image, and this is a series" in err


def test_arguments_that_make_no_sense_are_refused(shipped, study):
    with pytest.raises(ConfigError, match="slices: expected a number from 1 to 100, got 0"):
        shipped.ask_series(study, "Is it?", slices=0)
    with pytest.raises(ConfigError, match="plane: expected axial, coronal or sagittal, got 'top'"):
        shipped.ask_series(study, "Is it?", plane="top")
    with pytest.raises(ImageError, match="expected a window of a finite center"):
        shipped.ask_series(study, "Is it?", window=(40, 0))

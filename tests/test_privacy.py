"""Names, birth dates and identifiers planted in a DICOM header are in no file that the commands write."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "data"))
from dicom_files import made

PLANTED = {
    "PatientName": "Zyxw^Planted",
    "PatientID": "PID-998877",
    "PatientBirthDate": "19511224",
    "AccessionNumber": "ACC-554433",
    "StudyInstanceUID": "1.2.826.0.1.777.1",
    "SeriesInstanceUID": "1.2.826.0.1.777.2",
    "StudyDescription": "Planted study",
    "BodyPartExamined": "ZYXW PLANTED",
    "ReferringPhysicianName": "Referring^Planted",
}
WORDS = ("Zyxw", "ZYXW", "Planted", "PLANTED", "998877", "19511224", "554433", "1.2.826.0.1.777")


@pytest.fixture
def source(tmp_path):
    """A folder of questions about four files of two patients, in folders called after one of them."""
    folder = tmp_path / "source"
    (folder / "Zyxw_Planted").mkdir(parents=True)
    rng, rows = np.random.default_rng(0), ["image,question,answer,split"]
    for number in range(4):
        values = rng.integers(0, 4000, (64, 64)).astype(np.uint16)
        place = {"ImagePositionPatient": [0, 0, number], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        path = folder / "Zyxw_Planted" / f"{number}.dcm"
        path.write_bytes(made(values, **PLANTED, **place, PixelSpacing=[1, 1]))
        rows += [f"Zyxw_Planted/{number}.dcm,Is this a CT?,yes,{'train' if number < 2 else 'test'}"]
    (folder / "questions.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_nothing_planted_is_in_a_file_or_an_output(call, source, tmp_path):
    root = tmp_path / "root"
    outputs = []
    for words in (
        ("prepare", "folder", "--source", source, "--root", root, "--as", "mine"),
        ("audit", "mine", "--root", root, "--out", tmp_path / "audit.html"),
        ("predict", "shipped", "--dataset", "mine", "--root", root, "--split", "test", "--out", tmp_path / "p.jsonl"),
        ("score", tmp_path / "p.jsonl"),
        ("report", tmp_path / "p.jsonl", "--out", tmp_path / "report.html"),
        ("ask", source / "Zyxw_Planted" / "0.dcm", "Is this a CT?", "--model", "shipped", "--json"),
        ("ask", source / "Zyxw_Planted", "Is this a CT?", "--model", "shipped", "--json"),
    ):
        code, out, err = call(*words)
        assert code == 0, (words[0], err)
        if words[0] == "ask":  # it repeats the path that was given
            content = json.loads(out)
            content.pop("image", None)
            content.pop("series", None)
            content["seen"].pop("file")
            out = json.dumps(content)
        outputs.append(out)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and source not in path.parents]
    assert len(written) > 8
    for word in WORDS:
        assert not [text for text in outputs if word in text], word
        assert not [path for path in written if word.encode() in path.read_bytes()], word

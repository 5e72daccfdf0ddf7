"""Names, birth dates and identifiers planted in DICOM headers are in no file that commands or the server write."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "data"))
sys.path.insert(0, str(Path(__file__).parent / "serving"))
import live
from dicom_files import made
from pydicom import dcmread
from tiny_model import TINY_MODEL

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
QUESTIONS = (("Is this a CT?", "yes"), ("Is this an MRI?", "no"), ("Which modality is this?", "CT"))
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
        ("convert", "mine", "--root", root, "--to", "llava-json", "--out", tmp_path / "llava"),
        ("convert", "mine", "--root", root, "--to", "csv", "--out", tmp_path / "csv"),
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


@pytest.mark.slow
def test_nothing_planted_is_in_a_trained_model_or_its_exports(call, source, tmp_path):
    rows = ["image,question,answer,split"]
    for number, split in enumerate(("train", "train", "validation", "test")):
        rows += [f"Zyxw_Planted/{number}.dcm,{question},{answer},{split}" for question, answer in QUESTIONS]
    (source / "questions.csv").write_text("\n".join(rows), encoding="utf-8")
    for number in range(4):  # a patient each, or the splits would be joined
        path = source / "Zyxw_Planted" / f"{number}.dcm"
        dataset = dcmread(path)
        dataset.PatientID, dataset.StudyInstanceUID = f"PID-998877-{number}", f"1.2.826.0.1.777.{number}"
        dataset.save_as(path)
    root, run = tmp_path / "root", tmp_path / "run"
    code, _, err = call("prepare", "folder", "--source", source, "--root", root, "--as", "mine")
    assert code == 0, err
    recipe = {
        "name": "tiny",
        "data": {"name": "mine", "root": str(root)},
        "model": TINY_MODEL,
        "training": {"epochs": 1, "batch_size": 4, "device": "cpu"},
    }
    (tmp_path / "tiny.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    for words in (
        ("train", tmp_path / "tiny.yaml", "--run", run),
        ("export", run, "--to", tmp_path / "exported"),
        ("export", run, "--to", "onnx", tmp_path / "onnx"),
        ("ask", source / "Zyxw_Planted" / "3.dcm", "Is this a CT?", "--model", run, "--json"),
    ):
        code, out, err = call(*words)
        assert code == 0, (words, out, err)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and source not in path.parents]
    kinds = {path.suffix for path in written}
    assert {".safetensors", ".onnx", ".json", ".jsonl", ".md"} <= kinds, kinds
    for word in WORDS:
        assert not [path for path in written if word.encode() in path.read_bytes() or word in path.name], word


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.allow_hosts(["127.0.0.1", "localhost"])
def test_nothing_planted_is_in_the_servers_store_logs_audit_feedback_or_answers(source, tmp_path):
    files = sorted((source / "Zyxw_Planted").iterdir())
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        for path in files:
            out.write(path, f"Zyxw_Planted/{path.name}")
    written = tmp_path / "server"
    settings = {"audit_log": written / "audit", "feedback": written / "feedback", "log_level": "debug"}
    replies: list[str] = []
    server = live.Instance("shipped", store=str(written / "store"), **settings)  # type: ignore[arg-type]
    with server, live.client_of(base_url=server.url) as client:

        def send(method: str, path: str, **body: object) -> dict[str, object]:
            reply = client.request(method, path, **body)
            replies.append(f"{reply.headers} {reply.content!r}")
            assert reply.status_code < 300, reply.text
            return reply.json() if "json" in reply.headers.get("content-type", "") else {}

        name = "Zyxw_Planted.dcm"
        image = send("POST", "/upload_image", files={"image_file": (name, files[0].read_bytes())})["image_id"]
        uploaded = send("POST", "/series", files={"files": ("Zyxw_Planted.zip", archive.getvalue())})
        series = uploaded["series"][0]["image_id"]
        for identifier in (image, series):
            for path in ("", "/view", "/values", "/picture"):
                send("GET", f"/images/{identifier}{path}")
            send("POST", "/ask_question", json={"image_id": identifier, "question": "Is this a CT?"})
        send("POST", "/ask", files={"image_file": (name, files[0].read_bytes())}, data={"question": "Is this a CT?"})
        conversation = send("POST", "/conversations")["id"]
        path = f"/conversations/{conversation}"
        send("POST", f"{path}/stored", json={"image_id": image})
        question = {"image_id": image, "key": "question-1", "question": "Is this a CT?"}
        send("POST", f"{path}/questions", json=question)
        version = -1
        while True:
            state = send("GET", f"{path}?after={version}")
            version = state["version"]
            if state["cases"][0]["turns"][0]["status"] == "answered":
                break
        rating = {"image_id": image, "key": "question-1", "correct": False, "correction": "CT", "keep_picture": True}
        send("POST", f"{path}/ratings", json=rating)
        refused = client.post("/upload_image", files={"image_file": (name, files[0].read_bytes()[:900])})
        replies += [refused.text, server.logs()]
    paths = [path for path in written.rglob("*") if path.is_file()]
    assert {path.relative_to(written).parts[0] for path in paths} == {"store", "audit", "feedback"}
    for word in WORDS:
        assert not [reply for reply in replies if word in reply], word
        assert not [path for path in paths if word.encode() in path.read_bytes()], word

"""Answers over HTTP as DICOM reports: with UIDs that a setting lets the server store, or that the client gives."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import live
import numpy as np
import pydicom
import pytest
from echo_model import make_engine

from medical_vqa.serving.middleware.access import hash_key
from medical_vqa.serving.schema.errors import Problem
from medical_vqa.serving.schema.images import ImageItem, SeriesUpload, UploadedImage

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from dicom_files import made

CT, ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"
STUDY, SERIES = "1.2.826.0.1.777.1", "1.2.826.0.1.777.2"
QUESTION = "Is this a CT?"
GIVEN = {
    "study_uid": "2.25.1",
    "series_uid": "2.25.2",
    "instances": [{"sop_class_uid": CT, "sop_instance_uid": "2.25.3"}],
    "patient_id": "PID-7",
    "patient_name": "Doe^Jane",
    "patient_birth_date": "19500101",
    "patient_sex": "F",
}


def dicom_slice(z: int, *, values: np.ndarray | None = None, **elements: Any) -> bytes:
    header = {
        "SOPClassUID": CT,
        "SOPInstanceUID": f"{SERIES}.{z}",
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "ImagePositionPatient": [0, 0, 3 * (7 - z)],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [1, 1],
        "PatientName": "Zyxw^Planted",
        "PatientID": "PID-998877",
        "PatientBirthDate": "19511224",
        "RescaleIntercept": "0",
        "RescaleSlope": "1",
    }
    return made(np.full((12, 16), 100 * z, np.int16) if values is None else values, **(header | elements))


def serving(**settings: Any) -> Any:
    return live.serving(make_engine(), live.settings(**settings))


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Of a server that stores what reports must repeat."""
    with serving(dicom_reports=True) as url, live.client_of(base_url=url) as client:
        yield client


def series(client: Any) -> ImageItem:
    files = [("files", ("a.dcm", dicom_slice(z))) for z in range(8)]
    reply = client.post("/series", files=files)
    assert reply.status_code == 201, reply.text
    assert "Zyxw" not in reply.text
    assert SERIES not in reply.text
    (item,) = SeriesUpload.model_validate(reply.json()).series
    return item


def upload(client: Any, data: bytes) -> UploadedImage:
    reply = client.post("/upload_image", files={"image_file": ("a.dcm", data)})
    assert reply.status_code == 200, reply.text
    return UploadedImage.model_validate(reply.json())


def report_in(reply: Any) -> Any:
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/dicom"
    assert reply.headers["cache-control"] == "no-store"
    return pydicom.dcmread(io.BytesIO(reply.content))


def problem(reply: Any, status: int, code: str) -> str:
    assert reply.status_code == status, reply.text
    detail = Problem.model_validate(reply.json()).detail
    assert detail.code == code
    return detail.message


def findings(report: Any) -> list[tuple[str, str, list[tuple[str, Any]]]]:
    """Question, answer or reason, and the images with their frames of each container of a report."""
    found = []
    for container in report.ContentSequence:
        texts, images = [], []
        for item in container.get("ContentSequence", []):
            if item.ValueType == "TEXT":
                texts.append(str(item.TextValue))
            if item.ValueType == "IMAGE":
                reference = item.ReferencedSOPSequence[0]
                images.append((str(reference.ReferencedSOPInstanceUID), reference.get("ReferencedFrameNumber")))
        if len(texts) == 2:
            found.append((*texts, images))
    return found


def valid(reply: Any, folder: Path) -> bool:
    """Whether dciodvfy objects to nothing; true where it is not installed."""
    if shutil.which("dciodvfy") is None:
        return True
    (folder / "report.dcm").write_bytes(reply.content)
    run = subprocess.run(["dciodvfy", folder / "report.dcm"], capture_output=True, text=True, check=False)
    return not [line for line in (run.stdout + run.stderr).splitlines() if line.startswith("Error")]


def test_a_report_about_a_series_refers_to_the_slices_that_were_asked_about(client, tmp_path):
    item = series(client)
    assert item.dicom_report is True
    body = {"questions": [QUESTION, "Is it an MRI?"], "series_uid": "2.25.4", "instance_uid": "2.25.5"}
    reply = client.post(f"/images/{item.image_id}/dicom_report", json=body)
    report = report_in(reply)
    assert (report.SeriesInstanceUID, report.SOPInstanceUID) == ("2.25.4", "2.25.5")
    assert (report.StudyInstanceUID, report.PatientID, str(report.PatientName)) == (STUDY, "PID-998877", "Zyxw^Planted")
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    asked = client.post("/ask_question", json={"image_id": item.image_id, "question": QUESTION}).json()
    slices = [(f"{SERIES}.{7 - one['frame']}", None) for one in asked["slices"]]
    assert len(slices) > 1
    (question, answer, images), (other, _, _) = findings(report)
    assert (question, answer, images, other) == (QUESTION, asked["answer"], slices, "Is it an MRI?")
    assert valid(reply, tmp_path)


def test_a_report_about_one_slice_refers_to_it_and_one_about_another_plane_to_the_series(client):
    item = series(client)
    path = f"/images/{item.image_id}/dicom_report"
    report = report_in(client.post(path, json={"questions": [QUESTION], "frame": 2}))
    assert findings(report)[0][2] == [(f"{SERIES}.5", None)]
    report = report_in(client.post(path, json={"questions": [QUESTION], "frame": 3, "plane": "coronal"}))
    assert len(findings(report)[0][2]) == 8


def test_a_report_about_a_frame_of_a_file_names_the_frame(client, tmp_path):
    values = np.random.default_rng(0).integers(0, 900, (5, 12, 16)).astype(np.int16)
    image = upload(client, dicom_slice(0, values=values, SOPInstanceUID="2.25.77", SOPClassUID=ENHANCED_CT))
    assert image.dicom_report is True
    reply = client.post(f"/images/{image.image_id}/dicom_report", json={"questions": [QUESTION]})
    assert findings(report_in(reply))[0][2] == [("2.25.77", 3)]
    assert valid(reply, tmp_path)
    reply = client.post(f"/images/{image.image_id}/dicom_report", json={"questions": [QUESTION], "frame": 4})
    assert findings(report_in(reply))[0][2] == [("2.25.77", 5)]
    picture = upload(client, dicom_slice(0, values=np.arange(192, dtype=np.uint8).reshape(12, 16)))
    reply = client.post(f"/images/{picture.image_id}/dicom_report", json={"questions": [QUESTION]})
    assert findings(report_in(reply))[0][2] == [(f"{SERIES}.0", None)]


def test_the_answers_of_a_conversation_are_reported(client, tmp_path):
    item = series(client)
    conversation = client.post("/conversations").json()["id"]
    path = f"/conversations/{conversation}"
    case = client.post(f"{path}/stored", json={"image_id": item.image_id}).json()
    assert case["image"]["dicom_report"] is True
    report_path = f"{path}/images/{item.image_id}/dicom_report"
    assert "ask one first" in problem(client.post(report_path, json={}), 422, "invalid")
    question = {"image_id": item.image_id, "key": "question-1", "question": QUESTION, "frame": 1, "plane": "axial"}
    assert client.post(f"{path}/questions", json=question).status_code == 202
    version, answered = -1, None
    while answered is None:
        state = client.get(f"{path}?after={version}").json()
        version, answered = state["version"], state["cases"][0]["turns"][0]["answer"]
    reply = client.post(report_path, json={})
    assert findings(report_in(reply)) == [(QUESTION, answered["answer"], [(f"{SERIES}.6", None)])]
    assert report_in(client.post(report_path, json={})).SOPInstanceUID != report_in(reply).SOPInstanceUID
    assert valid(reply, tmp_path)


def test_what_is_no_dicom_has_no_uids_and_needs_those_of_the_client(client, tmp_path):
    reply = client.post("/upload_image", files={"image_file": ("a.png", live.png())})
    image = UploadedImage.model_validate(reply.json())
    assert image.dicom_report is False
    path = f"/images/{image.image_id}/dicom_report"
    message = problem(client.post(path, json={"questions": [QUESTION]}), 422, "invalid")
    assert "send them in the field source" in message
    reply = client.post(path, json={"questions": [QUESTION], "source": GIVEN})
    report = report_in(reply)
    assert (report.StudyInstanceUID, report.PatientID, str(report.PatientName), report.PatientSex) == (
        "2.25.1", "PID-7", "Doe^Jane", "F")  # fmt: skip
    assert findings(report)[0][2] == [("2.25.3", None)]
    assert valid(reply, tmp_path)


@pytest.mark.parametrize("field", [{"study_uid": "Doe"}, {"instances": []}, {"patient_birth_date": "1950"}])
def test_a_source_that_makes_no_sense_is_422(client, field):
    image = upload(client, dicom_slice(0))
    body = {"questions": [QUESTION], "source": GIVEN | field}
    message = problem(client.post(f"/images/{image.image_id}/dicom_report", json=body), 422, "invalid")
    assert "Doe" not in message


def test_by_default_nothing_of_a_header_is_stored_and_the_client_gives_the_uids(tmp_path):
    with serving(store=str(tmp_path)) as url, live.client_of(base_url=url) as client:
        item = series(client)
        assert item.dicom_report is False
        path = f"/images/{item.image_id}/dicom_report"
        assert "MEDICAL_VQA_DICOM_REPORTS=1" in problem(
            client.post(path, json={"questions": [QUESTION]}), 422, "invalid"
        )
        assert report_in(client.post(path, json={"questions": [QUESTION], "source": GIVEN})).PatientID == "PID-7"
        stored = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert stored
        for word in (b"Zyxw", b"998877", b"1.2.826.0.1.777", b"PID-7", b"Doe"):
            assert not [path for path in stored if word in path.read_bytes()]


def test_what_is_stored_for_reports_is_gone_with_the_image(tmp_path):
    with serving(store=str(tmp_path), dicom_reports=True) as url, live.client_of(base_url=url) as client:
        item = series(client)
        assert [path for path in tmp_path.rglob("*") if path.is_file() and b"PID-998877" in path.read_bytes()]
        assert client.delete(f"/images/{item.image_id}").status_code == 204
        problem(client.post(f"/images/{item.image_id}/dicom_report", json={"questions": [QUESTION]}), 404,
                "unknown_image")  # fmt: skip
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"PID-998877" in path.read_bytes()]


def test_a_report_needs_the_role_and_the_tenant_and_is_in_the_audit_log(tmp_path):
    roles = {"a": ["ask", "upload"], "b": ["ask", "upload"], "c": ["upload"]}
    keys = [
        {"name": name, "sha256": hash_key(name), "roles": role, "tenant": "a" if name == "c" else name}
        for name, role in roles.items()
    ]
    (tmp_path / "keys.yaml").write_text(json.dumps(keys))
    with serving(keys_file=tmp_path / "keys.yaml", dicom_reports=True, audit_log=tmp_path / "audit") as url:
        a, b, c = (live.client_of(base_url=url, headers={"Authorization": f"Bearer {name}"}) for name in "abc")
        with a, b, c:
            path, body = f"/images/{series(a).image_id}/dicom_report", {"questions": [QUESTION]}
            problem(b.post(path, json=body), 404, "unknown_image")
            problem(b.post(path, json=body | {"source": GIVEN}), 404, "unknown_image")
            problem(c.post(path, json=body), 403, "forbidden")
            report_in(a.post(path, json=body))
    lines = [line for log in (tmp_path / "audit").glob("*.jsonl") for line in log.read_text().split("\n")[:-1]]
    assert [json.loads(line)["event"] for line in lines] == ["upload", "answer", "report"]
    assert not [line for line in lines if "Zyxw" in line or SERIES in line]

"""Images of a DICOMweb server: retrieved, asked about, and reports stored next to them; against a real Orthanc."""

from __future__ import annotations

import http.server
import io
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

sys.path.insert(0, str(Path(__file__).parent / "data"))
sys.path.insert(0, str(Path(__file__).parent / "serving"))
import live
from dicom_files import made
from echo_model import make_engine
from ports import free_port

from medical_vqa.data.imaging.decode import LOCAL_LIMITS
from medical_vqa.data.imaging.decoded_frame import DecodeLimits
from medical_vqa.data.imaging.dicom_export.report import ReportedAnswer, structured_report
from medical_vqa.data.imaging.dicom_export.source import read_source, source
from medical_vqa.data.imaging.dicomweb import TOKENS_VARIABLE, DicomwebAddress, retrieve, store, tokens_by_host
from medical_vqa.errors import ConfigError, DicomwebError, ImageError, TooLargeError

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1", "localhost"])]
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
STUDY, SERIES = "2.25.111", "2.25.222"
PATIENT = {"PatientID": "PID-1", "PatientName": "Doe^Jane", "PatientBirthDate": "19500101", "PatientSex": "F"}
needs_orthanc = pytest.mark.skipif(
    shutil.which("Orthanc") is None or not PLUGIN.exists(), reason="needs Debian's orthanc and orthanc-dicomweb"
)
needs_dciodvfy = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs Debian's dicom3tools")


def ct_slice(z: int) -> bytes:
    values = np.random.default_rng(z).integers(-200, 200, (64, 64)).astype(np.int16)
    data = made(
        values,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2",
        SOPInstanceUID=f"{SERIES}.{z}",
        StudyInstanceUID=STUDY,
        SeriesInstanceUID=SERIES,
        ImagePositionPatient=[0, 0, 3 * (9 - z)],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        PixelSpacing=[1, 1],
        InstanceNumber=z,
        RescaleSlope="1",
        RescaleIntercept="0",
        StudyDate="20260101",
        StudyTime="120000",
        AccessionNumber="",
        StudyID="",
        ReferringPhysicianName="",
        **PATIENT,
    )
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


SLICES = [ct_slice(z) for z in range(10)]


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A DICOMweb address of an Orthanc that holds one CT series; its host and path alone."""
    folder = tmp_path_factory.mktemp("orthanc")
    port = free_port()
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        until = time.monotonic() + 5 * live.PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.05)
        address = f"dicomweb://127.0.0.1:{port}/dicom-web"
        store(DicomwebAddress.parse(f"{address}/studies/{STUDY}"), [pydicom.dcmread(io.BytesIO(one)) for one in SLICES])
        yield address
    finally:
        process.terminate()
        process.wait(live.PATIENCE)


def errors_of(path: Path) -> list[str]:
    """What dciodvfy objects to."""
    run = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    return [line for line in (run.stdout + run.stderr).splitlines() if line.startswith("Error")]


def texts_in(report: Any) -> dict[str, list[str]]:
    """Meaning of a concept -> texts and numbers under it, of a whole report."""
    texts: dict[str, list[str]] = {}

    def walk(item: Any) -> None:
        for child in item.get("ContentSequence", []):
            name = child.ConceptNameCodeSequence[0].CodeMeaning
            if "TextValue" in child:
                texts.setdefault(name, []).append(str(child.TextValue))
            if child.ValueType == "NUM":
                texts.setdefault(name, []).append(str(child.MeasuredValueSequence[0].NumericValue))
            if child.ValueType == "IMAGE":
                texts.setdefault("image", []).append(str(child.ReferencedSOPSequence[0].ReferencedSOPInstanceUID))
            walk(child)

    walk(report)
    return texts


@needs_orthanc
@needs_dciodvfy
@pytest.mark.slow
def test_a_series_is_asked_about_and_the_report_is_stored_read_back_and_valid(pacs, call, tmp_path):
    address = f"{pacs}/studies/{STUDY}/series/{SERIES}"
    question = "What modality is used to take this image?"
    code, out, err = call(
        "ask", address, question, "--model", "shipped", "--slices", "3", "--json",
        "--dicom-report", tmp_path / "report.dcm", "--report-uids", "2.25.900", "2.25.901", "--store-report",
    )  # fmt: skip
    assert code == 0, err
    answer = json.loads(out)
    assert answer["series"] == answer["seen"]["file"] == address
    assert answer["slice_numbers"] == [1, 5, 8]
    assert errors_of(tmp_path / "report.dcm") == []
    (data,) = retrieve(
        DicomwebAddress.parse(f"{pacs}/studies/{STUDY}/series/2.25.900/instances/2.25.901"), limits=LOCAL_LIMITS
    )
    report = pydicom.dcmread(io.BytesIO(data))
    assert (report.Modality, report.PatientID, report.VerificationFlag, report.PreliminaryFlag) == (
        "SR", "PID-1", "UNVERIFIED", "PRELIMINARY")  # fmt: skip
    texts = texts_in(report)
    assert texts["Question"] == [question]
    reported = texts.get("Finding", []) + texts.get("Reason for abstaining", [])
    assert reported == [answer["reason"] if answer["abstained"] else answer["answer"]]
    assert texts["image"] == [f"{SERIES}.{z}" for z in (8, 4, 1)]  # slice 0 is the lowest, which is the last file
    # the report in the study is no picture, and is not asked about
    assert len(retrieve(DicomwebAddress.parse(f"{pacs}/studies/{STUDY}"), limits=LOCAL_LIMITS)) == len(SLICES)


@needs_orthanc
@needs_dciodvfy
@pytest.mark.slow
def test_one_instance_is_asked_about_with_its_attention_map_as_a_capture(pacs, call, tmp_path):
    address = f"{pacs}/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.4"
    code, out, err = call(
        "ask", address, "Is this a CT?", "--model", "shipped", "--json", "--dicom-capture", tmp_path / "capture.dcm",
        "--capture-uids", "2.25.910", "2.25.911", "--dicom-report", tmp_path / "report.dcm",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["image"] == address
    assert errors_of(tmp_path / "capture.dcm") == errors_of(tmp_path / "report.dcm") == []
    capture = pydicom.dcmread(tmp_path / "capture.dcm")
    assert (capture.SOPInstanceUID, capture.StudyInstanceUID, capture.pixel_array.shape) == (
        "2.25.911",
        STUDY,
        (64, 64, 3),
    )
    assert list(capture.PatientOrientation) == ["L", "P"]
    assert texts_in(pydicom.dcmread(tmp_path / "report.dcm"))["image"] == [f"{SERIES}.4"]
    assert (tmp_path / "report.dcm").stat().st_mode & 0o077 == 0


@needs_orthanc
def test_the_server_retrieves_from_the_hosts_that_it_may(pacs):
    host = DicomwebAddress.parse(f"{pacs}/studies/1").host
    settings = live.settings(dicomweb_hosts=(host,))
    with live.serving(make_engine(), settings) as url, live.client_of(base_url=url) as client:
        reply = client.post("/images/dicomweb", json={"address": f"{pacs}/studies/{STUDY}"})
        assert reply.status_code == 201, reply.text
        (item,) = reply.json()["series"]
        assert item["planes"]["axial"] == 10
        assert client.get(f"/images/{item['image_id']}/view?frame=2").status_code == 200
        reply = client.post("/images/dicomweb", json={"address": f"{pacs}/studies/1.2.3"})
        assert (reply.status_code, reply.json()["detail"]["code"]) == (422, "source_failed")
        assert "1.2.3" not in reply.text
        other = client.post("/images/dicomweb", json={"address": "dicomweb://169.254.169.254/studies/1.2.3"})
        assert (other.status_code, other.json()["detail"]["code"]) == (403, "forbidden")
        wrong = client.post("/images/dicomweb", json={"address": "https://127.0.0.1/"})
        assert (wrong.status_code, wrong.json()["detail"]["code"]) == (422, "invalid")


@needs_orthanc
@needs_dciodvfy
def test_a_study_is_opened_by_its_uid_and_the_servers_report_is_stored_read_back_and_valid(pacs, tmp_path):
    settings = live.settings(dicomweb_service=pacs, dicom_reports=True)
    with live.serving(make_engine(), settings) as url, live.client_of(base_url=url) as client:
        reply = client.post("/images/dicomweb", json={"study": STUDY, "series": SERIES})
        assert reply.status_code == 201, reply.text
        (item,) = reply.json()["series"]
        assert (item["planes"]["axial"], item["dicom_report"]) == (10, True)
        assert client.post("/images/dicomweb", json={"study": STUDY}).status_code == 201
        body = {"questions": ["Is this a CT?"], "frame": 2, "series_uid": "2.25.920", "instance_uid": "2.25.921"}
        reply = client.post(f"/images/{item['image_id']}/dicom_report", json=body)
        assert reply.status_code == 200, reply.text
        for wrong in ({}, {"series": SERIES}, {"study": STUDY, "address": f"{pacs}/studies/{STUDY}"}):
            refused = client.post("/images/dicomweb", json=wrong)
            assert (refused.status_code, refused.json()["detail"]["code"]) == (422, "invalid")
        other = client.post("/images/dicomweb", json={"address": f"{pacs}/studies/{STUDY}"})
        assert (other.status_code, other.json()["detail"]["code"]) == (403, "forbidden")
    (tmp_path / "report.dcm").write_bytes(reply.content)
    assert errors_of(tmp_path / "report.dcm") == []
    store(DicomwebAddress.parse(f"{pacs}/studies/{STUDY}"), [pydicom.dcmread(tmp_path / "report.dcm")])
    address = DicomwebAddress.parse(f"{pacs}/studies/{STUDY}/series/2.25.920/instances/2.25.921")
    (data,) = retrieve(address, limits=LOCAL_LIMITS)
    report = pydicom.dcmread(io.BytesIO(data))
    assert (report.Modality, report.PatientID, report.StudyInstanceUID) == ("SR", "PID-1", STUDY)
    texts = texts_in(report)
    assert (texts["Question"], texts["image"]) == (["Is this a CT?"], [f"{SERIES}.7"])


def test_a_study_is_opened_only_where_the_settings_name_its_service():
    with live.serving(make_engine()) as url, live.client_of(base_url=url) as client:
        reply = client.post("/images/dicomweb", json={"study": "1.2.3"})
    assert (reply.status_code, reply.json()["detail"]["code"]) == (422, "invalid")
    assert "MEDICAL_VQA_DICOMWEB_SERVICE" in reply.json()["detail"]["message"]
    for service in ("https://pacs.example.org", "dicomweb://user@pacs.example.org/x", "dicomweb://a/b?c"):
        with pytest.raises(ConfigError, match="expected dicomweb://HOST/PATH"):
            live.settings(dicomweb_service=service)


@needs_orthanc
def test_limits_hold_for_what_is_retrieved(pacs):
    limits = DecodeLimits(file_bytes=20_000, settings={"file_bytes": "BYTES"})
    with pytest.raises(TooLargeError, match="name one series or raise BYTES"):
        retrieve(DicomwebAddress.parse(f"{pacs}/studies/{STUDY}"), limits=limits)


@pytest.mark.parametrize("text", [
    "dicomweb://pacs.example.org/dicom-web",
    "dicomweb://user:secret@pacs.example.org/studies/1.2.3",
    "dicomweb://pacs.example.org/../studies/1.2.3?x=1",
    "dicomweb:///studies/1.2.3",
    "dicomweb://pacs.example.org/studies/Doe",
])  # fmt: skip
def test_an_address_that_makes_no_sense_is_one_sentence_without_it(text):
    with pytest.raises(ConfigError, match="expected dicomweb://HOST/PATH/studies/UID") as error:
        DicomwebAddress.parse(text)
    assert "secret" not in str(error.value)


def test_only_this_machine_is_reached_without_encryption():
    urls = {
        host: DicomwebAddress.parse(f"dicomweb://{host}/dicom-web/studies/1.2").url
        for host in ("127.0.0.1:8042", "localhost", "pacs.example.org", "10.0.0.7:8042", "127.0.0.1.example.org")
    }
    assert {host: url.split("://")[0] for host, url in urls.items()} == {
        "127.0.0.1:8042": "http",
        "localhost": "http",
        "pacs.example.org": "https",
        "10.0.0.7:8042": "https",
        "127.0.0.1.example.org": "https",
    }


class Recorder(http.server.BaseHTTPRequestHandler):
    """Answers every request with a redirect to this machine, and records its headers."""

    headers_received: list[str | None]

    def do_GET(self) -> None:
        self.headers_received.append(self.headers["Authorization"])
        self.send_response(302)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def test_a_token_is_sent_to_its_host_alone_and_no_redirect_is_followed(monkeypatch):
    received: list[str | None] = []
    handler = type("Handler", (Recorder,), {"headers_received": received})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            host = f"127.0.0.1:{server.server_port}"
            for variable in (f"{host}=s3cret", "pacs.example.org=s3cret"):
                monkeypatch.setenv(TOKENS_VARIABLE, variable)
                with pytest.raises(DicomwebError, match=f"^{host}: ") as error:
                    retrieve(DicomwebAddress.parse(f"dicomweb://{host}/studies/1.2/series/1.3"), limits=LOCAL_LIMITS)
                assert "s3cret" not in str(error.value)
        finally:
            server.shutdown()
            thread.join()
    assert received == ["Bearer s3cret", None]


def test_tokens_that_make_no_sense_are_not_repeated():
    assert tokens_by_host({TOKENS_VARIABLE: "A.example=x=y, b=z"}) == {"a.example": "x=y", "b": "z"}
    with pytest.raises(ConfigError, match="expected HOST=TOKEN") as error:
        tokens_by_host({TOKENS_VARIABLE: "s3cret"})
    assert "s3cret" not in str(error.value)


@needs_dciodvfy
def test_a_report_of_given_uids_is_valid_and_says_what_was_withheld(tmp_path):
    image = source(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2",
        SOPInstanceUID="2.25.3",
        SeriesInstanceUID="2.25.2",
        StudyInstanceUID="2.25.1",
    )
    answers = [
        ReportedAnswer("Is the liver healthy?", "Yes", 0.91, images=((0, None),)),
        ReportedAnswer("肺部有病变吗？", None, None, "Too unsure."),
    ]
    report = structured_report(
        answers, [image], model="compact", device_uid="2.25.9", series_uid="2.25.4", instance_uid="2.25.5"
    )
    report.save_as(tmp_path / "report.dcm", enforce_file_format=True)
    assert errors_of(tmp_path / "report.dcm") == []
    read = pydicom.dcmread(tmp_path / "report.dcm")
    assert (read.SeriesInstanceUID, read.SOPInstanceUID, read.StudyInstanceUID) == ("2.25.4", "2.25.5", "2.25.1")
    texts = texts_in(read)
    assert texts["Question"] == ["Is the liver healthy?", "肺部有病变吗？"]
    assert (texts["Finding"], texts["Reason for abstaining"]) == (["Yes"], ["Too unsure."])
    assert texts["Confidence of the model"] == ["0.91"]


def test_images_of_two_studies_make_no_report():
    other = source(SOPClassUID="1.2", SOPInstanceUID="2.25.3", SeriesInstanceUID="2.25.2", StudyInstanceUID="2.25.7")
    with pytest.raises(ImageError, match="expected images of one study"):
        structured_report([], [read_source(SLICES[0]), other], model="m", device_uid="2.25.9", series_uid="2.25.4",
                          instance_uid="2.25.5")  # fmt: skip


def test_options_of_reports_that_make_no_sense_are_refused(call, tmp_path):
    (tmp_path / "a.dcm").write_bytes(SLICES[0])
    code, _, err = call("ask", tmp_path / "a.dcm", "Is it?", "--dicom-report", tmp_path / "r.dcm", "--store-report")
    assert code == 2
    assert "--store-report stores at the service of a dicomweb:// address" in err
    code, _, err = call("ask", tmp_path / "a.dcm", "Is it?", "--model", "shipped", "--dicom-report", tmp_path / "r.dcm",
                        "--report-uids", "x", "y")  # fmt: skip
    assert code == 2
    assert "UID: expected numbers with points" in err
    assert not (tmp_path / "r.dcm").exists()

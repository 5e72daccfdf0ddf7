"""Series over HTTP: uploaded as files or archives, shown in any window and plane, asked about by several slices."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import multiprocessing
import socket
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import live
import nibabel
import numpy as np
import pytest
from echo_model import Echo, make_engine
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medical_vqa.data.imaging import stack
from medical_vqa.data.imaging.decode import decode_image
from medical_vqa.data.imaging.decoded_frame import DecodeLimits
from medical_vqa.data.imaging.dicom import slices
from medical_vqa.data.imaging.series.report import LeftOut
from medical_vqa.models.base import Localization
from medical_vqa.serving.decoding.pool import DecoderLimits, DecoderPool
from medical_vqa.serving.errors import ApiError, deadline_exceeded
from medical_vqa.serving.middleware.access import hash_key
from medical_vqa.serving.schema.answers import Answer
from medical_vqa.serving.schema.errors import Problem
from medical_vqa.serving.schema.images import ImageItem, NamedWindow, SeriesUpload, ValueRange
from medical_vqa.serving.series import decode as series_decode
from medical_vqa.serving.series.decode import SeriesJob

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from dicom_files import lut, made, shipped

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"


def dicom_slice(z: int, *, level: int = 0, series: str = "1.2.3", rows: int = 12, **elements: Any) -> bytes:
    """A slice of 16 columns, whose value is `level` + 100 z, and 1000 more in the first column."""
    values = np.full((rows, 16), level + 100 * z, np.int16)
    values[:, 0] += 1000
    header = {
        "ImagePositionPatient": [0, 0, 3 * z],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.5, 0.5],
        "SeriesInstanceUID": series,
        "InstanceNumber": 99 - z,
        "RescaleSlope": "1",
        "RescaleIntercept": "-1000",
        "SOPClassUID": CT,
        "PatientName": "Doe^Jane",
        "BodyPartExamined": "CHEST",
    }
    return made(values, **(header | elements))


def group(**elements: Any) -> Sequence:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return Sequence([item])


def enhanced(values: np.ndarray | None = None) -> bytes:
    """An enhanced CT: frames from head to feet, their positions in functional groups, as PS3.3, A.38 lays them out."""
    if values is None:
        values = np.stack([np.full((12, 16), 100 * z, np.int16) for z in (2, 1, 0)])

    shared, frames = Dataset(), []
    shared.PixelMeasuresSequence = group(PixelSpacing=[0.5, 0.5])
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    for z in reversed(range(len(values))):
        frame = Dataset()
        frame.PlanePositionSequence = group(ImagePositionPatient=[0, 0, 5 * z])
        frames.append(frame)
    return made(
        values,
        SOPClassUID=ENHANCED_CT,
        SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence(frames),
    )


def zipped(files: list[bytes], folders: tuple[str, ...] = ()) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder in folders:
            archive.writestr(folder, b"")
        for number, data in enumerate(files):
            archive.writestr(f"Doe Jane/{number}", data)
    return out.getvalue()


def series_files(*files: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"Doe_{number}.dcm", data)) for number, data in enumerate(files)]


def upload(client: Any, *files: bytes, **options: Any) -> SeriesUpload:
    reply = client.post("/series", files=series_files(*files), **options)
    assert reply.status_code == 201, reply.text
    assert "Doe" not in reply.text
    return SeriesUpload.model_validate(reply.json())


def problem(reply: Any, status: int, code: str) -> str:
    assert reply.status_code == status, reply.text
    detail = Problem.model_validate(reply.json()).detail
    assert detail.code == code
    return detail.message


def pixels(reply: Any) -> np.ndarray:
    assert reply.status_code == 200, reply.text
    return np.asarray(Image.open(io.BytesIO(reply.content)))


@pytest.fixture(scope="module")
def client():
    with live.serving(make_engine()) as url, live.client_of(base_url=url) as client:
        yield client


@pytest.fixture(scope="module")
def series(client):
    (item,) = upload(client, *[dicom_slice(z) for z in (3, 0, 7, 1, 2, 6, 5, 4)]).series
    return item


def test_a_series_is_one_image_with_its_planes_windows_and_values(series, client):
    assert (series.series, series.modality, series.body_part, series.plane, series.frame) == (True, "CT", "CHEST",
                                                                                            "axial", 4)  # fmt: skip
    assert series.planes == {"axial": 8, "coronal": 12, "sagittal": 16}
    assert series.spacing_mm == (0.5, 0.5, 3.0)
    assert series.values == ValueRange(low=-1000, high=700, unit="HU")
    assert series.window.name == "percentiles"
    assert {"lung", "bone"} <= {one.name for one in series.windows}
    assert series.orientation["coronal"] == ["R", "L", "S", "I"]
    assert series.expires_at is not None
    assert ImageItem.model_validate(client.get(f"/images/{series.image_id}").json()) == series


@pytest.mark.parametrize("files", [[zipped([dicom_slice(z) for z in range(8)])], [dicom_slice(z) for z in range(8)]])
def test_an_archive_and_its_files_are_the_same_series(files, client, series):
    (item,) = upload(client, *files).series
    assert item.image_id[:24] == series.image_id[:24]  # the head is a digest of the values
    assert item.image_id != series.image_id


def test_frame_window_and_plane_change_without_another_upload(series, client):
    def view(**parameters: Any) -> np.ndarray:
        return pixels(client.get(f"/images/{series.image_id}/view", params=parameters))

    assert view().shape == (12, 16)
    assert [int(view(frame=z, window="-650,700")[5, 5]) for z in (0, 7)] == [0, 255]
    assert int(view(frame=0, window="-650,700", invert=True)[5, 5]) == 255
    coronal = view(plane="coronal", window="-650,700")
    assert coronal.shape == (48, 16)  # 8 slices of 3 mm in pixels of 0.5 mm
    assert int(coronal[0, 5]) > int(coronal[-1, 5])  # the head is at the top
    assert view(plane="sagittal", frame=0, window="bone").shape == (48, 12)


def test_a_view_is_sent_once_while_it_does_not_change(series, client):
    first = client.get(f"/images/{series.image_id}/view", params={"frame": 1})
    assert first.headers["Cache-Control"] == "private, max-age=300"
    again = client.get(
        f"/images/{series.image_id}/view", params={"frame": 1}, headers={"If-None-Match": first.headers["ETag"]}
    )
    assert (again.status_code, again.content) == (304, b"")
    other = client.get(f"/images/{series.image_id}/view", params={"frame": 2})
    assert other.headers["ETag"] != first.headers["ETag"]
    assert client.get("/model").headers["Cache-Control"] == "no-store"


def test_values_are_in_the_scanners_units(series, client):
    reply = client.get(f"/images/{series.image_id}/values", params={"frame": 2})
    headers = [reply.headers[f"X-{name}"] for name in ("Rows", "Columns", "Type", "Spacing", "Slope", "Intercept")]
    assert headers == ["12", "16", "int16", "0.5,0.5", "1", "0"]
    values = np.frombuffer(reply.content, "<i2").reshape(12, 16)
    assert (values[:, 0] == 200).all()
    assert (values[:, 1:] == -800).all()
    sagittal = client.get(f"/images/{series.image_id}/values", params={"plane": "sagittal", "frame": 3})
    assert np.frombuffer(sagittal.content, "<i2").reshape(8, 12)[:, 0].tolist() == [-300 - 100 * z for z in range(8)]
    assert sagittal.headers["X-Spacing"] == "3,0.5"


def test_links_and_paths_in_an_archive_lead_nowhere(client):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        link = zipfile.ZipInfo("scan.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, str(Path(__file__).resolve()))
        archive.writestr("../../../../tmp/escaped.dcm", dicom_slice(0))
        archive.writestr("/etc/slice.dcm", dicom_slice(1))
    result = upload(client, out.getvalue())
    assert [item.planes["axial"] for item in result.series] == [2]
    assert [one.file for one in result.left_out] == [0]


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_values_of_few_bits_are_shown_and_asked_about_as_bright_as_the_picture(client, bits):
    values = np.tile(np.arange(16) % 2**bits, (8, 1)).astype(np.uint8)
    elements = {"BitsAllocated": 8, "BitsStored": bits, "HighBit": bits - 1}
    if bits == 1:
        elements |= {"BitsAllocated": 1, "PixelData": np.packbits(values.ravel(), bitorder="little").tobytes()}
    data = made(values, **elements)
    image_id = client.post("/upload_image", files={"image_file": data}).json()["image_id"]
    picture = pixels(client.get(f"/images/{image_id}/picture"))
    window = client.get(f"/images/{image_id}").json()["window"]
    drawn = client.get(f"/images/{image_id}/view", params={"window": f"{window['center']},{window['width']}"})
    assert picture.max() == round(255 * int(values.max()) / (2**bits - 1))
    assert np.abs(pixels(drawn).astype(int) - picture).max() <= 1


@pytest.mark.parametrize("elements", [
    {"WindowCenter": "128", "WindowWidth": "100", "VOILUTFunction": "SIGMOID"},
    {"VOILUTSequence": Sequence([lut(np.arange(256) ** 2 // 256, 0, 8)])},
])  # fmt: skip
def test_every_frame_is_shown_as_the_header_says(client, elements):
    """By a sigmoid or a table, which are no window of a center and a width."""
    values = np.arange(256, dtype=np.uint16).reshape(16, 16)
    data = made(np.stack([values, values[::-1], values]), **elements)
    image_id = client.post("/upload_image", files={"image_file": data}).json()["image_id"]
    picture = decode_image(data, frame=1).pixels[:, :, 0]
    (series,) = upload(client, data).series
    frames = [pixels(client.get(f"/images/{name}/view?frame=0")) for name in (image_id, series.image_id)]
    assert all(np.abs(frame.astype(int) - picture[::-1]).max() <= 1 for frame in frames)
    assert (series.window.function == "sigmoid") is ("WindowCenter" in elements)
    if series.curve is not None:
        first, brightness = np.array(series.curve).T
        curve = brightness[np.searchsorted(first, values, side="right") - 1]
        assert np.abs(curve - picture[::-1].astype(int)).max() <= 1
    if "WindowCenter" in elements:
        named = client.get(f"/images/{image_id}/view", params={"frame": 0, "window": "header"})
        assert np.array_equal(pixels(named), frames[0])


def test_nothing_is_in_millimeters_where_the_file_does_not_say_how_large_a_pixel_is(client):
    """A page draws a scale and measures from what it receives: a pixel of one millimeter would be an invention."""
    out = io.BytesIO()
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16).save(out, "PNG")
    for data in (out.getvalue(), dicom_slice(0, PixelSpacing=None)):
        image_id = client.post("/upload_image", files={"image_file": data}).json()["image_id"]
        reply = client.get(f"/images/{image_id}/values")
        assert reply.status_code == 200
        assert "X-Spacing" not in reply.headers
    series = upload(client, *[dicom_slice(z, PixelSpacing=None) for z in range(4)]).series[0]
    assert (series.spacing_mm, series.notes) == (None, ["size_unknown"])
    for plane in series.planes:  # of which one axis has a known distance
        assert "X-Spacing" not in client.get(f"/images/{series.image_id}/values", params={"plane": plane}).headers
    answer = client.post("/ask_question", json={"image_id": series.image_id, "question": "Is it a CT?", "frame": 1})
    assert answer.status_code == 200


def test_values_are_in_proportion_where_the_file_says_the_shape_of_a_pixel_and_not_its_size(client):
    image_id = client.post(
        "/upload_image", files={"image_file": dicom_slice(3, PixelSpacing=None, PixelAspectRatio=[2, 1])}
    ).json()["image_id"]
    assert pixels(client.get(f"/images/{image_id}/picture")).shape == (24, 16)
    values = client.get(f"/images/{image_id}/values")
    assert (values.headers["X-Rows"], values.headers["X-Columns"]) == ("24", "16")
    assert "X-Spacing" not in values.headers
    assert np.frombuffer(values.content, "<i2").reshape(24, 16)[:, [0, 15]].tolist() == 24 * [[300, -700]]


def test_the_distance_of_slices_is_not_stated_where_the_files_do_not(client):
    absent = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    (item,) = upload(client, *[dicom_slice(z, **absent) for z in range(3)]).series
    assert item.spacing_mm == (0.5, 0.5, None)


@pytest.mark.parametrize(("parameters", "message"), [
    ({"frame": 8}, "the axial plane has no slice 8; the slices are 0 to 7"),
    ({"window": "top"}, "window: expected CENTER,WIDTH or a name that this image has"),
    ({"window": "40,0"}, "expected a window of a finite center and a width above 0"),
    ({"plane": "top"}, "plane"),
    ({"frame": -1}, "frame"),
])  # fmt: skip
def test_a_view_that_makes_no_sense_is_422(series, client, parameters, message):
    assert message in problem(client.get(f"/images/{series.image_id}/view", params=parameters), 422, "invalid")


def test_several_series_and_pictures_in_one_request_are_apart_and_what_is_neither_is_named(client):
    report = made(np.zeros((4, 4), np.uint16), PixelData=None, Rows=None, Columns=None)
    result = upload(
        client,
        *[dicom_slice(z, series="1.2.5") for z in range(3)],
        *[dicom_slice(z, series="1.2.4", level=7) for z in range(4)],
        dicom_slice(2, series="1.2.4", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        dicom_slice(1, series="1.2.4"),
        report,
        b"a text",
        live.png(),
    )
    assert [(item.series, item.planes["axial"]) for item in result.series] == [(True, 4), (True, 3), (False, 1)]
    assert result.series[0].notes == ["localizers_left_out", "duplicates_left_out"]
    assert [(one.file, one.reason.split(",")[0]) for one in result.left_out] == [
        (7, "the file is a localizer of the series"),
        (8, "the slice repeats the position of another one"),
        (9, "the file is DICOM of the class Secondary Capture Image without its pixels"),
        (10, "the upload: expected a JPEG"),
    ]


def test_a_damaged_slice_and_objects_without_a_picture_are_left_out_of_a_series(client):
    masks = made(np.zeros((30, 12, 16), np.uint8), SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4", SeriesInstanceUID="1.9")
    slices = [dicom_slice(z) for z in range(6)]
    slices[2] = slices[2][:-20]
    result = upload(client, *slices, masks, dicom_slice(9)[:150] + b"\xff" * 500)
    (item,) = result.series
    assert item.planes["axial"] == 5
    assert item.notes == ["damaged_left_out", "gaps"]
    assert [(one.file, one.reason) for one in result.left_out] == [
        (2, "the slice is damaged; export it again"),
        (6, "the file is DICOM of the class Segmentation, which has no picture of its own"),
        (7, "the file is DICOM, but its header is damaged; export it again"),
    ]


def test_a_nifti_file_of_colors_or_of_one_slice_is_a_picture_like_any_upload(client):
    colors = np.zeros((16, 20, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    flat = np.arange(320, dtype=np.int16).reshape(16, 20)
    files = [nibabel.Nifti1Image(values, np.eye(4)).to_bytes() for values in (colors, flat)]
    result = upload(client, *files)
    assert ([(item.series, item.planes) for item in result.series], result.left_out) == (
        [(False, {"axial": 1})] * 2,
        [],
    )


def test_a_volume_with_fractions_keeps_them(client):
    values = np.linspace(0, 1, 9 * 8 * 4, dtype=np.float32).reshape(9, 8, 4)
    (item,) = upload(client, nibabel.Nifti1Image(values, np.diag([-1, -1, 2, 1])).to_bytes()).series
    assert item.planes == {"axial": 4, "coronal": 8, "sagittal": 9}
    assert (item.values.low, item.values.high) == pytest.approx((0, 1))
    reply = client.get(f"/images/{item.image_id}/values", params={"frame": 1})
    stored = np.frombuffer(reply.content, "<u2").reshape(8, 9)
    scaled = stored * float(reply.headers["X-Slope"]) + float(reply.headers["X-Intercept"])
    assert scaled == pytest.approx(values[:, :, 1].T, abs=1e-4)


def test_an_enhanced_file_and_slices_without_positions_are_series_too(client):
    (item,) = upload(client, enhanced()).series
    assert (item.planes, item.spacing_mm) == ({"axial": 3, "coronal": 12, "sagittal": 16}, (0.5, 0.5, 5.0))
    values = client.get(f"/images/{item.image_id}/values", params={"frame": 2})
    assert np.frombuffer(values.content, "<i2")[1] == 200  # the frames are stored from head to feet
    absent = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    (item,) = upload(client, *[dicom_slice(z, **absent) for z in range(3)]).series
    assert (item.planes, item.orientation, item.notes) == ({"axial": 3}, {}, ["order_by_number"])
    message = problem(client.get(f"/images/{item.image_id}/view", params={"plane": "coronal"}), 422, "invalid")
    assert "does not state where its slices lie" in message


def test_a_single_upload_keeps_its_values_where_it_has_more_than_8_bits(client):
    data = dicom_slice(3, WindowCenter="0", WindowWidth="2000", PhotometricInterpretation="MONOCHROME1")
    uploaded = client.post("/upload_image", files={"image_file": ("a", data)}).json()
    item = ImageItem.model_validate(client.get(f"/images/{uploaded['image_id']}").json())
    assert (item.series, item.planes, item.inverted, item.orientation) == (False, {"axial": 1}, True, {})
    assert item.window == NamedWindow(name="header", center=0, width=2000)
    default = client.get(f"/images/{item.image_id}/view")
    assert default.content == client.get(f"/images/{item.image_id}/picture").content
    assert int(pixels(client.get(f"/images/{item.image_id}/view", params={"window": "-1500,100"}))[5, 5]) == 0
    values = client.get(f"/images/{item.image_id}/values")
    assert np.frombuffer(values.content, "<i2")[1] == -700
    out = io.BytesIO()
    Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 200).save(out, "PNG")
    wide = client.post("/upload_image", files={"image_file": ("a", out.getvalue())}).json()
    values = client.get(f"/images/{wide['image_id']}/values")
    assert values.headers["X-Type"] == "uint16"
    assert np.frombuffer(values.content, "<u2")[255] == 51000
    body = {"image_id": wide["image_id"], "question": "Is it?", "window": "60000,1000"}
    answer = client.post("/ask_question", json=body).json()
    assert (answer["answer"], answer["frame"], answer["slices"]) == ("0 Is it?", 0, [])


def test_of_more_frames_than_decode_in_the_time_of_one_the_picture_alone_is_stored(client, monkeypatch):
    monkeypatch.setattr(stack, "_MOST_FRAMES", 2)  # the server decodes in this process
    image_id = client.post("/upload_image", files={"image_file": enhanced()}).json()["image_id"]
    assert client.get(f"/images/{image_id}").json()["values"] is None
    assert "upload it to /series" in problem(client.get(f"/images/{image_id}/values"), 404, "no_values")
    assert upload(client, enhanced()).series[0].planes["axial"] == 3


def test_a_picture_of_8_bits_has_one_view_and_no_values(client):
    uploaded = client.post("/upload_image", files={"image_file": ("a", live.png(90))}).json()
    path = f"/images/{uploaded['image_id']}"
    assert client.get(path).json()["values"] is None
    assert int(pixels(client.get(f"{path}/view"))[0, 0]) == 90
    assert int(pixels(client.get(f"{path}/view?invert=true"))[0, 0]) == 165
    assert "without values" in problem(client.get(f"{path}/values"), 404, "no_values")
    problem(client.get(f"{path}/view?frame=1"), 422, "invalid")
    problem(client.post("/ask_question", json={"image_id": uploaded["image_id"], "question": "Is it?", "frame": 3}),
            404, "no_values")  # fmt: skip


def test_a_question_about_a_series_is_asked_about_several_slices(series, client):
    body = {"image_id": series.image_id, "question": "Which level?", "window": "-650,700"}
    answer = Answer.model_validate(client.post("/ask_question", json=body).json())
    assert [one.frame for one in answer.slices] == [0, 2, 4, 5, 7]
    levels = [int(one.answer.split()[0]) for one in answer.slices]
    assert levels == sorted(levels)
    assert (answer.plane, answer.answer) in [(one.plane, one.answer) for one in answer.slices]
    assert answer.frame in [one.frame for one in answer.slices]
    assert answer.confidence == pytest.approx(0.8 / 5)  # no two slices agree
    several = client.post("/ask_questions", json={"image_id": series.image_id, "questions": ["A?", "B?"],
                                                  "plane": "coronal"}).json()  # fmt: skip
    assert [len(one["slices"]) for one in several["answers"]] == [5, 5]
    assert {one["plane"] for one in several["answers"][0]["slices"]} == {"coronal"}


def test_a_question_about_a_frame_is_asked_about_that_slice(series, client):
    body = {"image_id": series.image_id, "question": "Which level?", "window": "-650,700", "frame": 7}
    answer = client.post("/ask_question", json=body).json()
    assert (answer["frame"], answer["plane"], answer["slices"]) == (7, "axial", [])
    assert answer["answer"] == "255 Which level?"
    assert client.post("/ask_question", data={key: str(value) for key, value in body.items()}).json()["frame"] == 7


class Localizing(Echo):
    """Localizes the liver in bright slices."""

    def entity_in(self, text: str) -> str | None:
        return "liver" if "liver" in text else None

    def localizations(self, query: Any, prediction: Any) -> list[Localization]:
        mean = float(query.visual["mean"])
        return [Localization("Liver", "mask", np.full((1, 1), mean / 255))]


def test_a_frame_is_never_answered_by_that_of_another_file_with_one_frame_in_common(client):
    frames = np.full((3, 256, 256), 50, np.uint8)
    other = frames.copy()
    apart = sorted(set(range(256)) - set(np.linspace(0, 255, 128).astype(int)))  # not in its statistics
    other[0][:, apart] = 250
    answers = []
    for values in (frames, other):
        data = made(values, WindowCenter="128", WindowWidth="256")
        image_id = client.post("/upload_image", files={"image_file": data}).json()["image_id"]
        body = {"image_id": image_id, "question": "Is it?", "frame": 0}
        answers.append(client.post("/ask_question", json=body).json()["answer"])
    assert answers[0] != answers[1]


def test_slices_that_show_what_the_question_names_are_chosen():
    with live.serving(make_engine(Localizing())) as url, live.client_of(base_url=url) as client:
        (item,) = upload(client, *[dicom_slice(z) for z in range(8)]).series
        body = {"image_id": item.image_id, "question": "Is the liver healthy?", "window": "-650,700"}
        answer = client.post("/ask_question", json=body).json()
        assert [one["frame"] for one in answer["slices"]] == [4, 5, 6, 7]
        assert all(one["presence"] >= 0.5 for one in answer["slices"])


class Several(Echo):
    """Takes four pictures in one question."""

    max_pictures = 4
    slices_together = 4


def test_a_model_that_takes_several_pictures_receives_the_slices_in_one_question():
    model = Several()
    engine = make_engine(model)
    received: list[int] = []
    ask = engine.ask

    async def ask_and_count(*arguments: Any, others: Any = (), **options: Any) -> Any:
        received.append(1 + len(others))
        return await ask(*arguments, **options)

    engine.ask = ask_and_count  # type: ignore[method-assign]
    with live.serving(engine) as url, live.client_of(base_url=url) as client:
        (item,) = upload(client, *[dicom_slice(z) for z in range(8)]).series
        answer = client.post("/ask_question", json={"image_id": item.image_id, "question": "Is it?"}).json()
        assert received == [4]
        assert len({one["answer"] for one in answer["slices"]}) == 1
        assert len(answer["slices"]) == 4


def test_a_question_about_several_slices_that_takes_too_long_says_what_to_do():
    engine = make_engine()

    async def compare(*_: Any, **__: Any) -> Any:
        raise deadline_exceeded(2)

    engine.compare = compare  # type: ignore[method-assign]
    with live.serving(engine) as url, live.client_of(base_url=url) as client:
        (item,) = upload(client, *[dicom_slice(z) for z in range(3)]).series
        reply = client.post("/ask_question", json={"image_id": item.image_id, "question": "Is it?"})
        assert "ask again later, about one slice (frame), or raise MEDICAL_VQA_DEADLINE" in problem(
            reply, 429, "deadline"
        )
        assert reply.headers["Retry-After"] == "2"


def test_a_question_about_several_slices_counts_once_towards_the_rate():
    with live.serving(make_engine(), live.settings(rate_limit="3/hour")) as url, live.client_of(base_url=url) as client:
        (item,) = upload(client, *[dicom_slice(z) for z in range(9)]).series
        body = {"image_id": item.image_id, "question": "Is it?"}
        assert [client.post("/ask_question", json=body).status_code for _ in range(3)] == [200, 200, 429]


def test_a_deleted_series_is_gone_with_its_values(client):
    (item,) = upload(client, *[dicom_slice(z) for z in range(3)]).series
    assert client.delete(f"/images/{item.image_id}").status_code == 204
    for path in ("", "/view", "/values", "/picture"):
        problem(client.get(f"/images/{item.image_id}{path}"), 404, "unknown_image")


@pytest.mark.parametrize(("files", "status", "code", "message"), [
    ([b"a text"], 400, "not_an_image", "expected pictures or slices, but of 1 files none can be used"),
    ([b"PK\x03\x04 damaged"], 400, "not_an_image", "expected a whole zip archive"),
    ([shipped("dicomdirtests/DICOMDIR")], 400, "not_an_image", "the first: the file is a DICOMDIR, a list of files"),
    ([zipped([], folders=("empty/",))], 400, "not_an_image", "the first: there is no file"),
])  # fmt: skip
def test_what_is_no_series_is_refused(client, files, status, code, message):
    assert message in problem(client.post("/series", files=series_files(*files)), status, code)


def test_a_body_without_files_is_refused(client):
    problem(client.post("/series", json={}), 415, "unsupported_media_type")
    problem(client.post("/series", files={"other": ("a", b"b")}), 422, "invalid")


def test_limits_say_which_setting_raises_them():
    limits = live.settings(max_series_bytes=20_000, series_memory_bytes=64 << 20, max_upload_bytes=1 << 20)
    with live.serving(make_engine(), limits) as url, live.client_of(base_url=url) as client:
        reply = client.post("/series", files=series_files(bytes(30_000)))
        assert "raise MEDICAL_VQA_MAX_SERIES_BYTES" in problem(reply, 413, "too_large")
        huge = zipped([bytes(15 << 20)])
        reply = client.post("/series", files=series_files(huge))
        assert "raise MEDICAL_VQA_SERIES_MEMORY_BYTES" in problem(reply, 413, "too_large")
        reply = client.post("/upload_image", files={"image_file": ("a", bytes(2 << 20))})
        assert "raise MEDICAL_VQA_MAX_UPLOAD_BYTES" in problem(reply, 413, "too_large")


def test_series_belong_to_their_tenant_and_count_towards_its_bytes(tmp_path):
    keys = [{"name": name, "sha256": hash_key(name), "max_bytes": size} for name, size in (("a", 30_000), ("b", None))]
    (tmp_path / "keys.yaml").write_text(json.dumps(keys))
    with live.serving(make_engine(), live.settings(keys_file=tmp_path / "keys.yaml", rate_limit="4/minute")) as url:
        a, b = (live.client_of(base_url=url, headers={"Authorization": f"Bearer {name}"}) for name in "ab")
        with a, b:
            (item,) = upload(a, *[dicom_slice(z) for z in range(4)]).series
            problem(b.get(f"/images/{item.image_id}/view"), 404, "unknown_image")
            problem(b.get(f"/images/{item.image_id}/values"), 404, "unknown_image")
            problem(a.post("/series", files=series_files(*[dicom_slice(z, rows=200) for z in range(5)])), 429,
                    "quota_exceeded")  # fmt: skip
            for _ in range(10):  # a wheel through the slices is not counted towards the rate
                assert a.get(f"/images/{item.image_id}/view").status_code == 200


def test_uploads_and_questions_about_series_are_in_the_audit_log_and_no_header_is(tmp_path):
    settings = live.settings(audit_log=tmp_path / "audit", store=str(tmp_path / "store"), audit_text=True)
    with live.serving(make_engine(), settings) as url, live.client_of(base_url=url) as client:
        (item,) = upload(client, *[dicom_slice(z) for z in range(4)]).series
        client.post("/ask_question", json={"image_id": item.image_id, "question": "Is it?"})
        assert pixels(client.get(f"/images/{item.image_id}/view?frame=1")).shape == (12, 16)
        client.delete(f"/images/{item.image_id}")
    lines = [
        json.loads(line) for path in (tmp_path / "audit").glob("*.jsonl") for line in path.read_text().split("\n")[:-1]
    ]
    assert [line["event"] for line in lines] == ["upload", "answer", "delete"]
    assert len({line["image"] for line in lines}) == 1
    assert not list((tmp_path / "store").rglob("*.image"))


@pytest.mark.parametrize("kind", ["series", "volumes"])
def test_a_request_has_at_most_64_series_of_any_kind(kind):
    """Each is prepared for the model and encoded: two thousand of two slices fit into a megabyte."""
    volume = nibabel.Nifti1Image(np.zeros((8, 8, 3), np.int16), np.eye(4)).to_bytes()
    files = [volume] * 70
    if kind == "series":
        files = [dicom_slice(z, series=f"1.2.{n}") for n in range(70) for z in range(2)]
    decoded = SeriesJob(tuple(files), DecodeLimits(), None).run()
    assert len(decoded.items) == 64
    assert len(decoded.left_out) == len(files) * 6 // 70
    assert {one.reason for one in decoded.left_out} == {
        "the request holds more than 64 series and single pictures; send the rest in another one"
    }


def deflated(number: int) -> bytes:
    """A deflated picture of some kilobytes, whose header inflates to 900,000 bytes."""
    elements = {"EncapsulatedDocument": bytes(900_000), "SeriesInstanceUID": f"1.2.9.{number}"}
    return made(np.full((8, 8), number, np.uint16), DeflatedExplicitVRLittleEndian, **elements)


def cut_off(number: int) -> bytes:
    """A compressed volume of 900,000 bytes, without the end of its middle slice."""
    values = np.full((100, 100, 90), number, np.uint8)
    return gzip.compress(nibabel.Nifti1Image(values, np.eye(4)).to_bytes()[:454_000])


def archive(number: int) -> bytes:
    return zipped([bytes(900_000) + bytes([number])])


@pytest.mark.parametrize(("compressed", "most", "within"), [(deflated, 2, 2), (archive, 2, 2), (cut_off, 4, 8)])
def test_files_that_inflate_to_too_much_together_are_left_out_and_the_others_kept(compressed, most, within):
    """Each is within the limits of a file. A hundred took the decoder more than its minute."""
    files = [compressed(number) for number in range(40)] + [dicom_slice(z) for z in range(4)]
    limits = DecodeLimits(file_bytes=500_000, inflated_bytes=1_000_000, settings={"inflated_bytes": "NAME"})
    decoded = SeriesJob(tuple(files), limits, None, keep_sources=True).run()
    assert decoded.items[0].info.frames == 4
    reason = f"belongs to a request whose compressed files inflate to more than {most} million bytes"
    refused = [one for one in decoded.left_out if f"{reason}; send it in another one or raise NAME" in one.reason]
    assert [one.file for one in refused] == list(range(within, 40))
    assert limits.budget.inflated_bytes_left == limits.budget.inflated_bytes  # that of another request


def test_headers_with_too_many_elements_together_are_left_out_and_the_other_files_kept(monkeypatch):
    monkeypatch.setattr(series_decode, "_MAX_ELEMENTS", 5_000)
    long = Sequence([Dataset() for _ in range(1_000)])
    files = [dicom_slice(z) for z in range(4)]
    files += [dicom_slice(0, series=f"1.2.9.{n}", PerFrameFunctionalGroupsSequence=long) for n in range(20)]
    decoded = SeriesJob(tuple(files), DecodeLimits(), None).run()
    assert decoded.items[0].info.frames == 4
    assert {one.file for one in decoded.left_out} == set(range(8, 24))
    assert decoded.left_out[-1].reason == (
        "the file belongs to a request whose DICOM headers have more than 5,000 elements and items; send it in another "
        "one"
    )


def test_a_file_with_damaged_functional_groups_is_left_out_and_the_others_kept():
    data = enhanced()
    at = data.index(b"\x00\x52\x30\x92SQ") + 12
    damaged = data[:at] + b"\xfe\xff\x00\xe0" + b"\xff" * 4 + data[at + 8 :]  # an item without an end
    decoded = SeriesJob((*[dicom_slice(z) for z in range(4)], damaged), DecodeLimits(), None).run()
    assert decoded.items[0].info.frames == 4
    assert decoded.left_out == [LeftOut(4, "the file is DICOM, but its header is damaged; export it again")]


def test_files_whose_frames_lie_between_each_other_are_parsed_once_each(monkeypatch):
    frames = 20
    data = []
    for offset in (0.0, 1.0):
        positions = [group(PlanePositionSequence=group(ImagePositionPatient=[0, 0, 2 * z + offset]))[0]
                     for z in range(frames)]  # fmt: skip
        values = np.full((frames, 8, 8), 100 + offset, np.int16)
        data.append(
            made(
                values,
                SOPClassUID=ENHANCED_CT,
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                SeriesInstanceUID="1.2.7",
                PerFrameFunctionalGroupsSequence=Sequence(positions),
            )
        )
    parsed = []
    read_elements = slices.read_elements
    monkeypatch.setattr(slices, "read_elements", lambda *options: parsed.append(0) or read_elements(*options))
    (item,) = SeriesJob(tuple(data), DecodeLimits(), None).run().items
    assert item.volume.values[0, 0].tolist() == [100, 101] * frames
    assert len(parsed) <= 3


def test_a_stored_series_has_nothing_of_its_headers(tmp_path):
    with live.serving(make_engine(), live.settings(store=str(tmp_path))) as url, live.client_of(base_url=url) as client:
        upload(client, *[dicom_slice(z) for z in range(4)])
    stored = [path.read_bytes() for path in tmp_path.rglob("*.image")]
    assert len(stored) == 2
    assert not [data for data in stored if b"Doe" in data or b"1.2.3" in data]


def test_the_decoder_starts_while_the_first_series_arrives():
    before = set(multiprocessing.active_children())
    form = live.client_of().build_request("POST", "http://x/series", files=series_files(*map(dicom_slice, range(3))))
    body = form.read()
    head = f"POST /series HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    with contextlib.ExitStack() as opened:
        url = opened.enter_context(live.serving(make_engine(), live.settings(decoder_processes=1)))
        address = "127.0.0.1", int(url.rpartition(":")[2])
        connection = opened.enter_context(socket.create_connection(address, live.PATIENCE))
        connection.sendall(f"{head}Content-Type: {form.headers['content-type']}\r\n\r\n".encode() + body[:100])
        until = time.monotonic() + live.PATIENCE
        while len(set(multiprocessing.active_children()) - before) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        assert len(set(multiprocessing.active_children()) - before) == 2  # that of single files is one
        connection.sendall(body[100:])
        assert connection.recv(15) == b"HTTP/1.1 201 Cr"


@pytest.mark.slow
def test_an_enhanced_ct_of_60_megabytes_works_by_default():
    values = np.zeros((120, 512, 512), np.int16)
    values[:, 100:400, 100:400] = 900
    data = enhanced(values)
    assert len(data) > 60_000_000
    with live.serving(make_engine()) as url, live.client_of(base_url=url) as client:
        reply = client.post("/upload_image", files={"image_file": ("ct", data)})
        assert (reply.status_code, reply.json()["frames"], reply.json()["frame"]) == (200, 120, 60)
        (item,) = upload(client, data).series
        assert item.planes == {"axial": 120, "coronal": 512, "sagittal": 512}
        assert pixels(client.get(f"/images/{item.image_id}/view?frame=7")).shape == (512, 512)


@pytest.mark.slow
def test_a_series_is_decoded_in_a_process_with_bounded_memory():
    small = SeriesJob(tuple(dicom_slice(z) for z in range(4)), DecodeLimits(), None)
    values = np.zeros((400, 512, 512), np.uint8)
    large = SeriesJob((nibabel.Nifti1Image(values, np.eye(4)).to_bytes(),), DecodeLimits(), None)

    async def decode_all() -> list[Any]:
        pool = DecoderPool(1, DecoderLimits(256 << 20, 60.0, 4, 120.0))
        try:
            return [await asyncio.gather(pool.decode(job), return_exceptions=True) for job in (small, large, small)]
        finally:
            pool.close()

    (first,), (refused,), (again,) = asyncio.run(decode_all())
    assert first.items[0].volume.slices["axial"] == len(small.files) == again.items[0].volume.slices["axial"]
    assert isinstance(refused, ApiError)

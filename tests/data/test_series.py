from __future__ import annotations

import io
import itertools
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from dicom_files import SHIPPED, lut, made

from medical_vqa.data.imaging.decode import decode_image
from medical_vqa.data.imaging.decoded_frame import DecodeLimits
from medical_vqa.data.imaging.series.files import is_series
from medical_vqa.data.imaging.series.reading import read_series
from medical_vqa.errors import ImageError, TooLargeError, UnsupportedImageError

HEAD, LEFT, FRONT = 900, 600, 300


def patient(rows: int = 16, columns: int = 12, slices: int = 10) -> np.ndarray:
    """(x, y, z) from right to left, front to back, feet to head, with a mark at the head, the left and the front."""
    values = np.zeros((columns, rows, slices), np.int16)
    values[:, :, -1] = HEAD
    values[-1] = LEFT
    values[:, 0] = FRONT
    return values


def slice_of(values: np.ndarray, z: int, *, height: float = 3.0, number: int = 1, **elements: Any) -> bytes:
    header = {
        "ImagePositionPatient": [-10, -20, height * z],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [1, 1],
        "SeriesInstanceUID": "1.2.3",
        "InstanceNumber": number,
        "RescaleSlope": "1",
        "RescaleIntercept": "0",
        "WindowCenter": "500",
        "WindowWidth": "1000",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
    }
    return made(np.ascontiguousarray(values[:, :, z].T), **(header | elements))


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """A folder with an axial series whose file names and numbers are in another order than the slices."""

    def build(**changes: bytes) -> Path:
        values = patient()
        path = tmp_path / "ct"
        path.mkdir(exist_ok=True)
        for z in range(10):
            (path / f"IM{(z * 7) % 10}").write_bytes(slice_of(values, z, number=(z * 3) % 10))
        for name, data in changes.items():
            (path / name).write_bytes(data)
        return path

    return build


def test_slices_are_sorted_by_position_and_shown_in_three_planes_with_true_spacing(folder: Any) -> None:
    volume = read_series(folder())
    assert volume.acquired == "axial"
    assert np.array_equal(volume.values, patient())
    assert volume.spacing == (1, 1, 3)
    axial = volume.view(5)
    assert (axial.pixels.shape, axial.frame, axial.frames, axial.plane) == ((16, 12, 1), 5, 10, "axial")
    assert (axial.window, axial.window_source) == ((500, 1000), "header")
    coronal, sagittal = (volume.view(5, plane=plane) for plane in ("coronal", "sagittal"))
    assert coronal.pixels.shape == (30, 12, 1)  # ten slices of 3 mm
    assert sagittal.pixels.shape == (30, 16, 1)
    assert coronal.spacing == sagittal.spacing == (1, 1)
    with pytest.raises(ImageError, match="the axial plane has no slice 10; the slices are 0 to 9"):
        volume.view(10)


def test_the_patients_right_is_at_the_left_of_every_plane_and_the_head_or_face_at_its_top(folder: Any) -> None:
    volume = read_series(folder())
    level = {name: round(value / 1000 * 255) for name, value in (("left", LEFT), ("front", FRONT), ("head", HEAD))}
    axial, coronal, sagittal = (volume.view(plane=plane).pixels[:, :, 0] for plane in ("axial", "coronal", "sagittal"))
    assert (axial[-1, 0], abs(int(axial[-1, -1]) - level["left"]) <= 1) == (0, True)
    assert abs(int(axial[0, 0]) - level["front"]) <= 1
    assert coronal[-1, 0] == 0
    assert abs(int(coronal[-1, -1]) - level["left"]) <= 1
    assert int(coronal[0, 0]) > 200
    assert sagittal[-1, -1] == 0
    assert abs(int(sagittal[-1, 0]) - level["front"]) <= 1


def test_what_does_not_belong_to_the_volume_is_left_out_and_reported(folder: Any) -> None:
    values = patient()
    volume = read_series(
        folder(
            localizer=slice_of(values, 3, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
            repeated=slice_of(values, 4, number=99),
            other=slice_of(values, 5, SeriesInstanceUID="1.2.4"),
            tilted=slice_of(values, 5, ImageOrientationPatient=[1, 0, 0, 0, 0, -1]),
            notes=b"a text",
        )
    )
    assert np.array_equal(volume.values, patient())
    assert volume.warnings == (
        "1 files hold no slice and were left out",
        "1 localizers were left out",
        "2 series are there; the one with the most slices was read",
        "1 slices of another size, spacing or orientation were left out",
        "1 slices repeat a position and were left out",
    )


def test_a_missing_slice_is_reported_as_a_gap(folder: Any) -> None:
    path = folder()
    (path / "IM5").unlink()  # slice 5
    assert "1 gaps: slices are missing, and proportions across them are not true" in read_series(path).warnings


def test_a_damaged_slice_is_left_out_and_named_by_a_number(folder: Any) -> None:
    path = folder()
    for name, size in (("IM8", -20), ("IM5", 600)):  # slices 4 and 5: pixels that end early, none at all
        (path / name).write_bytes((path / name).read_bytes()[:size])
    volume = read_series(path)
    assert np.array_equal(volume.values, np.delete(patient(), [4, 5], axis=2))
    assert volume.warnings == (
        "2 damaged slices were left out: file 8, file 5, counted from 0",
        "1 gaps: slices are missing, and proportions across them are not true",
    )
    assert [file for file, _ in volume.files] == [0, 7, 4, 1, 2, 9, 6, 3]


def test_a_damaged_frame_of_a_file_is_left_out(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 100, (4, 16, 12)).astype(np.uint16)
    file = tmp_path / "frames.dcm"
    file.write_bytes(made(frames)[:-40])
    volume = read_series([file])
    assert volume.slices[volume.acquired] == 3
    assert "1 damaged slices were left out: frame 3 of file 0, counted from 0" in volume.warnings


def test_files_that_cannot_be_read_are_left_out_and_named_by_a_number(folder: Any, tmp_path: Path) -> None:
    path = folder(name_of_a_patient=slice_of(patient(), 3)[:150] + b"\xff" * 500)
    volume = read_series([path / "none", *sorted(path.iterdir())])
    assert np.array_equal(volume.values, patient())
    assert volume.warnings == (
        "2 damaged files were left out: number 0, number 11, counted from 0 in the order of the files",
    )


def test_an_archive_with_a_damaged_member_is_read_without_it(folder: Any, tmp_path: Path) -> None:
    out = io.BytesIO()
    path = folder()
    with zipfile.ZipFile(out, "w") as archive:
        for member in sorted(path.iterdir()):
            archive.write(member, member.name)
    content = bytearray(out.getvalue())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        after = archive.getinfo("IM9").header_offset
    content[after - 100 : after] = b"\x55" * 100  # the last pixels of IM8: its checksum does not fit
    (tmp_path / "ct.zip").write_bytes(content)
    volume = read_series(tmp_path / "ct.zip")
    assert "1 damaged files were left out: number 8, counted from 0 in the order of the files" in volume.warnings
    assert volume.slices["axial"] == 9


def test_of_a_series_whose_slices_are_all_damaged_the_first_cause_is_named(folder: Any) -> None:
    path = folder()
    for file in path.iterdir():
        file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ImageError, match=r"expected 384 bytes in the DICOM element PixelData .*, got 36\d"):
        read_series(path)


def test_objects_without_a_picture_of_their_own_are_never_the_series(folder: Any) -> None:
    many = np.zeros((40, 16, 12), np.uint8)
    segmentation, dose = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.481.2"
    others = {
        "seg": made(many, SOPClassUID=segmentation, SeriesInstanceUID="1.2.5"),
        "seg_of_the_same_series": made(many, SOPClassUID=segmentation, SeriesInstanceUID="1.2.3"),
        "dose": made(many.astype(np.uint16), SOPClassUID=dose, SeriesInstanceUID="1.2.6"),
        "sr": (SHIPPED / "test-SR.dcm").read_bytes(),
        "struct": (SHIPPED / "rtstruct.dcm").read_bytes(),
        "wave": (SHIPPED / "waveform_ecg.dcm").read_bytes(),
    }
    volume = read_series(folder(**others))
    assert np.array_equal(volume.values, patient())
    assert volume.warnings == (
        "1 files were left out: each is DICOM of the class 12-lead ECG Waveform, which has no picture of its own",
        "1 files were left out: each is DICOM of the class Comprehensive SR, which has no picture of its own",
        "1 files were left out: each is DICOM of the class RT Structure Set, which has no picture of its own",
        "2 files were left out: each is DICOM of the class Segmentation, which has no picture of its own",
        "2 series are there; the one with the most slices was read",
    )


def test_a_folder_of_reports_alone_is_refused_by_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "sr").write_bytes((SHIPPED / "test-SR.dcm").read_bytes())
    with pytest.raises(ImageError, match=r"expected a series of DICOM pictures, but none is there \(1 files .* SR"):
        read_series(tmp_path)


def test_without_positions_the_numbers_decide_and_this_is_reported(tmp_path: Path) -> None:
    values = patient()
    absent = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    for z in range(10):
        (tmp_path / f"{9 - z}").write_bytes(slice_of(values, z, number=z, **absent))
    volume = read_series(tmp_path)
    assert np.array_equal(volume.values, values)
    assert volume.warnings == ("positions are missing; the slices are in the order of their numbers",)


def test_a_zip_archive_and_a_directory_file_are_the_same_series_as_the_folder(folder: Any, tmp_path: Path) -> None:
    path = folder()
    archive = tmp_path / "ct.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for member in path.iterdir():
            file.write(member, f"a/b/{member.name}")
    (path / "DICOMDIR").write_bytes((SHIPPED / "dicomdirtests" / "DICOMDIR").read_bytes())
    assert [is_series(one) for one in (path, archive, path / "DICOMDIR", path / "IM1")] == [True, True, True, False]
    for source in (archive, path / "DICOMDIR", sorted(path.glob("IM*"))):
        assert np.array_equal(read_series(source).values, patient())


def test_a_file_that_states_two_billion_frames_is_refused_at_once(tmp_path: Path) -> None:
    file = tmp_path / "frames.dcm"
    file.write_bytes(made(np.zeros((2, 4, 4), np.uint16), NumberOfFrames=2_000_000_000))
    with pytest.raises(TooLargeError, match="has more than 4,096 slices"):
        read_series([file], limits=DecodeLimits())


def test_limits_are_kept_and_say_what_raises_them(folder: Any, tmp_path: Path) -> None:
    with pytest.raises(TooLargeError, match="has more than 3 slices; give a part of it or raise SLICES"):
        read_series(folder(), limits=DecodeLimits(frames=3, settings={"frames": "SLICES"}))
    with pytest.raises(TooLargeError, match="0 million bytes; give a part of it or raise BYTES"):
        read_series(folder(), limits=DecodeLimits(inflated_bytes=1000, settings={"inflated_bytes": "BYTES"}))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros", bytes(50_000_000))
    (tmp_path / "bomb.zip").write_bytes(out.getvalue())
    with pytest.raises(TooLargeError, match="holds 1 files of 50 million bytes; give at most"):
        read_series(tmp_path / "bomb.zip", limits=DecodeLimits(inflated_bytes=1_000_000))


def test_what_is_no_series_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="expected a series, but it does not exist"):
        read_series(tmp_path / "none")
    with pytest.raises(ImageError, match="expected a series of DICOM pictures, but none is there"):
        read_series(tmp_path)
    (tmp_path / "one").write_bytes(slice_of(patient(), 0))
    with pytest.raises(ImageError, match=r"expected a series of at least two slices .*, got 1; give the folder"):
        read_series(tmp_path)
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(ImageError, match="expected a whole zip archive"):
        read_series(tmp_path / "a.zip")
    (tmp_path / "color.dcm").write_bytes((SHIPPED / "SC_rgb_rle_2frame.dcm").read_bytes())
    with pytest.raises(UnsupportedImageError, match="expected a series of gray slices, got colors"):
        read_series(tmp_path / "color.dcm")


@pytest.mark.parametrize("codes", ["".join(code) for order in itertools.permutations(("RL", "AP", "SI"))
                                   for code in itertools.product(*order)])  # fmt: skip
def test_all_48_orientations_of_a_nifti_volume_are_the_same_patient(codes: str, tmp_path: Path) -> None:
    lps = patient()
    ras = nibabel.Nifti1Image(lps[::-1, ::-1], np.diag([1.0, 1.0, 3.0, 1.0]))
    turn = nibabel.orientations.ornt_transform(*(nibabel.orientations.axcodes2ornt(name) for name in ("RAS", codes)))
    path = tmp_path / "a.nii"
    path.write_bytes(ras.as_reoriented(turn).to_bytes())
    volume = read_series(path)
    assert np.array_equal(volume.values, lps)
    assert volume.spacing == (1, 1, 3)
    assert volume.acquired == {"S": "axial", "I": "axial", "A": "coronal", "P": "coronal"}.get(codes[2], "sagittal")


@pytest.mark.parametrize("degrees", [-40, -20, 20, 40])
def test_of_an_oblique_series_the_patients_right_is_at_the_left(degrees: int, tmp_path: Path) -> None:
    values, angle = patient(), np.radians(degrees)
    down = np.array([0, np.cos(angle), np.sin(angle)])
    normal = np.cross([1, 0, 0], down)
    for z in range(10):
        place = {"ImagePositionPatient": list(np.round(3 * z * normal, 6))}
        turned = {"ImageOrientationPatient": [1, 0, 0, *np.round(down, 6)]}
        (tmp_path / str(z)).write_bytes(slice_of(values, z, **place, **turned))
    volume = read_series(tmp_path)
    assert volume.acquired == "axial"
    assert np.array_equal(volume.values, values)
    assert volume.spacing == pytest.approx((1, 1, 3), abs=1e-3)


def test_a_coronal_series_stored_from_the_back_is_turned(tmp_path: Path) -> None:
    values = patient()
    for number, y in enumerate(range(15, -1, -1)):
        header = {"ImagePositionPatient": [0, y, 27], "ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
        picture = np.ascontiguousarray(values[:, y, ::-1].T)
        (tmp_path / str(number)).write_bytes(slice_of(picture.T[:, :, None], 0, **header, PixelSpacing=[3, 1]))
    volume = read_series(tmp_path)
    assert volume.acquired == "coronal"
    assert np.array_equal(volume.values, values)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_slice_is_taken_out_of_the_volume_without_a_copy_of_all_its_values(plane: Any, folder: Any) -> None:
    volume = read_series(folder())
    section, _, _ = volume.section(plane=plane)
    assert np.shares_memory(section, volume.values)


def test_last_digits_of_an_orientation_do_not_divide_a_series(tmp_path: Path) -> None:
    values = patient()
    for z in range(10):
        cosine = 0.70749999 if z % 2 else 0.70750001  # on both sides of what rounds to 0.707 and to 0.708
        sine = (1 - cosine**2) ** 0.5
        turned = [cosine, sine, 0, -sine, cosine, 0]
        (tmp_path / str(z)).write_bytes(slice_of(values, z, ImageOrientationPatient=turned, PixelSpacing=[0.5, 0.5]))
    volume = read_series(tmp_path)
    assert volume.slices["axial"] == 10
    assert volume.warnings == ()


def test_slices_that_are_not_stacked_along_their_normal_are_reported(tmp_path: Path) -> None:
    values = patient()
    tilt = np.radians(15)
    turned = [1, 0, 0, 0, float(np.cos(tilt)), float(np.sin(tilt))]
    for z in range(10):  # the table moves along z, whatever the gantry does
        (tmp_path / str(z)).write_bytes(slice_of(values, z, ImageOrientationPatient=turned))
    volume = read_series(tmp_path)
    assert volume.warnings == ("the scanner's gantry was tilted: planes across the slices are distorted",)
    assert volume.notes == ("tilted",)


def test_of_a_series_without_the_size_of_a_pixel_nothing_is_in_millimeters(tmp_path: Path) -> None:
    values = patient()
    for z in range(10):
        (tmp_path / str(z)).write_bytes(slice_of(values, z, PixelSpacing=None))
    volume = read_series(tmp_path)
    assert (volume.measured, volume.view().spacing) == (False, None)
    assert volume.notes == ("size_unknown",)


def test_padding_of_a_series_is_dark_and_does_not_count_as_in_a_single_slice(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 1000, (32, 32, 4)).astype(np.int16)
    values[:12] = -2000
    plain = {"PixelPaddingValue": -2000, "WindowCenter": None, "WindowWidth": None}
    for z in range(4):
        (tmp_path / str(z)).write_bytes(slice_of(values, z, **plain))
    center, width = read_series(tmp_path).default_window()[0]
    single = decode_image(slice_of(values, 2, **plain)).window
    assert single is not None
    assert (center, width) == pytest.approx(single, abs=25)
    for z in range(4):
        inverted = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": -2000}
        (tmp_path / str(z)).write_bytes(slice_of(values, z, **inverted))
    assert (read_series(tmp_path).view().pixels[:, :12] <= 3).all()


@pytest.mark.parametrize(("unit", "scale"), [("mm", 1.0), ("meter", 0.001), ("micron", 1000.0), ("unknown", 1.0)])
def test_a_nifti_volume_is_measured_in_millimeters_whatever_its_unit(unit: str, scale: float, tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(patient(), np.diag([-2 * scale, -3 * scale, 4 * scale, 1]))
    image.header.set_xyzt_units(unit)
    image.to_filename(tmp_path / "a.nii")
    assert read_series(tmp_path / "a.nii").spacing == pytest.approx((2, 3, 4))


def test_a_nifti_volume_without_an_orientation_has_no_sides_and_one_plane(tmp_path: Path) -> None:
    nibabel.Nifti1Image(patient(), None).to_filename(tmp_path / "a.nii")
    volume = read_series(tmp_path / "a.nii")
    alone = decode_image((tmp_path / "a.nii").read_bytes())
    assert (volume.located, list(volume.slices), alone.plane, volume.view().plane) == (False, ["axial"], None, None)
    for warnings in (volume.warnings, alone.warnings):
        assert any("does not state how it lies in the patient" in warning for warning in warnings)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_of_several_nifti_volumes_the_first_is_read_alone_and_this_is_said(name: str, tmp_path: Path) -> None:
    values = np.stack([patient(), 2 * patient(), 3 * patient()], axis=-1)
    nibabel.Nifti1Image(values, np.diag([-1, -1, 3, 1])).to_filename(tmp_path / name)
    volume = read_series(tmp_path / name, limits=DecodeLimits(inflated_bytes=4000))  # of 3840 bytes each
    assert (volume.values.max(), volume.warnings) == (HEAD, ("the file holds 3 volumes, of which the first was read",))
    limits = DecodeLimits(inflated_bytes=3839, settings={"inflated_bytes": "BYTES"})
    with pytest.raises(TooLargeError, match="its volume has 0 million bytes; give a part of it or raise BYTES"):
        read_series(tmp_path / name, limits=limits)


@pytest.mark.parametrize("pixdim", [0, np.nan])
def test_a_nifti_header_whose_sizes_are_none_is_refused_by_what_is_wrong(pixdim: float, tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(patient(), None)
    data = bytearray(image.to_bytes())
    header = nibabel.Nifti1Header(bytes(data[:348])).structarr.copy()
    header["pixdim"] = pixdim
    (tmp_path / "a.nii").write_bytes(header.tobytes() + data[348:])
    with pytest.raises(ImageError, match="expected an orientation and sizes of voxels in the NIfTI header"):
        read_series(tmp_path / "a.nii")


@pytest.mark.parametrize("elements", [
    {"WindowCenter": "500", "WindowWidth": "400", "VOILUTFunction": "SIGMOID"},
    {"WindowCenter": "500", "WindowWidth": "4"},
    {"WindowCenter": "500", "WindowWidth": "4", "VOILUTFunction": "LINEAR_EXACT"},
    {"VOILUTSequence": [lut(np.arange(1000) ** 2 // 1000, 0, 10)]},
    {"WindowCenter": None, "WindowWidth": None, "VOILUTSequence": [lut(np.arange(1000)[::-1], 0, 10)]},
    {"PresentationLUTShape": "INVERSE"},
])  # fmt: skip
def test_a_slice_of_a_series_is_as_bright_as_its_file_alone(elements: Any, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 1000, (32, 32, 3)).astype(np.int16)
    values[:2] = np.arange(498, 502).repeat(16).reshape(2, 32, 1)
    for z in range(3):
        (tmp_path / str(z)).write_bytes(slice_of(values, z, **elements))
    volume = read_series(tmp_path)
    for z in range(3):
        alone, shown = decode_image(slice_of(values, z, **elements)), volume.view(z)
        assert np.abs(shown.pixels.astype(int) - alone.pixels).max() <= 1
        assert (shown.window, shown.window_source) == (alone.window, alone.window_source)


def test_slices_without_positions_and_numbers_are_said_to_be_in_the_order_of_the_files(tmp_path: Path) -> None:
    nowhere = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "InstanceNumber": None}
    for z in range(4):
        (tmp_path / str(z)).write_bytes(slice_of(patient(), z, **nowhere))
    volume = read_series(tmp_path)
    assert volume.warnings == ("positions and numbers are missing; the slices are in the order of the files",)


def test_slices_at_one_position_are_refused_with_the_reason(tmp_path: Path) -> None:
    for z in range(4):
        (tmp_path / str(z)).write_bytes(slice_of(patient(), z, ImagePositionPatient=[0, 0, 0]))
    with pytest.raises(ImageError, match=r"got 1 \(3 slices repeat a position and were left out\)"):
        read_series(tmp_path)

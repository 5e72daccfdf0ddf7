"""Volumes in every orientation in which they can be stored: is the patient's right at the left of each picture?

    python benchmarks/orientations.py        # writes results/orientations.json

Three volumes have values that grow along one axis of the patient alone: to the left, to the back, to the head. Each is
stored as NIfTI in its 48 orientations, as oblique NIfTI, and as oblique DICOM series whose files are in another order.
In every plane values must then grow, or fall, along the rows or columns as the conventions of radiology say: axial
pictures have the patient's right at the left and the face at the top; coronal ones the right at the left and the head
at the top; sagittal ones the face at the left and the head at the top. Nothing of the package is used to say what is
right. The single slices that `ask FILE` shows are checked in the same way.
"""

from __future__ import annotations

import io
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from medical_vqa.data.imaging.decode import decode_image_file
from medical_vqa.data.imaging.series.reading import read_series

RESULTS = Path(__file__).parent / "results" / "orientations.json"
SHAPE = (20, 24, 16)  # along the patient's axes: left, back, head
SPACING = (1.0, 1.0, 2.5)
AXES = ("left", "back", "head")
# What grows along the columns (to the right) and along the rows (downwards) of a picture; a minus: it falls.
CONVENTIONS = {"axial": ("left", "back"), "coronal": ("left", "-head"), "sagittal": ("back", "-head")}
CODES = sorted(
    "".join(code) for order in itertools.permutations(("RL", "AP", "SI")) for code in itertools.product(*order)
)
ANGLES = (-40, -20, 20, 40)


def gradient(axis: int) -> np.ndarray:
    """(left, back, head): values that grow along one axis alone."""
    steps = np.linspace(100, 900, SHAPE[axis]).astype(np.int16)
    return np.ascontiguousarray(
        np.broadcast_to(steps.reshape([-1 if place == axis else 1 for place in range(3)]), SHAPE)
    )


def turn(degrees: float, axis: int) -> np.ndarray:
    """(3, 3): a rotation about one axis."""
    angle = np.radians(degrees)
    first, second = (place for place in range(3) if place != axis)
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def nifti(values: np.ndarray, code: str, rotation: np.ndarray) -> bytes:
    """The volume as a file; NIfTI's axes grow to the right, the front and the head."""
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1, -1, 1]) @ rotation @ np.diag([-1, -1, 1]) @ np.diag(SPACING)
    image = nibabel.Nifti1Image(values[::-1, ::-1], affine)
    names = (nibabel.orientations.axcodes2ornt(name) for name in ("RAS", code))
    return bytes(image.as_reoriented(nibabel.orientations.ornt_transform(*names)).to_bytes())


def dicom_series(values: np.ndarray, plane: str, rotation: np.ndarray, folder: Path) -> Path:
    """Slices in one plane, as files in another order than their positions."""
    axis = {"sagittal": 0, "coronal": 1, "axial": 2}[plane]
    along_row, along_column = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}[plane]
    down = -1 if plane != "axial" else 1  # the head is at the top
    directions = rotation * np.array([1.0, 1.0, 1.0])
    folder.mkdir()
    for number in range(SHAPE[axis]):
        picture = np.take(values, number, axis)  # (rows of the lower axis, of the higher one)
        rows = picture.T[::down]
        place = np.zeros(3)
        place[axis] = number * SPACING[axis]
        if down < 0:
            place[along_column] = (SHAPE[along_column] - 1) * SPACING[along_column]
        write_slice(
            folder / str((number * 7) % SHAPE[axis] + 100),
            np.ascontiguousarray(rows),
            position=directions @ place,
            orientation=np.concatenate([directions[:, along_row], down * directions[:, along_column]]),
            spacing=(SPACING[along_column], SPACING[along_row]),
        )
    return folder


def write_slice(
    path: Path, values: np.ndarray, *, position: np.ndarray, orientation: np.ndarray, spacing: tuple[float, float]
) -> None:
    """One CT slice."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, f"2.25.{path.name}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"2.25.{path.name}"
    dataset.SeriesInstanceUID, dataset.Modality, dataset.InstanceNumber = "2.25.0", "CT", 1
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.WindowCenter, dataset.WindowWidth = "500", "1000"
    dataset.ImagePositionPatient = [f"{value:.6f}" for value in position]
    dataset.ImageOrientationPatient = [f"{value:.6f}" for value in orientation]
    dataset.PixelSpacing = list(spacing)
    dataset.PixelData = values.tobytes()
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    path.write_bytes(out.getvalue())


def direction(picture: np.ndarray) -> tuple[int, int]:
    """Whether the mean of the columns, and that of the rows, grows (1), falls (-1) or does neither (0)."""
    signs = []
    for means in (picture.mean(axis=0), picture.mean(axis=1)):
        steps = np.diff(means.astype(float))
        signs.append(int(np.sign(means[-1] - means[0])) if (steps >= -0.5).all() or (steps <= 0.5).all() else 9)
    return signs[0], signs[1]


def expected(plane: str, axis: str) -> tuple[int, int]:
    """What `direction` must return for the volume that grows along an axis."""
    columns, rows = ((-1 if name[0] == "-" else 1) * (name.lstrip("-") == axis) for name in CONVENTIONS[plane])
    return columns, rows


def sides(plane: str) -> tuple[float, float]:
    """Height and width of a plane in millimeters."""
    columns, rows = (AXES.index(name.lstrip("-")) for name in CONVENTIONS[plane])
    return SHAPE[rows] * SPACING[rows], SHAPE[columns] * SPACING[columns]


def checked(files: dict[str, Path], single: bool) -> dict[str, Any]:
    """What is shown of three volumes, stored in one way; `files` by the axis along which they grow."""
    row: dict[str, Any] = {"planes": {}}
    for axis, path in files.items():
        volume = read_series(path)
        row["acquired"] = volume.acquired
        for plane in CONVENTIONS:
            frame = volume.view(plane=plane)  # type: ignore[arg-type]
            height, width = (
                extent * side for extent, side in zip(frame.pixels.shape, frame.spacing or (0, 0), strict=False)
            )
            good = direction(frame.pixels[:, :, 0]) == expected(plane, axis) and np.allclose(
                (height, width), sides(plane), atol=2.6
            )
            row["planes"][plane] = row["planes"].get(plane, True) and bool(good)
        if single:
            frame = decode_image_file(path)
            shown = direction(frame.pixels[:, :, 0]) == expected(str(frame.plane or volume.acquired), axis)
            row["single slice"] = row.get("single slice", True) and bool(shown)
    row["right"] = all(row["planes"].values()) and row.get("single slice", True)
    return row


def cases(folder: Path) -> Iterator[tuple[str, dict[str, Path], bool]]:
    """Name, files by the axis along which they grow, and whether each is a file whose middle slice `ask` shows."""
    volumes = {name: gradient(axis) for axis, name in enumerate(AXES)}

    def stored(name: str, code: str, rotation: np.ndarray) -> dict[str, Path]:
        files = {axis: folder / f"{name} {axis}.nii" for axis in AXES}
        for axis, path in files.items():
            path.write_bytes(nifti(volumes[axis], code, rotation))
        return files

    for code in CODES:
        yield f"NIfTI {code}", stored(code, code, np.eye(3)), True
    for degrees, (axis, name) in itertools.product(ANGLES, enumerate(AXES)):
        rotation = turn(degrees, axis)
        for code in ("RAS", "LIP", "ASL"):
            title = f"NIfTI {code}, {degrees} degrees about the axis to the {name}"
            yield title, stored(title, code, rotation), True
        for plane in CONVENTIONS:
            title = f"DICOM {plane}, {degrees} degrees about the axis to the {name}"
            files = {one: dicom_series(volumes[one], plane, rotation, folder / f"{title} {one}") for one in AXES}
            yield title, files, False


def main() -> None:
    """Check every case, print what is wrong, and write the results."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, files, single in cases(Path(folder)):
            rows[name] = checked(files, single)
    wrong = [name for name, row in rows.items() if not row["right"]]
    summary = {"cases": len(rows), "right": len(rows) - len(wrong), "wrong": wrong}
    RESULTS.write_text(json.dumps({"summary": summary, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(summary, indent=1))
    if wrong:
        for name in wrong[:10]:
            print(name, rows[name])
        sys.exit(1)


if __name__ == "__main__":
    main()

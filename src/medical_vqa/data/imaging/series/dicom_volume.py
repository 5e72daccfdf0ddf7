"""The values of sorted DICOM slices as one `Volume`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medical_vqa.data.imaging.decoded_frame import DecodeLimits
from medical_vqa.data.imaging.planes import PLANES
from medical_vqa.data.imaging.series.report import Report, listed
from medical_vqa.data.imaging.series.slices import Slice
from medical_vqa.data.imaging.series.sorting import report_geometry
from medical_vqa.data.imaging.volume import Volume, oriented
from medical_vqa.errors import ImageError, TooLargeError

MIN_SLICES = 2


def dicom_volume(slices: list[Slice], name: str, limits: DecodeLimits, report: Report) -> Volume:
    """The volume of slices in order; raises `ImageError` as `read_series` does."""
    from medical_vqa.data.imaging.dicom.slices import SliceReader  # noqa: PLC0415 - pydicom is an extra

    rows, columns = slices[0].size
    size = len(slices) * rows * columns * 2
    if size > limits.inflated_bytes:
        raise TooLargeError(
            f"{name}: has {len(slices)} slices of {columns}x{rows} values, {size / 1e6:,.0f} million bytes; "
            f"give a part of it{limits.advice('inflated_bytes')}"
        )
    reader = SliceReader(name, limits)
    values = np.empty((len(slices), rows, columns), np.int16)
    intact: list[int] = []
    first_error: ImageError | None = None
    for place in sorted(range(len(slices)), key=lambda place: (slices[place].file, slices[place].frame)):
        one = slices[place]  # by file, so that one of several frames is read once wherever these lie
        try:
            decoded = reader.values(one.read, one.frame)
        except TooLargeError:
            raise
        except ImageError as error:
            first_error = first_error or error
            continue
        if not np.can_cast(decoded.dtype, values.dtype) and values.dtype == np.int16:
            values = values.astype(np.float32)
        values[place] = decoded
        intact.append(place)
    if first_error is not None and len(intact) < MIN_SLICES:
        raise first_error
    intact.sort()
    if first_error is not None:
        for new, place in enumerate(intact):
            values[new] = values[place]
        damaged = [slices[place] for place in sorted(set(range(len(slices))) - set(intact))]
        sentence = f"{len(damaged)} damaged slices were left out: {listed([_place(one, slices) for one in damaged])}"
        report.add("damaged_left_out", f"{sentence}, counted from 0", damaged, "the slice is damaged; export it again")
    slices, values = [slices[place] for place in intact], values[: len(intact)]
    report_geometry(slices, report)
    middle = reader.description(slices[len(slices) // 2].read, slices[len(slices) // 2].frame)
    directions = _directions(slices)
    turned, order = oriented(values, directions)
    steps = np.linalg.norm(directions, axis=0)
    files = tuple((one.file, one.frame) for one in slices)
    return Volume(
        turned,
        (float(steps[order[0]]), float(steps[order[1]]), float(steps[order[2]])),
        PLANES[order.index(0)],
        middle.window,
        function=middle.function,
        curve=middle.curve,
        facts=middle.facts,
        inverted=middle.inverted,
        warnings=(*report.sentences, *reader.warnings),
        burned_in_annotation=middle.burned_in_annotation,
        located=all(one.located for one in slices),
        measured=all(one.spacing for one in slices),
        notes=(*report.codes, *(["header"] if reader.warnings else [])),
        files=files[::-1] if directions[order.index(0), 0] < 0 else files,
    )


def _place(one: Slice, slices: Sequence[Slice]) -> str:
    """A neutral name of a slice: the number of its file in the order of the files, and of its frame there."""
    several = sum(other.file == one.file for other in slices) > 1
    return f"frame {one.frame} of file {one.file}" if several else f"file {one.file}"


def _directions(slices: list[Slice]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Steps of (slice, row, column) in patient coordinates; an axial volume where nothing is stated."""
    first, last = slices[0], slices[-1]
    orientation = np.asarray(first.orientation or (1, 0, 0, 0, 1, 0), float)
    along_row, along_column = orientation[:3], orientation[3:]
    normal = np.cross(along_row, along_column)
    if first.orientation is not None and first.position is not None and last.position is not None:
        step = (last.distance - first.distance) / (len(slices) - 1)
    else:
        step = 1.0
    height, width = first.spacing or (1.0, 1.0)
    return np.stack([normal * step, along_column * height, along_row * width], axis=1)

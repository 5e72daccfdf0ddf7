"""The values of a single picture file, or of the frames of one, in stored order, so that the window can change later.

A file of frames is shown as it is stored: `series.sort_files` is what places slices in the patient.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from medical_vqa.data.imaging.decoded_frame import DecodedFrame, DecodeLimits
from medical_vqa.data.imaging.raster import DECODER_ERRORS, wide_values
from medical_vqa.data.imaging.recognition import is_dicom, is_nifti
from medical_vqa.data.imaging.suppress_warnings import suppress_warnings
from medical_vqa.data.imaging.volume import Volume
from medical_vqa.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEVELS = 65_535
_WHITE = 255  # of 8 bits
_MOST_VALUES = 24_000_000  # of one picture
_MOST_STACKED = 8_000_000  # of all frames: decoding them must not take much longer than decoding one
_MOST_FRAMES = 1_000  # each takes a millisecond, however small it is


def read_stack(data: bytes, decoded: DecodedFrame, *, limits: DecodeLimits) -> Volume | None:
    """The gray values of every frame of a file, each axis as stored.

    Args:
        data: The file's bytes.
        decoded: What `decode_image` made of it.
        limits: Limits that are checked before decoding.

    Returns:
        The values; None for pictures of 8 bits or in color, for NIfTI and pages of a TIFF, and where there are too
        many values.
    """
    if decoded.pixels.shape[2] != 1 or is_nifti(data):
        return None
    try:
        if is_dicom(data):
            with suppress_warnings("pydicom"):
                return _dicom_stack(data, decoded, limits)
        if decoded.frames > 1:
            return None
        values = wide_values(data, max_pixels=min(limits.pixels, _MOST_VALUES))
    except (*DECODER_ERRORS, ImageError):  # the picture itself was decoded: only its values are not stored
        return None
    if values is None:
        return None
    return _volume(values[0][None], decoded, inverted=values[1])


def storable(volume: Volume) -> Volume:
    """A volume whose values take at most 16 bits and lie in memory slice by slice; fractions keep 1 / 65,535 of their
    range."""
    values: NDArray[Any] = volume.values
    slope, intercept = volume.slope, volume.intercept
    if values.dtype.kind == "f":
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        slope, intercept = ((high - low) / _LEVELS or 1.0), low
        values = np.rint((np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / slope).astype(np.uint16)
    elif values.dtype.itemsize > 2 or values.dtype == np.int8:
        values = values.astype(np.int16)
    in_order = np.ascontiguousarray(values.transpose(2, 1, 0))
    return dataclasses.replace(volume, values=in_order.transpose(2, 1, 0), slope=slope, intercept=intercept)


def _dicom_stack(data: bytes, decoded: DecodedFrame, limits: DecodeLimits) -> Volume | None:
    from medical_vqa.data.imaging.dicom.slices import SliceReader  # noqa: PLC0415 - pydicom is an extra

    def read() -> bytes:
        return data

    rows, columns = int(decoded.header_fields["Rows"]), int(decoded.header_fields["Columns"])
    if decoded.frames > _MOST_FRAMES:
        return None
    if decoded.frames * rows * columns > (_MOST_VALUES if decoded.frames == 1 else _MOST_STACKED):
        return None
    reader = SliceReader("the file", limits)
    described = reader.description(read, decoded.frame)
    values = np.stack([reader.values(read, index) for index in range(decoded.frames)])
    volume = _volume(values, decoded, inverted=described.inverted, white=described.white)
    if decoded.window_source == "header":
        return dataclasses.replace(volume, function=described.function)
    return dataclasses.replace(volume, curve=described.curve) if decoded.window_source == "header LUT" else volume


def _volume(values: NDArray[Any], decoded: DecodedFrame, *, inverted: bool, white: int = _WHITE) -> Volume:
    """Values (frames, rows, columns) as a volume that is shown as it is stored, without a window up to `white`."""
    if values.dtype.kind not in "iu" or values.dtype.itemsize > 2:
        values = _whole_numbers(values)
    if decoded.spacing is None:  # nothing else would say that pixels are not square
        values = _of_size(values, (decoded.width, decoded.height))
    rows, columns = values.shape[1:]
    height, width = decoded.spacing or (1.0, 1.0)
    # The picture may have been resampled to square pixels: these are the sides of the stored ones.
    sides = height * decoded.height / rows, width * decoded.width / columns
    return Volume(
        values.transpose(2, 1, 0),
        (sides[1], sides[0], 1.0),
        "axial",
        decoded.window if decoded.window_source is not None else (white / 2, float(white)),
        facts=decoded.header_fields,
        format=decoded.format,
        inverted=inverted,
        warnings=decoded.warnings,
        burned_in_annotation=decoded.burned_in_annotation,
        located=False,
        measured=decoded.spacing is not None,
    )


def _of_size(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Values (frames, rows, columns) resampled to so many columns and rows."""
    if values.shape[2:0:-1] == size:
        return values
    frames = [Image.fromarray(frame.astype(np.float32)).resize(size, Image.Resampling.BILINEAR) for frame in values]
    resampled = np.stack([np.asarray(frame) for frame in frames])
    return resampled if values.dtype.kind == "f" else np.rint(resampled).astype(values.dtype)


def _whole_numbers(values: NDArray[Any]) -> NDArray[Any]:
    """Values of 16 bits where they are whole numbers that fit, else floats."""
    floats = values.astype(np.float32)
    if (np.rint(floats) != floats).any():
        return floats
    low, high = floats.min(), floats.max()
    for dtype in (np.int16, np.uint16):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return floats.astype(dtype)
    return floats

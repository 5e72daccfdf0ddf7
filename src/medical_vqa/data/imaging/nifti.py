"""NIfTI files: one slice as an 8-bit picture, turned as a radiologist looks at it, and nothing of the header."""

from __future__ import annotations

import gzip
import io
import math
from typing import Any, BinaryIO

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.orientations import OrientationError, aff2axcodes
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from medical_vqa.data.imaging.decoded import Ingested, IngestLimits
from medical_vqa.data.imaging.pictures import DECODER_ERRORS, check_size
from medical_vqa.data.imaging.quiet import quiet
from medical_vqa.data.imaging.windowing import percentile_range, ramp, to_8_bits
from medical_vqa.errors import ImageError, TooLargeError, UnsupportedImageError

_PIECE = 1 << 20  # bytes inflated and thrown away at once on the way to a slice
_SIZES: dict[int, Any] = {348: Nifti1Header, 540: Nifti2Header}
# Which end of an axis comes first on the screen: head up, face up or left, the patient's right on the left.
_TOWARDS_LARGER = {"S": False, "I": True, "A": False, "P": True, "R": False, "L": True}


def read_nifti(
    data: bytes,
    name: str,
    *,
    limits: IngestLimits,
    frame: int | None = None,
    window: tuple[float, float] | None = None,
) -> Ingested:
    """One slice along the third axis; slices of a series in time are counted on.

    By default the middle slice of the first volume. Values are scaled as the header says and go through `window`
    (center, width), by default from the 0.5th to the 99.5th percentile of the slice. Of a compressed file as much is
    inflated as lies before the slice's end, piece by piece; the volume is never held.

    Raises:
        TooLargeError: Over a limit, by the header.
        UnsupportedImageError: Pixels in another file, complex numbers, or something else that gzip has compressed.
        ImageError: Damaged, truncated, no such slice, or a window for a color picture.
    """
    try:
        with quiet("nibabel.global"):
            return _read(data, name, limits, frame, window)
    except (
        *DECODER_ERRORS,
        HeaderDataError,
        HeaderTypeError,
        OrientationError,
        WrapStructError,
    ) as error:  # its text may quote the header
        raise ImageError(
            f"{name}: expected a whole NIfTI volume, but it cannot be decoded; export the file again"
        ) from error


def _read(
    data: bytes, name: str, limits: IngestLimits, index: int | None, window: tuple[float, float] | None
) -> Ingested:
    zipped = data.startswith(b"\x1f\x8b")
    stream: BinaryIO = gzip.GzipFile(fileobj=io.BytesIO(data)) if zipped else io.BytesIO(data)  # type: ignore[assignment]
    header = _header(stream, name)
    frames = _check(header, name, limits)
    chosen = int(header.get_data_shape()[2]) // 2 if index is None and len(header.get_data_shape()) > 2 else index or 0
    if not 0 <= chosen < frames:
        raise ImageError(f"{name}: has no frame {chosen}; the frames are 0 to {frames - 1}")
    values = _upright(_slice(stream, header, chosen, name, limits), header)  # (rows, columns), and 3 of a color picture
    picture, used = _shown(values, header, name, window)
    dropped = ("NIfTI header", "other frames") if frames > 1 else ("NIfTI header",)
    facts = {"Rows": str(values.shape[0]), "Columns": str(values.shape[1])}
    return Ingested(picture, "NIFTI", dropped, facts=facts, frame=chosen, frames=frames, window=used)


def _header(stream: BinaryIO, name: str) -> Nifti1Header:
    start = stream.read(348)
    size = next((size for size in _SIZES if size in (_int(start, "little"), _int(start, "big"))), None)
    if size is None:
        raise UnsupportedImageError(f"{name}: expected a NIfTI volume in the gzip file, got something else; unpack it")
    header: Nifti1Header = _SIZES[size](start + stream.read(size - 348), check=False)
    if bytes(header["magic"])[:3] in (b"ni1", b"ni2"):
        raise UnsupportedImageError(f"{name}: is a NIfTI header whose pixels are in another file; join them into .nii")
    if bytes(header["magic"])[:3] not in (b"n+1", b"n+2"):
        raise UnsupportedImageError(f"{name}: expected a NIfTI volume, got something like Analyze; convert it to NIfTI")
    return header


def _int(start: bytes, order: Any) -> int:
    return int.from_bytes(start[:4], order)


def _check(header: Nifti1Header, name: str, limits: IngestLimits) -> int:
    """The number of slices; raises where the header claims too much."""
    shape = [int(size) for size in header.get_data_shape()]
    if len(shape) < 2 or min(shape) < 1:
        raise ImageError(f"{name}: expected a NIfTI volume, got one of {len(shape)} axes; give two or more")
    check_size((shape[0], shape[1]), name, limits.pixels)
    frames = math.prod(shape[2:])
    if frames > limits.frames:
        raise TooLargeError(f"{name}: has {frames:,} slices; give a part of at most {limits.frames:,}")
    return frames


def _slice(stream: BinaryIO, header: Nifti1Header, index: int, name: str, limits: IngestLimits) -> NDArray[Any]:
    """The stored values of one slice, (first axis, second axis); the file has the first axis run fastest."""
    dtype, shape = header.get_data_dtype(), tuple(int(size) for size in header.get_data_shape()[:2])
    if dtype.kind not in "iufV" or dtype.itemsize > 8:
        raise UnsupportedImageError(f"{name}: has voxels of type {dtype}; convert them to real numbers")
    size = dtype.itemsize * math.prod(shape)
    start = max(int(header.get_data_offset()), int(header.sizeof_hdr)) + index * size
    if start + size > limits.inflated_bytes:
        raise TooLargeError(
            f"{name}: frame {index} lies {start + size:,} bytes into the volume; give a part of the volume"
        )
    _skip(stream, start - stream.tell())
    values = np.frombuffer(stream.read(size), dtype=dtype)
    return values.reshape(shape, order="F")


def _skip(stream: BinaryIO, size: int) -> None:
    while size > 0 and (piece := stream.read(min(size, _PIECE))):
        size -= len(piece)


def _upright(values: NDArray[Any], header: Nifti1Header) -> NDArray[Any]:
    """Rows from the top of the screen, columns from its left: head or face up, the patient's right on the left."""
    first, second = aff2axcodes(header.get_best_affine())[:2]
    if first in ("S", "I") or (first in ("A", "P") and second in ("R", "L")):
        rows, columns = first, second
    else:
        values, rows, columns = values.T, second, first
    values = values if _TOWARDS_LARGER.get(str(rows), True) else values[::-1]
    return values if _TOWARDS_LARGER.get(str(columns), True) else values[:, ::-1]


def _shown(
    values: NDArray[Any], header: Nifti1Header, name: str, window: tuple[float, float] | None
) -> tuple[NDArray[np.uint8], tuple[float, float] | None]:
    if values.dtype.names:
        if window is not None:
            raise ImageError(f"{name}: a window is for gray pictures, and this one has colors; leave it out")
        return np.stack([values[channel] for channel in ("R", "G", "B")], axis=-1), None
    scale = header.get_slope_inter()
    slope, intercept = (1.0, 0.0) if scale[0] is None else (float(scale[0]), float(scale[1]))
    low, high = sorted(slope * end + intercept for end in percentile_range(values))
    if window is not None:
        low, high = window[0] - window[1] / 2, window[0] + window[1] / 2
    shade = ramp(low, high)
    return to_8_bits(values, lambda strip: shade(strip * slope + intercept)), ((low + high) / 2, high - low)

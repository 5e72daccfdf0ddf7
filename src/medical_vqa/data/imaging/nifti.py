"""NIfTI files: the pixels of one slice in 8 bits, in radiological orientation, and nothing of the header."""

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

from medical_vqa.data.imaging.decoded_frame import DecodedFrame, DecodeLimits
from medical_vqa.data.imaging.geometry import Spacing, valid_spacing
from medical_vqa.data.imaging.planes import squared
from medical_vqa.data.imaging.raster import DECODER_ERRORS, check_size
from medical_vqa.data.imaging.recognition import describe_unsupported, is_dicom
from medical_vqa.data.imaging.suppress_warnings import suppress_warnings
from medical_vqa.data.imaging.windowing import percentile_range, ramp, to_8_bits, window_ends
from medical_vqa.errors import ImageError, TooLargeError, UnsupportedImageError

NIFTI_ERRORS = (HeaderDataError, HeaderTypeError, OrientationError, WrapStructError)
"""What nibabel raises on damaged headers, in addition to `DECODER_ERRORS`."""
NOT_LOCATED = "the file does not state how it lies in the patient: right and left, or head and feet, may be swapped"
"""The warning of a file without qform and sform."""
_PIECE = 1 << 20  # bytes inflated and discarded at once before a slice
_HEADERS: dict[int, Any] = {348: Nifti1Header, 540: Nifti2Header}
_PLANES = {"R": "sagittal", "L": "sagittal", "A": "coronal", "P": "coronal", "S": "axial", "I": "axial"}
_MILLIMETERS = {"meter": 1000.0, "micron": 0.001}  # a header that names no unit means millimeters, as in ITK
# Whether the screen shows an axis in its own direction: head up, face up or left, the patient's right on the left.
_SAME_DIRECTION = {"S": False, "I": True, "A": False, "P": True, "R": False, "L": True}


def read_nifti(
    data: bytes,
    name: str,
    *,
    limits: DecodeLimits,
    frame: int | None = None,
    window: tuple[float, float] | None = None,
) -> DecodedFrame:
    """Decode one slice along the third axis.

    Values are scaled as the header states and mapped by `window`, by default from the 0.5th to the 99.5th percentile of
    the slice. A compressed file is inflated in pieces up to the slice's end; the volume is never held.

    Args:
        data: The file's bytes.
        name: What messages call the image.
        limits: Limits that are checked by the header.
        frame: The slice, from 0, counted on through the volumes of a time series; by default the middle one of the
            first volume.
        window: Center and width of the values to show.

    Raises:
        TooLargeError: A limit is exceeded.
        UnsupportedImageError: Pixels in another file, complex numbers, or a gzip file of something else.
        ImageError: Damaged, truncated, no such slice, or a window for a color image.
    """
    try:
        with suppress_warnings("nibabel.global"):
            return _read(data, name, limits, frame, window)
    except (*DECODER_ERRORS, *NIFTI_ERRORS) as error:  # its text may quote the header
        raise ImageError(
            f"{name}: expected a whole NIfTI volume, but it cannot be decoded; export the file again"
        ) from error


def _read(
    data: bytes, name: str, limits: DecodeLimits, index: int | None, window: tuple[float, float] | None
) -> DecodedFrame:
    zipped = data.startswith(b"\x1f\x8b")
    stream: BinaryIO = gzip.GzipFile(fileobj=io.BytesIO(data)) if zipped else io.BytesIO(data)  # type: ignore[assignment]
    header = _header(stream, name)
    frames = _check(header, name, limits)
    affine = affine_of(header, name)
    if index is None:
        shape = header.get_data_shape()
        index = int(shape[2]) // 2 if len(shape) > 2 else 0
    if not 0 <= index < frames:
        raise ImageError(f"{name}: has no frame {index}; the frames are 0 to {frames - 1}")
    values = _slice(stream, header, index, name, limits)  # (first axis, second axis), structured for RGB
    pixels, used_window = _to_pixels(_upright(values, header), header, name, window)
    rows, columns = pixels.shape[:2]
    spacing = _spacing(header)
    pixels, spacing = squared(pixels, spacing, spacing, max_pixels=limits.pixels)
    return DecodedFrame(
        pixels,
        "NIFTI",
        removed_metadata=("NIfTI header", "other frames") if frames > 1 else ("NIfTI header",),
        header_fields={"Rows": str(rows), "Columns": str(columns)},
        frame=index,
        frames=frames,
        window=used_window,
        spacing=spacing,
        window_source=None if used_window is None else "option" if window else "percentiles",
        plane=_PLANES[str(aff2axcodes(affine)[2])] if is_located(header) else None,
        warnings=() if is_located(header) else (NOT_LOCATED,),
    )


def affine_of(header: Nifti1Header, name: str) -> NDArray[np.float64]:
    """Steps along the stored axes in millimeters, to the patient's right, front and head; raises `ImageError`."""
    affine = np.asarray(header.get_best_affine(), float)
    if not np.isfinite(affine).all() or not (np.linalg.norm(affine[:3, :3], axis=0) > 0).all():
        raise ImageError(
            f"{name}: expected an orientation and sizes of voxels in the NIfTI header (qform, sform, pixdim), got "
            "numbers that are none; export the file again"
        )
    affine[:3] *= _MILLIMETERS.get(header.get_xyzt_units()[0], 1.0)
    return affine


def is_located(header: Nifti1Header) -> bool:
    """Whether the header states how the volume lies in the patient: method 1 of the standard is no orientation."""
    return int(header["qform_code"]) > 0 or int(header["sform_code"]) > 0


def _header(stream: BinaryIO, name: str) -> Nifti1Header:
    start = stream.read(348)
    sizes = {int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")}
    size = next((size for size in _HEADERS if size in sizes), None)
    if size is None:
        start += stream.read(_PIECE)
        what, advice = describe_unsupported(start) or ("something else", "unpack it")
        if is_dicom(start):
            what, advice = "a DICOM file", "unpack it"
        raise UnsupportedImageError(f"{name}: expected a NIfTI volume in the gzip file, got {what}; {advice}")
    header: Nifti1Header = _HEADERS[size](start + stream.read(size - 348), check=False)
    if bytes(header["magic"])[:3] in (b"ni1", b"ni2"):
        raise UnsupportedImageError(f"{name}: is a NIfTI header whose pixels are in another file; join them into .nii")
    if bytes(header["magic"])[:3] not in (b"n+1", b"n+2"):
        raise UnsupportedImageError(
            f"{name}: expected a NIfTI volume, got the header of an Analyze 7.5 volume; convert both files to NIfTI"
        )
    return header


def _check(header: Nifti1Header, name: str, limits: DecodeLimits) -> int:
    """The number of slices; raises where the header states too much."""
    shape = [int(size) for size in header.get_data_shape()]
    if len(shape) < 2 or min(shape) < 1:
        raise ImageError(f"{name}: expected a NIfTI volume, got one of {len(shape)} axes; give two or more")
    check_size((shape[0], shape[1]), name, limits.pixels, limits.advice("pixels"))
    frames = math.prod(shape[2:])
    if frames > limits.frames:
        raise TooLargeError(
            f"{name}: has {frames:,} slices; give a part of at most {limits.frames:,}{limits.advice('frames')}"
        )
    return frames


def _slice(stream: BinaryIO, header: Nifti1Header, index: int, name: str, limits: DecodeLimits) -> NDArray[Any]:
    """The stored values of one slice, (first axis, second axis); the first axis is contiguous in the file."""
    dtype, shape = header.get_data_dtype(), tuple(int(size) for size in header.get_data_shape()[:2])
    if dtype.kind not in "iufV" or dtype.itemsize > 8:
        raise UnsupportedImageError(f"{name}: has voxels of type {dtype}; convert them to real numbers")
    size = dtype.itemsize * math.prod(shape)
    start = max(int(header.get_data_offset()), int(header.sizeof_hdr)) + index * size
    if start + size > limits.inflated_bytes:
        raise TooLargeError(
            f"{name}: frame {index} ends {start + size:,} bytes into the volume; give a part of the volume"
            f"{limits.advice('inflated_bytes')}"
        )
    if isinstance(stream, gzip.GzipFile):
        limits.spend(start + size, name)
    before = start - stream.tell()
    while before > 0 and (piece := stream.read(min(before, _PIECE))):
        before -= len(piece)
    values = np.frombuffer(stream.read(size), dtype=dtype)
    return values.reshape(shape, order="F")


def _upright(values: NDArray[Any], header: Nifti1Header) -> NDArray[Any]:
    """Rows from the top and columns from the left of the screen: head or face up, the patient's right on the left."""
    first, second = aff2axcodes(header.get_best_affine())[:2]
    if _first_axis_is_vertical(header):
        rows, columns = first, second
    else:
        values, rows, columns = values.T, second, first
    values = values if _SAME_DIRECTION.get(str(rows), True) else values[::-1]
    return values if _SAME_DIRECTION.get(str(columns), True) else values[:, ::-1]


def _first_axis_is_vertical(header: Nifti1Header) -> bool:
    """Whether the screen shows the first axis from top to bottom, and not from left to right."""
    first, second = aff2axcodes(header.get_best_affine())[:2]
    return first in ("S", "I") or (first in ("A", "P") and second in ("R", "L"))


def _spacing(header: Nifti1Header) -> Spacing | None:
    scale = _MILLIMETERS.get(header.get_xyzt_units()[0], 1.0)
    first, second = (scale * float(zoom) for zoom in header.get_zooms()[:2])
    return valid_spacing((first, second) if _first_axis_is_vertical(header) else (second, first))


def _to_pixels(
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
        low, high = window_ends(window)
    brightness = ramp(low, high)
    pixels = to_8_bits(values, lambda strip: brightness(strip * slope + intercept))
    return pixels, ((low + high) / 2, high - low)

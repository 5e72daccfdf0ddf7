"""Decoding of an image file of any supported format: recognized by content, within limits, header removed.

Every input gives a `DecodedFrame` or an `ImageError`, within the memory that `DecodeLimits` allow.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from medical_vqa.data.imaging.decoded_frame import DecodedFrame, DecodeLimits
from medical_vqa.data.imaging.raster import decode_raster, read_image_file
from medical_vqa.data.imaging.recognition import is_dicom, is_nifti
from medical_vqa.errors import ImageError, TooLargeError, UnsupportedImageError

UPLOAD_LIMITS = DecodeLimits()
"""For files from strangers."""
LOCAL_LIMITS = DecodeLimits(file_bytes=4_000_000_000, frames=1_000_000, inflated_bytes=64_000_000_000)
"""For your own files on your own machine."""


def decode_image(
    data: bytes,
    *,
    limits: DecodeLimits = UPLOAD_LIMITS,
    frame: int | None = None,
    window: tuple[float, float] | None = None,
    name: str = "the image",
) -> DecodedFrame:
    """Decode one frame of an image file.

    Args:
        data: The file's bytes, of any format in `DecodedFrame.format`.
        limits: Limits that are checked before decoding.
        frame: Frame, slice or page, from 0; by default the middle one.
        window: Center and width of the values to show, for gray values of more than 8 bits; by default those of the
            header, else the 0.5th to the 99.5th percentile.
        name: What messages call the image.

    Raises:
        TooLargeError: A limit is exceeded.
        UnsupportedImageError: A known format or DICOM transfer syntax that is not supported, or needs an extra.
        ImageError: Other or damaged data, there is no such frame, or the window makes no sense.
    """
    if len(data) > limits.file_bytes:
        raise TooLargeError(
            f"{name}: has {len(data):,} bytes; give a file of at most {limits.file_bytes / 1e6:g} million bytes"
            f"{limits.advice('file_bytes')}"
        )
    check_window(window, name)
    decoded = _decoded(data, name, limits, frame, window)
    if decoded.pixels.min() == decoded.pixels.max():
        return replace(decoded, warnings=(*decoded.warnings, "every pixel of the picture has the same value"))
    return decoded


def check_window(window: tuple[float, float] | None, name: str = "the window") -> None:
    """Raise `ImageError` for a window that is not finite or has no width."""
    if window is None:
        return
    center, width = window
    if not (math.isfinite(center) and math.isfinite(width) and width > 0):
        raise ImageError(
            f"{name}: expected a window of a finite center and a width above 0, got {center:g} {width:g}; correct it"
        )


def _decoded(
    data: bytes, name: str, limits: DecodeLimits, frame: int | None, window: tuple[float, float] | None
) -> DecodedFrame:
    try:
        if is_dicom(data):
            from medical_vqa.data.imaging.dicom.read import read_dicom  # noqa: PLC0415 - pydicom is an extra

            return read_dicom(data, name, limits=limits, frame=frame, window=window)
        if is_nifti(data):
            from medical_vqa.data.imaging.nifti import read_nifti  # noqa: PLC0415 - nibabel is an extra

            return read_nifti(data, name, limits=limits, frame=frame, window=window)
    except ModuleNotFoundError as error:
        file_format = "DICOM" if is_dicom(data) else "NIfTI"
        raise UnsupportedImageError(
            f"{name}: is {file_format}, which needs the package {error.name}; run: pip install 'medical-vqa[dicom]'"
        ) from error
    raster = decode_raster(
        data,
        name,
        max_pixels=limits.pixels,
        max_pages=limits.frames,
        page=frame,
        window=window,
        advice={key: limits.advice(key) for key in limits.settings},
    )
    return DecodedFrame(
        raster.pixels,
        raster.format,
        raster.removed_metadata,
        frame=raster.page,
        frames=raster.pages,
        window=raster.window,
        window_source=None if raster.window is None else "option" if window else "percentiles",
    )


def decode_image_file(
    path: Path,
    *,
    frame: int | None = None,
    window: tuple[float, float] | None = None,
    limits: DecodeLimits = LOCAL_LIMITS,
) -> DecodedFrame:
    """`decode_image` of a local file; raises `ImageError` also where it is missing or not a file."""
    return decode_image(read_image_file(path), limits=limits, frame=frame, window=window, name=str(path))

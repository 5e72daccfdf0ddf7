"""Decoding of an image file of any supported format: recognized by content, within limits, header removed.

Every input gives a `DecodedFrame` or an `ImageError`, within the memory that `DecodeLimits` allow.
"""

from __future__ import annotations

import io
from pathlib import Path

from medical_vqa.data.imaging.decoded_frame import DecodedFrame, DecodeLimits
from medical_vqa.data.imaging.raster import decode_raster, read_image_file
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
        frame: Frame, slice or page, from 0; by default the first, of a NIfTI volume the middle slice.
        window: Center and width of the values to show, for DICOM and NIfTI; by default those of the header.
        name: What messages call the image.

    Raises:
        TooLargeError: A limit is exceeded.
        UnsupportedImageError: A known format or DICOM transfer syntax that is not supported, or needs an extra.
        ImageError: Other or damaged data, or there is no such frame.
    """
    if len(data) > limits.file_bytes:
        raise TooLargeError(
            f"{name}: has {len(data):,} bytes; give a file of at most {limits.file_bytes / 1e6:g} million bytes"
        )
    try:
        if is_dicom(data):
            from medical_vqa.data.imaging.dicom import read_dicom  # noqa: PLC0415 - pydicom is an extra

            return read_dicom(data, name, limits=limits, frame=frame or 0, window=window)
        if is_nifti(data):
            from medical_vqa.data.imaging.nifti import read_nifti  # noqa: PLC0415 - nibabel is an extra

            return read_nifti(data, name, limits=limits, frame=frame, window=window)
    except ModuleNotFoundError as error:
        file_format = "DICOM" if is_dicom(data) else "NIfTI"
        raise UnsupportedImageError(
            f"{name}: is {file_format}, which needs the package {error.name}; run: pip install 'medical-vqa[dicom]'"
        ) from error
    if window is not None:
        raise ImageError(f"{name}: a window is for DICOM and NIfTI; leave it out")
    page = frame or 0
    raster = decode_raster(data, name, max_pixels=limits.pixels, max_pages=limits.frames, page=page)
    return DecodedFrame(raster.pixels, raster.format, raster.removed_metadata, frame=page, frames=raster.pages)


def decode_image_file(
    path: Path,
    *,
    frame: int | None = None,
    window: tuple[float, float] | None = None,
    limits: DecodeLimits = LOCAL_LIMITS,
) -> DecodedFrame:
    """`decode_image` of a local file; raises `ImageError` also where it is missing or not a file."""
    return decode_image(read_image_file(path), limits=limits, frame=frame, window=window, name=str(path))


def raster_bytes(path: Path) -> bytes:
    """The bytes of an image file, unchanged; for DICOM and NIfTI its frame as PNG. Raises like `decode_image_file`."""
    data = read_image_file(path)
    if not is_dicom(data) and not is_nifti(data):
        return data
    out = io.BytesIO()
    decode_image(data, limits=LOCAL_LIMITS, name=str(path)).image.save(out, "PNG")
    return out.getvalue()


def is_dicom(data: bytes) -> bool:
    """Whether these are the bytes of a DICOM file, with its 128 bytes of preamble or without."""
    return data[128:132] == b"DICM" or data.startswith(b"\x02\x00\x00\x00UL\x04\x00")


def is_nifti(data: bytes) -> bool:
    """Whether these are the bytes of a NIfTI file, or of a gzip file, as which NIfTI files are compressed."""
    return data.startswith(b"\x1f\x8b") or data[344:347] in (b"n+1", b"ni1") or data[4:7] in (b"n+2", b"ni2")

"""From the bytes of an upload to a picture and nothing else: sniffed by content, bounded, header dropped.

Whatever comes in, an `Ingested` or an `ImageError` comes out, and memory stays within what `IngestLimits` allows.
"""

from __future__ import annotations

import io
from pathlib import Path

from medical_vqa.data.imaging.decoded import Ingested, IngestLimits
from medical_vqa.data.imaging.pictures import decode, read_image_file
from medical_vqa.errors import ImageError, TooLargeError, UnsupportedImageError

__all__ = [
    "DEFAULT",
    "LOCAL",
    "IngestLimits",
    "Ingested",
    "ingest",
    "ingest_file",
    "is_dicom",
    "is_nifti",
    "picture_bytes",
]

DEFAULT = IngestLimits()
"""For files that strangers send."""
LOCAL = IngestLimits(file_bytes=4_000_000_000, frames=1_000_000, inflated_bytes=64_000_000_000)
"""For files of one's own on one's own machine."""


def ingest(
    data: bytes,
    *,
    limits: IngestLimits = DEFAULT,
    frame: int | None = None,
    window: tuple[float, float] | None = None,
    name: str = "the image",
) -> Ingested:
    """Decode an upload.

    Args:
        data: The file's bytes, of any format in `Ingested.format`.
        limits: What is refused before it is decoded.
        frame: Frame, slice or page, from 0. By default the first; of a NIfTI volume the middle slice.
        window: Center and width of the values to show, for DICOM and NIfTI. By default what the header says.
        name: What the message calls the picture.

    Raises:
        TooLargeError: Over a limit.
        UnsupportedImageError: A known format or DICOM transfer syntax that is not read, or not without an extra.
        ImageError: Anything else that is not a whole picture, or has no such frame.
    """
    if len(data) > limits.file_bytes:
        raise TooLargeError(
            f"{name}: has {len(data):,} bytes; give a file of at most {limits.file_bytes / 1e6:g} million bytes"
        )
    if is_dicom(data):
        return _dicom(data, name, limits, frame, window)
    if is_nifti(data):
        return _nifti(data, name, limits, frame, window)
    if window is not None:
        raise ImageError(f"{name}: a window is for DICOM and NIfTI; leave it out")
    found = decode(data, name, max_pixels=limits.pixels, max_pages=limits.frames, page=frame or 0)
    return Ingested(found.pixels, found.format, found.dropped, frame=frame or 0, frames=found.pages)


def ingest_file(
    path: Path, *, frame: int | None = None, window: tuple[float, float] | None = None, limits: IngestLimits = LOCAL
) -> Ingested:
    """`ingest` on a file of one's own; raises `ImageError` also where it is missing or not a file."""
    return ingest(read_image_file(path), limits=limits, frame=frame, window=window, name=str(path))


def picture_bytes(path: Path) -> bytes:
    """The bytes of a picture file as they are; of DICOM and NIfTI the picture as PNG. Raises like `ingest_file`."""
    data = read_image_file(path)
    if not is_dicom(data) and not is_nifti(data):
        return data
    out = io.BytesIO()
    ingest(data, limits=LOCAL, name=str(path)).image.save(out, "PNG")
    return out.getvalue()


def is_dicom(data: bytes) -> bool:
    """Whether these are the bytes of a DICOM file, with its 128 bytes of preamble or without."""
    return data[128:132] == b"DICM" or data.startswith(b"\x02\x00\x00\x00UL\x04\x00")


def is_nifti(data: bytes) -> bool:
    """Whether these are the bytes of a NIfTI file, or of something that was compressed with gzip as NIfTI files are."""
    return data.startswith(b"\x1f\x8b") or data[344:347] in (b"n+1", b"ni1") or data[4:7] in (b"n+2", b"ni2")


def _dicom(
    data: bytes, name: str, limits: IngestLimits, frame: int | None, window: tuple[float, float] | None
) -> Ingested:
    try:
        from medical_vqa.data.imaging.dicom import read_dicom  # noqa: PLC0415 - pydicom is an extra
    except ModuleNotFoundError as error:
        raise _lacking(name, "DICOM", error) from error
    return read_dicom(data, name, limits=limits, frame=frame or 0, window=window)


def _nifti(
    data: bytes, name: str, limits: IngestLimits, frame: int | None, window: tuple[float, float] | None
) -> Ingested:
    try:
        from medical_vqa.data.imaging.nifti import read_nifti  # noqa: PLC0415 - nibabel is an extra
    except ModuleNotFoundError as error:
        raise _lacking(name, "NIfTI", error) from error
    return read_nifti(data, name, limits=limits, frame=frame, window=window)


def _lacking(name: str, kind: str, error: ModuleNotFoundError) -> UnsupportedImageError:
    return UnsupportedImageError(
        f"{name}: is {kind}, which needs the package {error.name}; run: pip install 'medical-vqa[dicom]'"
    )

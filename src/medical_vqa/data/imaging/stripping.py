"""Image files without anything but their picture: EXIF, comments, text and trailing bytes removed."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from medical_vqa.data.imaging.containers import MAX_PIECES, end_of
from medical_vqa.data.imaging.decode import LOCAL_LIMITS, decode_image
from medical_vqa.data.imaging.raster import DECODER_ERRORS, read_image_file
from medical_vqa.data.imaging.recognition import is_dicom, is_nifti

if TYPE_CHECKING:
    from medical_vqa.data.imaging.decoded_frame import DecodedFrame

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_COMMENT, _START_OF_SCAN = 0xFE, 0xDA
_KEPT_APPLICATION_DATA = (0xE0, 0xEE)  # JFIF, and Adobe's, which states the color transform


def stripped(data: bytes, name: str, *, frame: int | None = None, window: tuple[float, float] | None = None) -> bytes:
    """The picture of an image file, and nothing else of it.

    A JPEG or PNG keeps its compressed pixels; without metadata it is unchanged. Every other format, and a picture that
    its EXIF data rotate, becomes PNG with the pixels that `decode_image` shows.

    Args:
        data: The file's bytes.
        name: What messages call the image.
        frame: Frame, slice or page, from 0; by default that of `decode_image`.
        window: Center and width of the values to show.

    Raises:
        ImageError: The file cannot be read.
    """
    if frame in (None, 0) and window is None and data.startswith((_JPEG, _PNG)):
        try:
            with Image.open(io.BytesIO(data), formats=["JPEG", "PNG"]) as image:
                upright = image.getexif().get(0x0112, 1) == 1
            if upright:
                return _jpeg_without_metadata(data) if data.startswith(_JPEG) else _png_without_metadata(data)
        except DECODER_ERRORS:  # `decode_image` says what is wrong
            pass
    return png_of(decode_image(data, limits=LOCAL_LIMITS, frame=frame, window=window, name=name))


def raster_bytes(path: Path) -> bytes:
    """The bytes of a published image file, unchanged; of DICOM and NIfTI the picture as PNG. Raises `ImageError`."""
    data = read_image_file(path)
    return stripped(data, str(path)) if is_dicom(data) or is_nifti(data) else data


def png_of(decoded: DecodedFrame) -> bytes:
    """A decoded frame as PNG."""
    out = io.BytesIO()
    decoded.image.save(out, "PNG")
    return out.getvalue()


def _jpeg_without_metadata(data: bytes) -> bytes:
    parts, at = [data[:2]], 2
    for _ in range(MAX_PIECES):
        marker = data[at + 1]
        if data[at] != 0xFF or marker == _START_OF_SCAN:
            return b"".join(parts) + data[at : end_of(data)]
        end = at + 2 + int(struct.unpack_from(">H", data, at + 2)[0])
        metadata = 0xE0 <= marker <= 0xEF and marker not in _KEPT_APPLICATION_DATA
        if not metadata and marker != _COMMENT:
            parts.append(data[at:end])
        at = end
    raise ValueError(f"more than {MAX_PIECES:,} segments")


def _png_without_metadata(data: bytes) -> bytes:
    parts, at = [_PNG], len(_PNG)
    for _ in range(MAX_PIECES):
        end = at + 12 + int(struct.unpack_from(">I", data, at)[0])
        kind = data[at + 4 : at + 8]
        if kind in _PNG_CHUNKS:
            parts.append(data[at:end])
        if kind == b"IEND":
            return b"".join(parts)
        at = end
    raise ValueError(f"more than {MAX_PIECES:,} chunks")

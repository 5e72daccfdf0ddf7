"""From the bytes of an upload to a picture and nothing else: sniffed by content, bounded, header dropped.

Whatever comes in, an `Ingested` or an `ImageError` comes out, and memory stays within what `IngestLimits` allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa.data.images import MAX_PIXELS, as_image, decode, read_image_file
from medical_vqa.errors import ImageError, TooLargeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


@dataclass(frozen=True, slots=True)
class IngestLimits:
    """What is refused before it is decoded."""

    file_bytes: int = 20_000_000
    """Of the upload as it comes."""
    pixels: int = MAX_PIXELS
    """Width times height of one frame."""
    frames: int = 4096
    """Frames of a DICOM object, slices of a NIfTI volume, pages of a TIFF."""
    inflated_bytes: int = 1_000_000_000
    """What a compressed NIfTI file may come to; it is inflated piece by piece and never held."""


LOCAL = IngestLimits(file_bytes=4_000_000_000, frames=1_000_000, inflated_bytes=64_000_000_000)
"""For files of one's own on one's own machine."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """One upload as the picture that it shows, with nothing that could tell whose it is."""

    picture: NDArray[np.uint8]
    """(height, width, channels): one channel for grey, three for RGB; upright, 8 bits."""
    format: str
    """Of the upload: ``JPEG``, ``PNG``, ``BMP``, ``TIFF``, ``WEBP``, ``GIF``, ``DICOM`` or ``NIFTI``."""
    dropped: tuple[str, ...] = ()
    """What was not kept: ``EXIF``, ``ICC profile``, ``comment``, ``trailing bytes``, ``DICOM header`` ..."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Of a DICOM header what is on the allow-list: Modality, BodyPartExamined, ViewPosition, Rows, Columns."""
    burned_in: bool | None = None
    """Whether a DICOM header says that words are part of the picture; None where it says nothing."""
    frames: int = 1
    """How many can be asked for with ``frame``; of an animation only the first can."""
    window: tuple[float, float] | None = None
    """Centre and width of the values that were spread over 0..255; None where the pixels came as they are."""

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.picture.shape[1])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.picture.shape[0])

    @property
    def image(self) -> Image.Image:
        """The picture as `prepare_picture` takes it."""
        return as_image(self.picture)


def ingest(
    data: bytes,
    *,
    limits: IngestLimits = IngestLimits(),
    frame: int | None = None,
    window: tuple[float, float] | None = None,
    name: str = "the image",
) -> Ingested:
    """Decode an upload.

    Args:
        data: The file's bytes, of any format in `Ingested.format`.
        limits: What is refused before it is decoded.
        frame: Frame, slice or page, from 0. By default the first; of a NIfTI volume the middle slice.
        window: Centre and width of the values to show, for DICOM and NIfTI. By default what the header says.
        name: What the message calls the picture.

    Raises:
        TooLargeError: Over a limit.
        UnsupportedImageError: A known format or DICOM transfer syntax that is not read.
        ImageError: Anything else that is not a whole picture, or has no such frame.
        MissingDependencyError: DICOM or NIfTI without the extra ``dicom``.
    """
    if len(data) > limits.file_bytes:
        raise TooLargeError(
            f"{name}: has {len(data):,} bytes; give a file of at most {limits.file_bytes / 1e6:g} million bytes"
        )
    if window is not None:
        raise ImageError(f"{name}: a window is for DICOM and NIfTI; leave it out")
    found = decode(data, name, max_pixels=limits.pixels, max_pages=limits.frames, page=frame or 0)
    return Ingested(found.pixels, found.format, found.dropped, frames=found.pages)


def ingest_file(
    path: Path, *, frame: int | None = None, window: tuple[float, float] | None = None, limits: IngestLimits = LOCAL
) -> Ingested:
    """`ingest` on a file of one's own; raises `ImageError` also where it is missing or not a file."""
    return ingest(read_image_file(path), limits=limits, frame=frame, window=window, name=str(path))

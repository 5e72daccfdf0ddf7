"""What comes out of an upload, and what bounds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from medical_vqa.data.imaging.pictures import MAX_PIXELS, as_image

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
    """Width times height of one frame; of a WebP 0.3 of it, because its decoder holds the canvas several times."""
    frames: int = 4096
    """Frames of a DICOM object, slices of a NIfTI volume, pages of a TIFF."""
    inflated_bytes: int = 1_000_000_000
    """What a compressed NIfTI file may come to; it is inflated piece by piece and never held."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """One upload as the picture that it shows, with nothing that could tell whose it is."""

    picture: NDArray[np.uint8]
    """(height, width, channels): one channel for gray, three for RGB; upright, 8 bits."""
    format: str
    """Of the upload: ``JPEG``, ``PNG``, ``BMP``, ``TIFF``, ``WEBP``, ``GIF``, ``DICOM`` or ``NIFTI``."""
    dropped: tuple[str, ...] = ()
    """What was not kept: ``EXIF``, ``ICC profile``, ``comment``, ``trailing bytes``, ``DICOM header`` ..."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Of a DICOM header what is on the allow-list: Modality, BodyPartExamined, ViewPosition, Rows, Columns."""
    burned_in: bool | None = None
    """Whether a DICOM header says that words are part of the picture; None where it says nothing."""
    frame: int = 0
    """Frame, slice or page that the picture shows, from 0."""
    frames: int = 1
    """How many can be asked for with ``frame``; of an animation only the first can."""
    window: tuple[float, float] | None = None
    """Center and width of the values that were spread over 0..255; None where the pixels came as they are."""

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

"""A decoded image file, `DecodedFrame`, and the limits of decoding: `DecodeLimits` and `ReadingBudget`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from medical_vqa.data.imaging.geometry import PictureGeometry, Spacing
from medical_vqa.data.imaging.raster import MAX_PIXELS, to_pillow
from medical_vqa.errors import TooLargeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


WindowSource = Literal["option", "header", "header LUT", "percentiles"]
"""Where a window came from: the caller, the header's window or lookup table, or percentiles of the values."""


@dataclass(slots=True)
class ReadingBudget:
    """What the files of one request may cost together, those that are then refused included."""

    inflated_bytes: int = sys.maxsize
    """Bytes that compressed files inflate to: deflated DICOM, NIfTI in gzip, members of zip archives."""
    elements: int = sys.maxsize
    """Elements and items of DICOM headers that are walked over."""
    inflated_bytes_left: int = field(init=False)
    """How many of the bytes are left; negative after the file that exceeded them."""
    elements_left: int = field(init=False)
    """How many of the elements are left."""

    def __post_init__(self) -> None:
        self.inflated_bytes_left = self.inflated_bytes
        self.elements_left = self.elements

    def renew(self, times: int) -> None:
        """Count anew, up to so many times as much: for further readings of files that were within the budget."""
        self.inflated_bytes *= times
        self.elements *= times
        self.__post_init__()


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Limits of a file, checked before it is decoded."""

    file_bytes: int = 20_000_000
    """Size of the file."""
    pixels: int = MAX_PIXELS
    """Width times height of one frame; 0.3 of it for a WebP, because its decoder holds the canvas several times."""
    frames: int = 4096
    """Frames of a DICOM object, slices of a NIfTI volume, pages of a TIFF."""
    inflated_bytes: int = 1_000_000_000
    """Size of an uncompressed NIfTI volume; a compressed one is inflated in pieces and never held."""
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Name of the setting that raises each limit, by the names above; empty where nothing raises them."""
    budget: ReadingBudget = field(default_factory=ReadingBudget, compare=False)
    """What all files of a request may cost together; by default the other limits, of each file, are the only ones."""

    def advice(self, limit: str) -> str:
        """What messages add about raising a limit: `` or raise NAME``; empty where nothing raises it."""
        return f" or raise {self.settings[limit]}" if limit in self.settings else ""

    def spend(self, inflated_bytes: int, name: str) -> None:
        """Count bytes that are inflated towards the budget; raises `TooLargeError` where they exceed it."""
        self.budget.inflated_bytes_left -= inflated_bytes
        if self.budget.inflated_bytes_left < 0:
            raise TooLargeError(
                f"{name}: belongs to a request whose compressed files inflate to more than "
                f"{self.budget.inflated_bytes / 1e6:,.0f} million bytes; send it in another one"
                f"{self.advice('inflated_bytes')}"
            )


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """The pixels of one frame of an image file, without anything that could identify a patient."""

    pixels: NDArray[np.uint8]
    """(height, width, channels): one channel for gray, three for RGB; upright, 8 bits."""
    format: str
    """Format of the file: ``JPEG``, ``PNG``, ``BMP``, ``TIFF``, ``WEBP``, ``GIF``, ``DICOM`` or ``NIFTI``."""
    removed_metadata: tuple[str, ...] = ()
    """Parts of the file that were removed: ``EXIF``, ``ICC profile``, ``comment``, ``DICOM header`` ..."""
    header_fields: Mapping[str, str] = field(default_factory=dict)
    """DICOM header fields on the allow-list: Modality, BodyPartExamined, ViewPosition, Rows, Columns."""
    burned_in_annotation: bool | None = None
    """Whether a DICOM header declares text burned into the pixels; None where it does not say."""
    frame: int = 0
    """Frame, slice or page of the pixels, from 0."""
    frames: int = 1
    """Number of frames that can be selected; 1 for an animation, of which only the first can."""
    window: tuple[float, float] | None = None
    """Center and width of the values that were mapped to 0..255; None where the pixels are unchanged."""
    spacing: Spacing | None = None
    """Distance of rows and of columns in millimeters; None where the file does not say. Of a radiograph without
    calibration it is measured at the detector, where the patient's shadow is larger than the patient."""
    window_source: WindowSource | None = None
    """Where the window came from; None where the pixels are unchanged."""
    plane: str | None = None
    """Plane nearest to the picture: ``axial``, ``coronal`` or ``sagittal``; None where the header does not say."""
    warnings: tuple[str, ...] = ()
    """Sentences on what could not be used, or what to be careful about; never a value of the header."""

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])

    @property
    def geometry(self) -> PictureGeometry:
        """Size and spacing."""
        return PictureGeometry(self.width, self.height, self.spacing)

    @property
    def image(self) -> Image.Image:
        """The pixels as a Pillow image, gray or RGB; input of `prepare_picture`."""
        return to_pillow(self.pixels)

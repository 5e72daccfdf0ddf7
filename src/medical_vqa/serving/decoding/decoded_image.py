"""An upload after decoding, with the facts about it that its client receives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from medical_vqa.data.imaging.decoded_frame import DecodedFrame, WindowSource
from medical_vqa.data.imaging.picture_statistics import NO_CONTEXT, PictureContext
from medical_vqa.data.imaging.volume import Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medical_vqa.serving.schema.images import ImageFacts


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Facts about an uploaded file, as the client receives them."""

    width: int
    """Pixels, in upright orientation."""
    height: int
    """Pixels, in upright orientation."""
    format: str
    """File format, such as ``DICOM``."""
    frames: int
    """Frames or slices in the file."""
    removed_metadata: list[str]
    """Parts of the file that are not stored, such as ``EXIF``."""
    header_fields: dict[str, str]
    """Allow-listed header fields under their DICOM names, with the window that was applied."""
    burned_in_annotation: bool | None
    """Whether the header declares text in the pixels; None: it does not say."""
    spacing: tuple[float, float] | None = None
    """Distance of rows and of columns in millimeters; None: the file does not say."""
    frame: int = 0
    """The frame that was decoded, from 0."""
    window_source: WindowSource | None = None
    """Where the window came from."""
    plane: str | None = None
    """Plane nearest to the picture."""
    warnings: list[str] = field(default_factory=list)
    """Sentences on what could not be used, or what to be careful about."""


@dataclass(slots=True)
class DecodedImage:
    """An upload after decoding."""

    digest: str
    """SHA-256 of the normalized pixels and their shape."""
    png: bytes
    """The normalized picture, at most `MAX_SIDE` pixels a side."""
    picture: NDArray[np.uint8]
    """Prepared for the model, (height, width, channels)."""
    info: ImageInfo
    """Facts about the file."""
    context: PictureContext = NO_CONTEXT
    """What the guards check before any answer."""
    volume: Volume | None = None
    """The values, where they are stored; from `values.storable`."""
    facts: ImageFacts | None = None
    """What can be shown of the image, where it is stored."""
    sources: str = ""
    """What a DICOM report must repeat, from `StoredSources.to_json`; empty: it is not stored."""


def info_of(frame: DecodedFrame, header_fields: Mapping[str, str]) -> ImageInfo:
    """Facts about a file, from its decoded frame; `header_fields` are those that a client sees."""
    return ImageInfo(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        frames=frame.frames,
        removed_metadata=list(frame.removed_metadata),
        header_fields=dict(header_fields),
        burned_in_annotation=frame.burned_in_annotation,
        spacing=frame.spacing,
        frame=frame.frame,
        window_source=frame.window_source,
        plane=frame.plane,
        warnings=list(frame.warnings),
    )

"""The plane of a picture in the patient, and pixels that are made square."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from PIL import Image

from medical_vqa.data.imaging.geometry import Spacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

Plane = Literal["axial", "coronal", "sagittal"]
"""A plane through the patient."""
PLANES: Final[tuple[Plane, Plane, Plane]] = ("sagittal", "coronal", "axial")
"""The plane that is perpendicular to each axis of the patient: right-left, front-back, feet-head."""
_TOLERANCE = 0.01  # of the ratio of a pixel's sides: less is no visible distortion
_MAX_RATIO = 20.0  # a header that states more is not believed


def plane_of(orientation: Sequence[float]) -> Plane | None:
    """The plane nearest to a picture, by the six cosines of its rows and columns; None where they are none.

    Source: PS3.3, C.7.6.2.1.1.
    """
    if len(orientation) != 6 or not np.isfinite(orientation).all():
        return None
    normal = np.cross(orientation[:3], orientation[3:])
    return PLANES[int(np.abs(normal).argmax())] if np.linalg.norm(normal) > 0.5 else None


def squared(
    pixels: NDArray[np.uint8], sides: Spacing | None, spacing: Spacing | None, *, max_pixels: int
) -> tuple[NDArray[np.uint8], Spacing | None]:
    """The picture with square pixels, and its spacing; unchanged where they are square or the sizes make no sense.

    Args:
        pixels: (rows, columns, channels).
        sides: Height and width of a pixel in any unit; None where nothing states them.
        spacing: Both in millimeters, where they are known.
        max_pixels: Limit of the result; the coarser axis is enlarged as far as it allows, else the other is reduced.
    """
    ratio = sides[0] / sides[1] if sides else 1.0
    if abs(ratio - 1) < _TOLERANCE or not 1 / _MAX_RATIO <= ratio <= _MAX_RATIO:
        return pixels, spacing
    rows, columns = pixels.shape[:2]
    size = (columns, round(rows * ratio)) if ratio > 1 else (round(columns / ratio), rows)
    if size[0] * size[1] > max_pixels:
        size = (max(1, round(columns / ratio)), rows) if ratio > 1 else (columns, max(1, round(rows * ratio)))
    bands = [Image.fromarray(pixels[:, :, band]) for band in range(pixels.shape[2])]
    resized = np.stack([np.asarray(band.resize(size, Image.Resampling.BICUBIC)) for band in bands], axis=-1)
    if spacing is not None:
        spacing = spacing[0] * rows / size[1], spacing[1] * columns / size[0]
    return resized, spacing

"""Size of a decoded picture and the distance of its pixels, and how a prepared picture lies on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medical_vqa.data.imaging.preprocessing import PictureSpec, prepared_size

Spacing = tuple[float, float]
"""Distance between the centers of neighboring rows and of neighboring columns, in millimeters."""


@dataclass(frozen=True, slots=True)
class PictureGeometry:
    """Size and spacing of a picture as it was decoded: upright, before it is prepared for a model."""

    width: int
    """Columns."""
    height: int
    """Rows."""
    spacing: Spacing | None = None
    """Distance of rows and of columns in millimeters; None where the file does not say."""


@dataclass(frozen=True, slots=True)
class PreparedArea:
    """Where a decoded picture lies in the picture that was prepared from it, in fractions of the prepared one."""

    left: float
    """Left edge, 0 to 1."""
    top: float
    """Upper edge."""
    width: float
    """Width."""
    height: float
    """Height."""


def prepared_area(geometry: PictureGeometry, spec: PictureSpec) -> PreparedArea:
    """The part of the prepared picture that is not padding: all of it, except with the fit ``pad``."""
    if spec.fit != "pad":
        return PreparedArea(0.0, 0.0, 1.0, 1.0)
    width, height = prepared_size((geometry.width, geometry.height), spec)
    left, top = (spec.side - width) // 2, (spec.side - height) // 2
    return PreparedArea(left / spec.side, top / spec.side, width / spec.side, height / spec.side)


def valid_spacing(values: Sequence[Any] | None) -> Spacing | None:
    """Two header values as a spacing; None unless both are positive, finite numbers."""
    if values is None or len(values) != 2:
        return None
    try:
        rows, columns = (float(value) for value in values)
    except (TypeError, ValueError):
        return None
    return (rows, columns) if all(math.isfinite(value) and value > 0 for value in (rows, columns)) else None

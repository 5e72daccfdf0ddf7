"""Evidence: where in the picture a model localizes what a question or its answer names.

Coordinates are pixels of the picture as the file has it (upright, before it is resized for a model): x to the right
from 0 to the width, y downward from 0 to the height, so that pixel (0, 0) covers [0, 1] x [0, 1]::

    {"name": "Left Lung", "box": [312.5, 80.0, 470.2, 401.9],
     "polygon": {"type": "MultiPolygon", "coordinates": [[[[312.5, 200.0], [340.0, 90.3], ... [312.5, 200.0]]]]},
     "area": 38112.4, "area_mm2": 19056.2, "side": "patient", "position": "right", "learned_from": "mask",
     "score": 0.97}
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema

from medical_vqa.schema.document import SchemaModel


def array_of_numbers(length: int) -> dict[str, object]:
    """JSON Schema of so many numbers, in words that every generator of clients reads (``prefixItems`` is not one)."""
    return {"type": "array", "items": {"type": "number"}, "minItems": length, "maxItems": length}


Point = Annotated[tuple[float, float], WithJsonSchema(array_of_numbers(2))]
"""x and y."""
Ring = tuple[Point, ...]
"""A closed line that does not cross itself; the last point is the first one."""


class MultiPolygon(SchemaModel):
    """Polygons as GeoJSON (RFC 7946) writes them, with picture coordinates in place of longitude and latitude."""

    type: Literal["MultiPolygon"] = "MultiPolygon"
    """The GeoJSON type."""
    coordinates: tuple[tuple[Ring, ...], ...]
    """One list of rings per polygon: its border, then the borders of its holes. Points are [x, y]; by the shoelace
    formula borders have positive areas and holes negative ones."""


class Evidence(SchemaModel):
    """One organ or finding that a model localizes in a picture."""

    name: str
    """Name of the organ or finding, as the training data call it: ``Left Lung``."""
    box: Annotated[tuple[float, float, float, float], WithJsonSchema(array_of_numbers(4))]
    """Bounding box of the polygon: left, top, right and bottom, in pixels of the picture."""
    polygon: MultiPolygon
    """Outline, in pixels of the picture."""
    area: Annotated[float, Field(ge=0)]
    """Area of the polygon in pixels of the picture."""
    area_mm2: Annotated[float, Field(ge=0)] | None = None
    """The same area in square millimeters; null where the file has no pixel spacing. Of a radiograph without
    calibration it is the area of the shadow at the detector."""
    side: Literal["patient"] | None = None
    """Whose left or right the name means, which for organs is the patient's; null where it has none."""
    position: Literal["left", "middle", "right"]
    """Half of the picture in which the middle of the box lies, seen from the viewer; ``middle`` within 5 % of the width
    around the picture's vertical middle line."""
    learned_from: Literal["mask", "box"]
    """What the model learned it from: outlines, or boxes alone, where the area is that of a region around it."""
    score: Annotated[float, Field(ge=0, le=1)]
    """Largest probability that the model gives a place inside the polygon."""

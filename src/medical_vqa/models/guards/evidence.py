"""Evidence for an answer: what the model localizes, as outlines in pixels of the picture that the user knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from medical_vqa.data.imaging.geometry import PictureGeometry, prepared_area
from medical_vqa.models.guards.outlines import Polygon, at_cells, outlines, polygon_area
from medical_vqa.models.guards.sides import meant_side
from medical_vqa.schema.evidence import Evidence, MultiPolygon

if TYPE_CHECKING:
    from medical_vqa.data.imaging.preprocessing import PictureSpec
    from medical_vqa.models.base import Localization

LEAST_PROBABILITY = 0.2
"""A region whose largest probability is lower counts as not localized."""
LEVEL = 0.5
"""Fraction of the largest probability that the outline follows.

Chosen together with `LEAST_PROBABILITY` on 100 training pictures of SLAKE: the fixed probabilities 0.3, 0.4 and 0.5
gave lower Dice, because small organs are localized at low probabilities (docs/explanation/grounded-answers.md)."""

_MIDDLE = 0.05
"""Distance from the vertical middle line, as a fraction of the width, within which a region is in the middle."""


def evidence_of(
    localizations: Sequence[Localization], geometry: PictureGeometry, spec: PictureSpec
) -> tuple[Evidence, ...]:
    """Outlines of what a model localizes.

    Args:
        localizations: What the model localizes, in order of preference: of several with one name the first whose
            probability suffices is used.
        geometry: Size and spacing of the decoded picture.
        spec: How the picture was prepared for the model.

    Returns:
        One item per name, the most certain first.
    """
    items: dict[str, Evidence] = {}
    for localization in localizations:
        if localization.name not in items and localization.probability.max() >= LEAST_PROBABILITY:
            polygons = _polygons(localization, geometry, spec)
            if polygons:
                items[localization.name] = _evidence(localization, polygons, geometry)
    return tuple(sorted(items.values(), key=lambda item: -item.score))


def _polygons(localization: Localization, geometry: PictureGeometry, spec: PictureSpec) -> list[Polygon]:
    """Outlines in pixels of the picture."""
    area = prepared_area(geometry, spec)
    across, down = geometry.width / area.width, geometry.height / area.height  # of the prepared picture, in pixels
    values, x, y = at_cells(
        localization.probability.astype(np.float64),
        start=(-area.left * across, -area.top * down),
        size=(across, down),
        picture=(geometry.width, geometry.height),
    )
    return outlines(values, x, y, level=LEVEL * float(values.max()))


def _evidence(localization: Localization, polygons: Sequence[Polygon], geometry: PictureGeometry) -> Evidence:
    borders = np.concatenate([polygon[0] for polygon in polygons])
    left, top = (float(value) for value in borders.min(0))
    right, bottom = (float(value) for value in borders.max(0))
    area = sum(map(polygon_area, polygons))
    return Evidence(
        name=localization.name,
        box=(left, top, right, bottom),
        polygon=MultiPolygon(
            coordinates=tuple(
                tuple(tuple((float(x), float(y)) for x, y in ring) for ring in polygon) for polygon in polygons
            )
        ),
        area=round(area, 1),
        area_mm2=None if geometry.spacing is None else round(area * geometry.spacing[0] * geometry.spacing[1], 2),
        side="patient" if meant_side(localization.name) else None,
        position=_position((left + right) / 2 / geometry.width),
        learned_from=localization.learned_from,
        score=round(min(1.0, float(localization.probability.max())), 4),
    )


def _position(place: float) -> Literal["left", "middle", "right"]:
    if abs(place - 0.5) <= _MIDDLE:
        return "middle"
    return "left" if place < 0.5 else "right"

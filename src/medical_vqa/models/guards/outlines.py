"""Outlines of regions: polygons with holes where values on a grid are above a level.

contourpy, the contour library of matplotlib, finds the lines between the grid's points. What is added here makes every
ring closed and free of self-intersections: the grid is extended to the border of the picture, and values that equal the
level, through which several lines could pass, are shifted away from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import contourpy
import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]
"""Points (N, 2) of a closed line, x and y; the last is the first."""
Polygon = list[Ring]
"""The border of a polygon, and the borders of its holes."""

_AT_LEVEL = 0.01
"""Values within this fraction of the level are shifted to its ends."""
_DECIMALS = 2
"""Of coordinates, in pixels."""
_LEAST_AREA = 1.0
"""Smaller polygons and holes are left out, in pixels."""


def outlines(
    values: NDArray[np.floating[Any]], x: NDArray[np.floating[Any]], y: NDArray[np.floating[Any]], *, level: float
) -> list[Polygon]:
    """Polygons in which values are at least `level`, between the points linearly interpolated.

    Args:
        values: Values (rows, columns) at the points of a grid, non-negative.
        x: Position of each column, increasing.
        y: Position of each row, increasing.
        level: The level, positive.

    Returns:
        Polygons whose borders have a positive area by the shoelace formula and whose holes a negative one, the largest
        first.
    """
    near = np.abs(values - level) < _AT_LEVEL * level
    shifted = level + np.where(values >= level, 1, -1) * _AT_LEVEL * level
    separated = np.where(near, shifted, values).astype(np.float64)
    generator = contourpy.contour_generator(x, y, separated, fill_type=contourpy.FillType.OuterOffset)
    filled: Any = generator.filled(level, 2 * max(level, float(separated.max())))
    polygons = [
        _without_specks([_rounded(ring) for ring in np.split(border, offset[1:-1])])
        for border, offset in zip(*filled, strict=True)
    ]
    return sorted(filter(None, polygons), key=polygon_area, reverse=True)


def at_cells(
    values: NDArray[np.floating[Any]],
    *,
    start: tuple[float, float],
    size: tuple[float, float],
    picture: tuple[int, int],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Values in cells of a grid that may reach beyond the picture -> values at points from border to border of it.

    Args:
        values: A value for each cell (rows, columns).
        start: x and y of the grid's upper left corner, in pixels of the picture.
        size: Width and height of the grid, in pixels of the picture.
        picture: Width and height of the picture.

    Returns:
        Values (rows, columns), and the positions of columns and rows in pixels, as `outlines` takes them.
    """
    (x, across), (y, down) = (
        _interpolation(count, start[axis], size[axis], picture[axis]) for axis, count in enumerate(values.shape[::-1])
    )
    return down @ values @ across.T, x, y


def ring_area(ring: Ring) -> float:
    """Signed area of a ring by the shoelace formula."""
    x, y = ring[:-1, 0], ring[:-1, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def polygon_area(polygon: Sequence[Ring]) -> float:
    """Area of a polygon without its holes."""
    return sum(map(ring_area, polygon))


def _interpolation(
    count: int, start: float, size: float, length: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions of the cells' centers inside the picture and of its borders, and weights (positions, cells) there."""
    centers = start + (np.arange(count) + 0.5) * size / count
    positions = np.array([0.0, *centers[(centers > 0) & (centers < length)], float(length)])
    weights = np.stack([np.interp(positions, centers, cell) for cell in np.eye(count)], axis=1)
    return positions, weights


def _rounded(ring: Ring) -> Ring:
    """The ring with few decimals, and no point twice in a row."""
    points = np.round(ring, _DECIMALS)
    distinct = np.any(points[1:] != points[:-1], axis=1)
    selected: Ring = points[np.concatenate([[True], distinct])]
    return selected


def _without_specks(polygon: Polygon) -> Polygon:
    """The polygon without holes that are too small; empty where it is too small itself."""
    border, *holes = polygon
    if len(border) < 4 or ring_area(border) < _LEAST_AREA:
        return []
    return [border, *(hole for hole in holes if len(hole) > 3 and -ring_area(hole) >= _LEAST_AREA)]

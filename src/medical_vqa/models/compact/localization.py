"""Attention maps of the compact model, in NumPy: regions that it localizes, or the attention of a question's words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_EPSILON = 1e-6
"""Added to a localization, so that the map of a region that is nowhere is even."""
_OUTSIDE = 1e-9
"""Attention outside the foreground, so that a map of all zeros cannot occur."""


def localization_maps(
    entities: Sequence[str | None],
    attention: Sequence[NDArray[np.float32]],
    regions: Sequence[NDArray[Any] | None],
    region_names: Sequence[str],
) -> list[NDArray[np.float32]]:
    """Maps that sum to 1: the localization of an entity where the model has one, otherwise the attention.

    Args:
        entities: The entity that each question or its answer names; None where neither names one.
        attention: Attention map of each question's words (rows, columns).
        regions: Probability of each region in each cell (regions, rows, columns); None where none is localized.
        region_names: Names of the regions, such as ``mask: Left Lung``.
    """
    maps = []
    for entity, weights, probabilities in zip(entities, attention, regions, strict=True):
        indices = _regions_of(entity, region_names)
        if probabilities is None or not indices:
            maps.append(_normalized(weights))
        else:
            maps.append(_normalized(probabilities[indices].astype(np.float32).max(0) + _EPSILON))
    return maps


def _regions_of(entity: str | None, region_names: Sequence[str]) -> list[int]:
    """Indices of the regions that are the entity, on either side, or else of those whose names contain it."""
    if entity is None:
        return []
    exact = exact_regions(entity, region_names)
    return exact or [index for index, name in enumerate(region_names) if entity in name.lower()]


def exact_regions(entity: str, region_names: Sequence[str]) -> list[int]:
    """Indices of the regions that are the entity, on either side: ``lung`` is the left and the right lung."""
    return [index for index, name in enumerate(region_names) if f" {name.lower()}".endswith(f" {entity}")]


def picture_maps(
    weights: NDArray[np.floating[Any]], frames: Sequence[NDArray[np.floating[Any]] | None]
) -> list[NDArray[np.float32]]:
    """Attention weights of image tokens as square maps of the whole picture that sum to 1.

    Args:
        weights: Weight of each token (N, T); the tokens are a square grid.
        frames: Affine map (2, 3) of each question from the foreground's square to the picture; None where the model's
            input was the whole picture.
    """
    cells = math.isqrt(weights.shape[1])
    grids = weights.reshape(-1, cells, cells)
    return [
        _normalized(grid if frame is None else _uncropped(grid, frame))
        for grid, frame in zip(grids, frames, strict=True)
    ]


def _normalized(values: NDArray[Any]) -> NDArray[np.float32]:
    normalized: NDArray[np.float32] = (values / values.sum()).astype(np.float32)
    return normalized


def _uncropped(grid: NDArray[Any], frame: NDArray[Any]) -> NDArray[Any]:
    """A map of the foreground's square -> a map of the whole picture with the same number of cells."""
    down, across = (
        _interpolation(length, *frame[axis, [axis, 2]]) for length, axis in zip(grid.shape, (1, 0), strict=True)
    )
    uncropped: NDArray[Any] = down @ grid @ across.T + _OUTSIDE
    return uncropped


def _interpolation(length: int, half: float, center: float) -> NDArray[np.float64]:
    """Weights (length, length) that interpolate linearly, from cells of the square, at the cells of the picture."""
    picture_cells = (np.arange(length) + 0.5) / length * 2 - 1
    places = ((picture_cells - center) / half + 1) / 2 * length - 0.5
    weights: NDArray[np.float64] = np.clip(1 - np.abs(places[:, None] - np.arange(length)), 0, None)
    return weights

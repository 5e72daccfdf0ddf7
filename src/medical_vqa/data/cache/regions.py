"""Regions of organs and findings in images, on a coarse grid: how much of each cell a region covers.

A prepared folder may have a file ``regions.npz``::

    names                  names of the R regions: "mask: Liver", "box: Pneumonia"
    <SHA-256 of an image>  uint8 (R, 40, 40): covered fraction of each cell, 0 to `FULL`; all `UNKNOWN` for a region
                           that was not annotated

They come from a dataset's `Published.read_regions`, some models learn from them, and none needs them to answer.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medical_vqa.errors import DataError
from medical_vqa.io import atomic_write

GRID = 40
"""Cells along each side, whatever the image's shape."""
FULL, UNKNOWN = 254, 255
"""Values of a cell that the region covers completely, and of one that is not annotated."""
REGIONS_NAME = "regions.npz"
Grid = NDArray[np.uint8]
Regions = Mapping[str, Grid | None]
"""Name of a region -> its grid (40, 40); None where it is annotated as absent. Regions left out are not annotated."""


def coverage_grid(mask: NDArray[np.bool_]) -> Grid:
    """The fraction of each cell that a mask (H, W) of the image covers."""
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    sums[1:, 1:] = mask.cumsum(0).cumsum(1)
    rows, columns = (np.linspace(0, side, GRID + 1) for side in mask.shape)
    above = _between(sums, rows, columns)
    cells = np.diff(np.diff(above, axis=0), axis=1) * GRID * GRID / mask.size
    grid: Grid = np.rint(cells.clip(0, 1) * FULL).astype(np.uint8)
    return grid


def _between(sums: NDArray[np.float64], rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """A table of running sums at fractional rows and columns, interpolated linearly."""
    at_columns = np.stack([np.interp(columns, np.arange(sums.shape[1]), row) for row in sums])
    return np.stack([np.interp(rows, np.arange(len(at_columns)), column) for column in at_columns.T], axis=1)


class RegionStore:
    """Regions in the images of a prepared dataset, by the image's SHA-256."""

    def __init__(self, folder: Path) -> None:
        path = folder / REGIONS_NAME
        if not path.is_file():
            raise DataError(
                f"{folder} has no {REGIONS_NAME}: its source has no masks or boxes, or an older version prepared it; "
                "prepare it again, or set data.regions: false"
            )
        try:
            with np.load(path) as file:
                content = dict(file)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is damaged ({error}); delete it and prepare the dataset again") from error
        self.names = tuple(str(name) for name in content.pop("names"))
        self._grids = content
        self._unknown = np.full((len(self.names), GRID, GRID), UNKNOWN, np.uint8)

    def get(self, digest: str) -> Grid:
        """uint8 (R, 40, 40), in the order of `names`; all `UNKNOWN` for an image without annotation."""
        grid: Grid = self._grids.get(digest, self._unknown)
        return grid


def write_regions(folder: Path, regions: Mapping[str, Regions]) -> None:
    """Write ``regions.npz`` from the regions in each image (SHA-256 -> name -> grid)."""
    names = sorted({name for in_image in regions.values() for name in in_image})
    grids = {digest: _stacked(in_image, names) for digest, in_image in regions.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, names=np.array(names), **grids)
    atomic_write(folder / REGIONS_NAME, buffer.getvalue())


def _stacked(regions: Regions, names: Sequence[str]) -> Grid:
    stacked = np.full((len(names), GRID, GRID), UNKNOWN, np.uint8)
    for position, name in enumerate(names):
        if name in regions:
            grid = regions[name]
            stacked[position] = 0 if grid is None else grid
    return stacked

"""What is known of where things lie in a picture: organs and findings, as shares of the cells of a coarse grid.

A prepared folder may hold ``regions.npz`` beside its pictures::

    names                  the kinds of region, R of them: "mask: Liver", "box: Pneumonia"
    <SHA-256 of a picture> uint8 (R, 40, 40): share of each cell, 0 to `FULL`; a kind nobody looked for is all `UNKNOWN`

Published by a dataset's `Published.read_regions`, learned from by models that can, and never needed to answer.
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
"""Cells along each side, whatever the picture's shape."""
FULL, UNKNOWN = 254, 255
"""A cell that the region fills, and one of which nobody knows."""
FILE = "regions.npz"
Grid = NDArray[np.uint8]
Regions = Mapping[str, Grid | None]
"""Kind of region -> its grid (40, 40); None where it was looked for and is not there. Kinds left out are unknown."""


def covered(mask: NDArray[np.bool_]) -> Grid:
    """A mask (H, W) over the whole picture -> the share of each cell that it covers."""
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    sums[1:, 1:] = mask.cumsum(0).cumsum(1)
    rows, columns = (np.linspace(0, side, GRID + 1) for side in mask.shape)
    above = _between(sums, rows, columns)
    cells = np.diff(np.diff(above, axis=0), axis=1) * GRID * GRID / mask.size
    shares: Grid = np.rint(cells.clip(0, 1) * FULL).astype(np.uint8)
    return shares


def _between(sums: NDArray[np.float64], rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """A table of running sums read between its entries, linearly."""
    along = np.stack([np.interp(columns, np.arange(sums.shape[1]), row) for row in sums])
    return np.stack([np.interp(rows, np.arange(len(along)), column) for column in along.T], axis=1)


class RegionStore:
    """The regions of a prepared dataset's pictures, by the picture's SHA-256."""

    def __init__(self, folder: Path) -> None:
        path = folder / FILE
        if not path.is_file():
            raise DataError(
                f"{folder} has no {FILE}: its source has no masks or boxes, or it was prepared before they were kept; "
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
        """uint8 (R, 40, 40), in the order of `names`; all unknown for a picture nobody has looked through."""
        grid: Grid = self._grids.get(digest, self._unknown)
        return grid


def write_regions(folder: Path, regions: Mapping[str, Regions]) -> None:
    """Write ``regions.npz`` from what is known of each picture (its SHA-256 -> kind -> grid)."""
    names = sorted({name for known in regions.values() for name in known})
    grids = {digest: _stacked(known, names) for digest, known in regions.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, names=np.array(names), **grids)
    atomic_write(folder / FILE, buffer.getvalue())


def _stacked(known: Regions, names: Sequence[str]) -> Grid:
    stacked = np.full((len(names), GRID, GRID), UNKNOWN, np.uint8)
    for place, name in enumerate(names):
        if name in known:
            grid = known[name]
            stacked[place] = 0 if grid is None else grid
    return stacked

"""Hashes that differ in few of their bits, or in nearly all of them, among many.

Two hashes that differ in at most 12 of 63 bits differ in at most 2 of the bits of one of five parts (the pigeonhole
principle). Hashes are ordered by each part in turn; those with one value of it are compared, in tiles that stay in the
processor's cache, with those whose value differs in at most 2 bits: a ninth of all pairs where hashes are random.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Positions = NDArray[np.intp]
BITS = 63
"""Bits of a hash that are used, the lowest."""
LIMIT = 12
"""Bits in which two hashes may differ."""
_PARTS = ((0, 13), (13, 13), (26, 13), (39, 12), (51, 12))  # first bit and number of bits
_OF_PART = LIMIT // len(_PARTS)  # bits of a part that may differ
_INDEXED = 20_000  # images from which an index takes less time than the comparison of all
_ROWS, _COLUMNS = 32, 4096  # of a tile: 1 MB of differences


@dataclass(frozen=True, slots=True)
class Block:
    """Hashes to be compared with each other."""

    rows: Positions
    """Positions of hashes that are searched."""
    columns: Positions
    """Positions of the hashes among which they are searched."""
    part: int
    """Number of the part in which they are close; pairs that are close in an earlier one belong to its blocks."""


@dataclass(frozen=True, slots=True)
class ClosePairs:
    """Pairs of close hashes."""

    rows: Positions
    """Positions of the hashes that were searched, (pairs,)."""
    columns: Positions
    """Positions of the hashes that are close to them, (pairs,)."""
    few_differ: NDArray[np.bool_]
    """Whether few bits differ; else nearly all do, (pairs,)."""


def passes(hashes: int) -> int:
    """How often `blocks` compares each hash with a part of so many."""
    return len(_PARTS) if hashes >= _INDEXED else 1


def blocks(searched: Hashes, among: Hashes, *, indexed: bool | None = None) -> Iterator[Block]:
    """What has to be compared to find all close hashes; `indexed` is chosen by the number of hashes."""
    if not (passes(len(among)) > 1 if indexed is None else indexed):
        every = np.arange(len(among))
        for start in range(0, len(searched), _COLUMNS):
            yield Block(np.arange(start, min(start + _COLUMNS, len(searched))), every, 0)
        return
    for number, (first, width) in enumerate(_PARTS):
        values, of_columns = _part(searched, first, width), _part(among, first, width)
        order, columns = np.argsort(values, kind="stable"), np.argsort(of_columns, kind="stable")
        bounds = np.searchsorted(values[order], np.arange(2**width + 1))
        bounds_of_columns = np.searchsorted(of_columns[columns], np.arange(2**width + 1))
        masks = np.array([sum(1 << bit for bit in bits) for n in range(_OF_PART + 1)
                          for bits in combinations(range(width), n)])  # fmt: skip
        masks = np.concatenate([masks, masks ^ (2**width - 1)])
        for value in np.flatnonzero(np.diff(bounds)).tolist():
            near = value ^ masks
            starts, ends = bounds_of_columns[near].tolist(), bounds_of_columns[near + 1].tolist()
            buckets = [columns[start:end] for start, end in zip(starts, ends, strict=True) if start < end]
            if buckets:
                yield Block(order[bounds[value] : bounds[value + 1]], np.concatenate(buckets), number)


def close_pairs(searched: Hashes, among: Hashes, block: Block) -> Iterator[ClosePairs]:
    """The pairs of a block that differ in at most `LIMIT` bits, or in all but at most so many, some at a time."""
    hashes, others = searched[block.rows], among[block.columns]
    width = min(_COLUMNS, len(others))
    height = min(len(hashes), max(1, _ROWS * _COLUMNS // width))
    differences, counts = np.empty(height * width, np.uint64), np.empty(height * width, np.uint8)
    near = np.empty(height * width, bool)
    for top in range(0, len(hashes), height):
        some = hashes[top : top + height, None]
        for left in range(0, len(others), width):
            columns = others[left : left + width]
            shape, size = (len(some), len(columns)), len(some) * len(columns)
            difference, count = differences[:size].reshape(shape), counts[:size].reshape(shape)
            np.bitwise_xor(some, columns, out=difference)
            np.bitwise_count(difference, out=count)
            # numbers up to the limit wrap around to the highest, so that one comparison finds both ends
            np.subtract(count, LIMIT + 1, out=count)
            np.greater(count, BITS - 2 * LIMIT - 2, out=near[:size].reshape(shape))
            if not near[:size].any():
                continue
            places = np.flatnonzero(near[:size])
            places = places[_not_before(differences[places], block.part)]
            rows, positions = np.divmod(places, len(columns))
            yield ClosePairs(block.rows[rows + top], block.columns[positions + left], counts[places] > BITS)


def _part(hashes: Hashes, first: int, width: int) -> NDArray[np.uint16]:
    part: NDArray[np.uint16] = ((hashes >> np.uint64(first)) & np.uint64(2**width - 1)).astype(np.uint16)
    return part


def _not_before(differences: Hashes, part: int) -> NDArray[np.bool_]:
    """Whether none of the earlier parts is close or inverted."""
    new = np.ones(len(differences), bool)
    for first, width in _PARTS[:part]:
        count = np.bitwise_count(_part(differences, first, width))
        new &= (count > _OF_PART) & (count < width - _OF_PART)
    return new

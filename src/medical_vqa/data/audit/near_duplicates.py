"""Images that are nearly the same: at another size, saved again, cropped, turned, mirrored, or inverted in gray.

A perceptual hash (64 signs of the low frequencies of a cosine transform) finds candidates; the correlation of small
copies confirms them. Every image and its parts are hashed, so that a crop matches the part it was cut from.
Source of the hash: Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010), ch. 3.2.1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Box = tuple[float, float, float, float]
Floats = NDArray[np.float32]

_SIDE = 32  # pixels of the small copies
_FREQUENCIES = 8  # lowest frequencies in each direction
_SIGNS = 63  # bits of a hash that are used: the first is always 0
_THUMBNAIL = 64  # pixels of the copy from which parts are taken
_MORE_SIMILAR = 1e-3  # by which a part or a turned copy must be more similar than what was found before it
_MAX_DISTANCE = 12  # bits in which two hashes of near-duplicates may differ, of 64
SIMILARITY = 0.98
"""Correlation of two small copies from which images count as near-duplicates."""
_BLOCK = 512  # images of a block of comparisons, and fewer where there are many
_MAX_COMPARISONS = 200_000  # of a block: 2 MB for each thread, which stay in its cache, however many images there are

VIEWS: tuple[Box, ...] = (
    (0.0, 0.0, 1.0, 1.0),
    *((m, m, 1 - m, 1 - m) for m in (0.025, 0.05, 0.075, 0.1, 0.15, 0.2)),
    *((x, y, x + 0.85, y + 0.85) for x in (0.0, 0.15) for y in (0.0, 0.15)),
    *((0.0, m, 1.0, 1 - m) for m in (0.05, 0.1)),
    *((m, 0.0, 1 - m, 1.0) for m in (0.05, 0.1)),
)
"""The parts that are hashed, as fractions of width and height: left, top, right, bottom; the first is all of it."""


TURNS: tuple[str, ...] = (
    "",
    "turned by 90 degrees",
    "turned by 180 degrees",
    "turned by 270 degrees",
    "mirrored",
    "mirrored and turned by 90 degrees",
    "mirrored and turned by 180 degrees",
    "mirrored and turned by 270 degrees",
)
"""Names of the eight ways to turn and mirror a picture, in the order of `turned`."""
INVERTED = "inverted gray"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Hashes of an image and its parts, and two small copies of it: 6 KB for each image."""

    hashes: NDArray[np.uint64]
    """(views,)"""
    turned_hashes: NDArray[np.uint64]
    """(8,), of the complete image in every way to turn and mirror it"""
    copy: NDArray[np.float16]
    """(32 * 32,) of the complete image, of mean 0 and length 1"""
    thumbnail: NDArray[np.uint8]
    """(64, 64) gray, from which its parts are copied"""


@dataclass(frozen=True, slots=True)
class SimilarPair:
    """Two images that are nearly the same."""

    first: int
    """Position of the first image."""
    second: int
    """Position of the second image, which shows all or a part of the first."""
    similarity: float
    """Correlation of the small copies, at most 1."""
    box: Box
    """Part of the first image that the second shows; ``VIEWS[0]`` for all of it."""
    change: str = ""
    """How the second differs: mirrored, turned, or inverted in gray; empty for none of these."""


def fingerprint(picture: Image.Image) -> Fingerprint:
    """The fingerprint of an image; one of a single color is similar to no other."""
    gray = picture.convert("L")
    gray.thumbnail((256, 256), Image.Resampling.BOX)
    copies = np.stack([_copy(gray, box) for box in VIEWS])
    thumbnail = np.asarray(gray.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX), dtype=np.uint8)
    return Fingerprint(_hashes(copies), _hashes(_turned(copies[0])), _unit(copies[0]).astype(np.float16), thumbnail)


def near_duplicates(
    prints: Sequence[Fingerprint], similarity: float = SIMILARITY, workers: int | None = None
) -> list[SimilarPair]:
    """The pairs of images that are nearly the same, each with its best similarity, in order of position.

    Also those that are the same when one of them is turned by quarters, mirrored, or inverted in gray, as X-rays often
    are (MONOCHROME1 and MONOCHROME2).

    Args:
        prints: Fingerprints of the images.
        similarity: Correlation from which two small copies are nearly the same.
        workers: Number of threads that compare hashes; by default one per core.
    """
    if len(prints) < 2:
        return []
    hashes = np.array([one.hashes for one in prints])
    turned_hashes = np.array([one.turned_hashes for one in prints])
    complete, copies = np.ascontiguousarray(hashes[:, 0]), np.array([one.copy for one in prints])
    tasks = [(np.ascontiguousarray(hashes[:, view]), view, 0) for view in range(len(VIEWS))]
    tasks += [(np.ascontiguousarray(turned_hashes[:, turn]), 0, turn) for turn in range(1, len(TURNS))]
    best: dict[tuple[int, int], SimilarPair] = {}

    def compared(block: tuple[tuple[NDArray[np.uint64], int, int], int]) -> list[SimilarPair]:
        (parts, view, turn), start = block
        pairs = []
        for first, others, signs in _candidates(parts[start : start + size], start, complete):
            part = _part(prints[first], view, turn)
            correlations = signs * (copies[others].astype(np.float32) @ part)
            for position in np.flatnonzero(correlations >= similarity).tolist():
                change = " and ".join(name for name in (INVERTED if signs[position] < 0 else "", TURNS[turn]) if name)
                second, value = int(others[position]), float(correlations[position])
                pairs.append(SimilarPair(first, second, value, VIEWS[view], change))
        return pairs

    size = max(1, min(_BLOCK, _MAX_COMPARISONS // len(prints)))
    blocks = [(task, start) for task in tasks for start in range(0, len(prints), size)]
    with ThreadPoolExecutor(workers or os.cpu_count()) as threads:  # numpy compares without the interpreter's lock
        for pairs in threads.map(compared, blocks):
            for pair in pairs:
                places = min(pair.first, pair.second), max(pair.first, pair.second)
                if places not in best or pair.similarity > best[places].similarity + _MORE_SIMILAR:
                    best[places] = pair
    return [best[places] for places in sorted(best)]


def _candidates(
    parts: NDArray[np.uint64], start: int, complete: NDArray[np.uint64]
) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.float32]]]:
    """For each part the positions of the complete images whose hashes differ in few bits, or in most, and a sign.

    The sign is -1 where they differ in most bits: the hash of a picture with inverted gray is the complement.
    """
    distance = np.bitwise_count(parts[:, None] ^ complete[None, :])
    near = (distance <= _MAX_DISTANCE) | (distance >= _SIGNS - _MAX_DISTANCE)
    rows, columns = np.divmod(np.flatnonzero(near), len(complete))  # a hundred times as fast as np.nonzero of a table
    different = rows + start != columns
    rows, columns = rows[different], columns[different]
    signs = np.where(distance[rows, columns] <= _MAX_DISTANCE, 1.0, -1.0).astype(np.float32)
    bounds = np.searchsorted(rows, np.arange(len(parts) + 1))
    for row in np.unique(rows).tolist():
        part = slice(bounds[row], bounds[row + 1])
        yield start + row, columns[part], signs[part]


def _part(one: Fingerprint, view: int, turn: int) -> Floats:
    """A part of an image, or all of it turned, as a copy of mean 0 and length 1."""
    if view:
        return _unit(_copy(Image.fromarray(one.thumbnail), VIEWS[view]))
    copy = one.copy.astype(np.float32)
    return _turned(copy)[turn] if turn else copy


def _turned(copy: Floats) -> Floats:
    """A small copy (32 * 32,) in the eight ways to turn and mirror it: (8, 32 * 32)."""
    square = copy.reshape(_SIDE, _SIDE)
    ways = [np.rot90(mirrored, turns) for mirrored in (square, square[:, ::-1]) for turns in range(4)]
    return np.stack([way.ravel() for way in ways])


def _unit(copy: Floats) -> Floats:
    centered = copy - copy.mean()
    length = float(np.linalg.norm(centered))
    unit: Floats = (centered / length if length > 1e-3 else np.zeros_like(centered)).astype(np.float32)
    return unit


def _copy(gray: Image.Image, box: Box) -> Floats:
    width, height = gray.size
    pixels = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    small = gray.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, box=pixels)
    return np.asarray(small, dtype=np.float32).ravel()


def _hashes(copies: Floats) -> NDArray[np.uint64]:
    pixels, frequencies = np.arange(_SIDE), np.arange(_FREQUENCIES)
    # (frequencies, pixels): the first rows of the cosine transform (DCT-II)
    basis = np.cos(np.pi * (2 * pixels[None, :] + 1) * frequencies[:, None] / (2 * _SIDE)).astype(np.float32)
    low = (basis @ copies.reshape(-1, _SIDE, _SIDE) @ basis.T).reshape(len(copies), -1)
    low[:, 0] = np.median(low[:, 1:], axis=1)  # brightness is no evidence: its bit is always 0
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64).ravel()

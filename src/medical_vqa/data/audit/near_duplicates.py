"""Images that are nearly the same: at another size, saved again, or cropped.

A perceptual hash (64 signs of the low frequencies of a cosine transform) finds candidates; the correlation of small
copies confirms them. Every image and its parts are hashed, so that a crop matches the part it was cut from.
Source of the hash: Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010), ch. 3.2.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Box = tuple[float, float, float, float]
Floats = NDArray[np.float32]

_SIDE = 32  # pixels of the small copies
_FREQUENCIES = 8  # lowest frequencies in each direction
_MAX_DISTANCE = 12  # bits in which two hashes of near-duplicates may differ, of 64
SIMILARITY = 0.98
"""Correlation of two small copies from which images count as near-duplicates."""
_BLOCK = 512  # rows of a block of comparisons

VIEWS: tuple[Box, ...] = (
    (0.0, 0.0, 1.0, 1.0),
    *((m, m, 1 - m, 1 - m) for m in (0.025, 0.05, 0.075, 0.1, 0.15, 0.2)),
    *((x, y, x + 0.85, y + 0.85) for x in (0.0, 0.15) for y in (0.0, 0.15)),
    *((0.0, m, 1.0, 1 - m) for m in (0.05, 0.1)),
    *((m, 0.0, 1 - m, 1.0) for m in (0.05, 0.1)),
)
"""The parts that are hashed, as fractions of width and height: left, top, right, bottom; the first is all of it."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Hashes and small copies of an image and its parts."""

    hashes: NDArray[np.uint64]
    """(views,)"""
    copies: Floats
    """(views, 32 * 32), each of mean 0 and length 1."""


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


def fingerprint(picture: Image.Image) -> Fingerprint:
    """The fingerprint of an image; one of a single color is similar to no other."""
    gray = picture.convert("L")
    gray.thumbnail((256, 256), Image.Resampling.BOX)
    copies = np.stack([_copy(gray, box) for box in VIEWS])
    centered = copies - copies.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centered, axis=1, keepdims=True)
    unit = np.where(length > 1e-3, centered / np.maximum(length, 1e-3), 0.0).astype(np.float32)
    return Fingerprint(_hashes(copies), unit)


def near_duplicates(prints: Sequence[Fingerprint], similarity: float = SIMILARITY) -> list[SimilarPair]:
    """The pairs of images that are nearly the same, each with its best similarity, in order of position."""
    if len(prints) < 2:
        return []
    complete = np.array([one.hashes[0] for one in prints])
    best: dict[tuple[int, int], SimilarPair] = {}
    for view in range(len(VIEWS)):
        parts = np.array([one.hashes[view] for one in prints])
        for first, second in _candidates(parts, complete):
            correlation = float(prints[first].copies[view] @ prints[second].copies[0])
            pair = min(first, second), max(first, second)
            if correlation >= similarity and (pair not in best or correlation > best[pair].similarity):
                best[pair] = SimilarPair(first, second, correlation, VIEWS[view])
    return [best[pair] for pair in sorted(best)]


def _candidates(parts: NDArray[np.uint64], complete: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Positions (of the part, of the complete image) of different images whose hashes differ in few bits."""
    for start in range(0, len(parts), _BLOCK):
        distance = np.bitwise_count(parts[start : start + _BLOCK, None] ^ complete[None, :])
        for row, column in np.argwhere(distance <= _MAX_DISTANCE).tolist():
            if start + row != column:
                yield start + row, column


def _copy(gray: Image.Image, box: Box) -> Floats:
    width, height = gray.size
    pixels = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    small = gray.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, box=pixels)
    return np.asarray(small, dtype=np.float32).ravel()


def _hashes(copies: Floats) -> NDArray[np.uint64]:
    pixels, frequencies = np.arange(_SIDE), np.arange(_FREQUENCIES)
    # (frequencies, pixels): the first rows of the cosine transform (DCT-II)
    basis = np.cos(np.pi * (2 * pixels[None, :] + 1) * frequencies[:, None] / (2 * _SIDE)).astype(np.float32)
    low = np.einsum("ua,nab,vb->nuv", basis, copies.reshape(-1, _SIDE, _SIDE), basis).reshape(len(copies), -1)
    low[:, 0] = np.median(low[:, 1:], axis=1)  # brightness is no evidence: its bit is always 0
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64).ravel()

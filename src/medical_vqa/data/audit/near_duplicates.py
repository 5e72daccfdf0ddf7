"""Images that are nearly the same: at another size, saved again, cropped, turned, mirrored, or inverted in gray.

A perceptual hash (64 signs of the low frequencies of a cosine transform) finds candidates; the correlation of small
copies confirms them. Every image and its parts are hashed, so that a crop matches the part it was cut from.
Source of the hash: Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010), ch. 3.2.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medical_vqa.data.audit import hash_search
from medical_vqa.runtime import ProgressCallback
from medical_vqa.runtime.threads import in_threads

Box = tuple[float, float, float, float]
Floats = NDArray[np.float32]

_SIDE = 32  # pixels of the small copies
_FREQUENCIES = 8  # lowest frequencies in each direction
_THUMBNAIL = 64  # pixels of the copy from which parts are taken
_MORE_SIMILAR = 1e-3  # by which a part or a turned copy must be more similar than what was found before it
SIMILARITY = 0.98
"""Correlation of two small copies from which images count as near-duplicates."""
_BLOCK = 1024  # images whose copies are measured at once
_DIRECTIONS = 16  # along which copies are compared first
_SAMPLE = 64  # copies from which the directions are taken
_ROUNDING = 1e-4  # of a bound of the correlation

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
    turned = np.stack([_turned(copies[0], turn) for turn in range(len(TURNS))])
    thumbnail = np.asarray(gray.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX), dtype=np.uint8)
    return Fingerprint(_hashes(copies), _hashes(turned), _unit(copies[0]).astype(np.float16), thumbnail)


def near_duplicates(
    prints: Sequence[Fingerprint],
    similarity: float = SIMILARITY,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> list[SimilarPair]:
    """The pairs of images that are nearly the same, each with its best similarity, in order of position.

    Also those that are the same when one of them is turned by quarters, mirrored, or inverted in gray, as X-rays often
    are (MONOCHROME1 and MONOCHROME2).

    Args:
        prints: Fingerprints of the images.
        similarity: Correlation from which two small copies are nearly the same.
        workers: Number of threads that compare; by default one per core.
        progress: Called with the number of images that were compared; the last are done when all are.
    """
    if len(prints) < 2:
        return []
    parts = _Parts(prints)
    searched, among = parts.hashes, parts.hashes[: len(prints)]
    total = len(searched) * hash_search.passes(len(among))
    done = 0
    similar: list[tuple[int, int, float]] = []

    def compared(block: hash_search.Block) -> tuple[int, list[tuple[int, int, float]]]:
        return len(block.rows), parts.similar(block, similarity)

    # numpy compares without the interpreter's lock
    for rows, pairs in in_threads(compared, hash_search.blocks(searched, among), threads=workers):
        similar += pairs
        if progress is not None and done * len(prints) // total < (done + rows) * len(prints) // total:
            progress((done + rows) * len(prints) // total, len(prints))
        done += rows
    if progress is not None and done < total:  # the rest has no hash that is near in any part
        progress(len(prints), len(prints))
    best: dict[tuple[int, int], SimilarPair] = {}
    for pair in (parts.pair(*one) for one in sorted(similar)):
        places = min(pair.first, pair.second), max(pair.first, pair.second)
        if places not in best or pair.similarity > best[places].similarity + _MORE_SIMILAR:
            best[places] = pair
    return [best[places] for places in sorted(best)]


class _Parts:
    """The parts of all images and the turned images: all first parts, all second ones ..., and the turned ones.

    Copies of medical images resemble each other in their low frequencies, so that many have close hashes. What two
    copies are along a few directions, and the lengths of what is left of both, bound their correlation from above; most
    pairs need no more.
    """

    def __init__(self, prints: Sequence[Fingerprint]) -> None:
        self._prints = prints
        self._ways = [(view, 0) for view in range(len(VIEWS))] + [(0, turn) for turn in range(1, len(TURNS))]
        columns = [one.hashes for one in prints], [one.turned_hashes[1:] for one in prints]
        self.hashes = _without_unused_bit(np.concatenate([np.array(column).T.ravel() for column in columns]))
        """Hash of each part, (parts,); the first are of the complete images."""
        self._directions = _directions(prints)
        self._low = np.empty((len(self.hashes), len(self._directions)), np.float32)
        self._rest = np.full(len(self.hashes), np.nan, np.float32)  # until a part is measured
        for start in range(0, len(prints), _BLOCK):
            self._measure(np.arange(start, min(start + _BLOCK, len(prints))))

    def similar(self, block: hash_search.Block, similarity: float) -> list[tuple[int, int, float]]:
        """Position of a part, that of an image and their correlation, negative for inverted gray."""
        images = len(self._prints)
        similar = []
        for close in hash_search.close_pairs(self.hashes, self.hashes[:images], block):
            different = close.rows % images != close.columns
            parts, others = close.rows[different], close.columns[different]
            few_differ = close.few_differ[different]
            copies = self._measure(parts)
            products = np.einsum("ij,ij->i", self._low[parts], self._low[others])
            bound = np.where(few_differ, products, -products) + self._rest[parts] * self._rest[others]
            for pair in np.flatnonzero(bound >= similarity - _ROUNDING).tolist():
                part, other = int(parts[pair]), int(others[pair])
                if part not in copies:
                    copies[part] = self._copy(part)
                correlation = float(copies[part] @ self._prints[other].copy.astype(np.float32))
                if (correlation if few_differ[pair] else -correlation) >= similarity:
                    similar.append((part, other, correlation))
        return similar

    def _measure(self, parts: NDArray[np.intp]) -> dict[int, Floats]:
        """Measure those of some parts that are not measured yet, and return them; two threads may do the same."""
        copies = {}
        for part in np.unique(parts[np.isnan(self._rest[parts])]).tolist():
            copy = copies[part] = self._copy(part)
            low = np.einsum("ij,j->i", self._directions, copy)  # not by BLAS, whose threads would wait for more work
            self._low[part] = low
            self._rest[part] = math.sqrt(max(float(copy @ copy - low @ low), 0.0))
        return copies

    def pair(self, part: int, other: int, correlation: float) -> SimilarPair:
        """A result of `similar`, for people."""
        way, first = divmod(part, len(self._prints))
        view, turn = self._ways[way]
        change = " and ".join(name for name in (INVERTED if correlation < 0 else "", TURNS[turn]) if name)
        return SimilarPair(first, other, abs(correlation), VIEWS[view], change)

    def _copy(self, part: int) -> Floats:
        way, first = divmod(part, len(self._prints))
        return _part(self._prints[first], *self._ways[way])


def _directions(prints: Sequence[Fingerprint]) -> Floats:
    """Orthonormal directions in which copies differ most, (directions, 32 * 32); which ones changes no result."""
    sample = np.array([one.copy for one in prints[:: -(-len(prints) // _SAMPLE)]], np.float32)
    _, vectors = np.linalg.eigh(sample @ sample.T)
    orthonormal: Floats = np.linalg.qr(sample.T @ vectors[:, ::-1][:, :_DIRECTIONS])[0].T
    return orthonormal


def _without_unused_bit(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hashes whose bits are the lowest: the bit of the brightness, which is always 0, is taken out."""
    unused = np.packbits(np.arange(64) == 0).view(np.uint64)
    below = unused - np.uint64(1)
    packed: NDArray[np.uint64] = (hashes & below) | ((hashes & ~below) >> np.uint64(1))
    return packed


def _part(one: Fingerprint, view: int, turn: int) -> Floats:
    """A part of an image, or all of it turned, as a copy of mean 0 and length 1."""
    if view:
        return _unit(_copy(Image.fromarray(one.thumbnail), VIEWS[view]))
    copy = one.copy.astype(np.float32)
    return _turned(copy, turn) if turn else copy


def _turned(copy: Floats, turn: int) -> Floats:
    """A small copy (32 * 32,) in one of the eight ways of `TURNS`."""
    square = copy.reshape(_SIDE, _SIDE)
    return np.rot90(square[:, ::-1] if turn >= 4 else square, turn % 4).ravel()


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

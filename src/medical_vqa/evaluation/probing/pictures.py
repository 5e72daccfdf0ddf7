"""Replaced pictures: what a question is asked about in place of its own picture."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from medical_vqa.schema.records import Example

Picture = NDArray[np.uint8]

ORIGINAL, BLACK, NOISE, SHUFFLED, OTHER_MODALITY, MIRRORED = (
    "original",
    "black",
    "noise",
    "shuffled",
    "other modality",
    "mirrored",
)
SHUFFLES = 3
"""Other pictures of the type that every question is asked about."""
REPLACED: Mapping[str, str] = {
    BLACK: "all values 0, of the same size",
    NOISE: "independent uniform random gray values, of the same size",
    SHUFFLED: f"pictures of {SHUFFLES} other rows, of the same modality and body part where there are such",
    OTHER_MODALITY: "the picture of another row, of another modality",
}
"""Pictures that do not show what the question asks about."""


def black(picture: Picture) -> Picture:
    """A black picture (height, width, channels) of the same shape."""
    return np.zeros_like(picture)


def noise(picture: Picture, key: str, seed: int = 0) -> Picture:
    """Uniform noise of the same shape, equal in all channels, the same at every call.

    Args:
        picture: The picture that it replaces (height, width, channels).
        key: Name of the picture: different pictures get different noise.
        seed: Seed of all noise.
    """
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    gray = rng.integers(0, 256, (*picture.shape[:2], 1), dtype=np.uint8)
    return np.broadcast_to(gray, picture.shape).copy()


def mirrored(picture: Picture) -> Picture:
    """Left and right exchanged."""
    return np.ascontiguousarray(picture[:, ::-1])


def other_images(rows: Sequence[Example], seed: int = 0) -> tuple[dict[str, list[str]], dict[str, str]]:
    """For every image others of its type, and one of another modality.

    Args:
        rows: All rows of a split; their facts ``modality`` and ``location`` are the type.
        seed: Seed of the choice.

    Returns:
        Image id -> ids of at most `SHUFFLES` images of the same modality and location, filled up from the modality,
        then from all others; and image id -> id of an image of another modality. Images without others are missing.
    """
    facts = {row.image_id: (row.facts.get("modality", ""), row.facts.get("location", "")) for row in rows}
    names = sorted(facts)
    same: dict[str, list[str]] = {}
    different: dict[str, str] = {}
    for name in names:
        rng = random.Random(f"{seed}/{name}")
        others = [other for other in names if other != name]
        rng.shuffle(others)
        nearness = {other: (facts[other] != facts[name], facts[other][0] != facts[name][0]) for other in others}
        alike = sorted(others, key=nearness.__getitem__)[:SHUFFLES]
        unlike = [other for other in others if facts[other][0] != facts[name][0]]
        if alike:
            same[name] = alike
        if unlike:
            different[name] = rng.choice(unlike)
    return same, different


def sampled_images(rows: Sequence[Example], limit: int | None, seed: int = 0) -> set[str]:
    """Ids of at most `limit` images; those of a smaller limit are among those of a larger one."""
    names = sorted({row.image_id for row in rows})
    random.Random(seed).shuffle(names)
    return set(names[:limit])

"""Random changes of training pictures, on their device; mirroring swaps left and right in the texts as well."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

IGNORED_CLASS = -100
"""Class of a target that is not among the answers: the loss ignores its question."""
_OPPOSITE = {"left": "right", "right": "left", "左": "右", "右": "左"}
_SIDES = re.compile(r"\b(?:left|right)(?=(?:most)?\b)|左|右")


@dataclass(frozen=True, slots=True)
class Augment:
    """Rotate, shift and scale by one bilinear resampling, then change brightness and contrast."""

    rotate: float
    """Largest rotation, degrees, either way."""
    shift: float
    """Largest shift, as a fraction of the side, each way."""
    scale: float
    """Largest change of size, as a fraction."""
    intensity: float
    """Largest change of brightness, as a fraction; contrast (gamma) changes by up to twice that."""

    def __call__(self, pictures: Tensor, transforms: Tensor | None = None) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the same shape; pixels from outside the picture are black."""
        transforms = self.transforms(pictures) if transforms is None else transforms
        resampled = resample(pictures, transforms, pictures.shape[-2:])
        gamma, gain = (1 + amount * _uniform(pictures, (1, 1, 1)) for amount in (2 * self.intensity, self.intensity))
        return resampled.clamp(1e-4, 1.0) ** gamma * gain

    def transforms(self, pictures: Tensor) -> Tensor:
        """One affine map of normalized coordinates per picture: (B, 2, 3)."""
        angle = math.radians(self.rotate) * _uniform(pictures, ())
        size = 1 + self.scale * _uniform(pictures, ())
        shift = 2 * self.shift * _uniform(pictures, (2,))  # coordinates run from -1 to 1
        cos, sin = size * angle.cos(), size * angle.sin()
        linear = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], 1)
        return torch.cat([linear, shift.unsqueeze(-1)], -1)


def resample(x: Tensor, transforms: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, h, w) -> (B, C, *size) through one affine map each (B, 2, 3); zero where a pixel comes from outside."""
    grid = F.affine_grid(transforms, [x.shape[0], x.shape[1], *size], align_corners=False)  # len() would fix a graph
    return F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)


def compose_affine(outer: Tensor | None, inner: Tensor | None) -> Tensor | None:
    """One affine map for two (B, 2, 3): `outer` applied to the result of `inner`; None stands for the identity."""
    if outer is None or inner is None:
        return inner if outer is None else outer
    linear = outer[:, :, :2]
    return torch.cat([linear @ inner[:, :, :2], linear @ inner[:, :, 2:] + outer[:, :, 2:]], 2)


@dataclass(frozen=True, slots=True)
class Mirror:
    """Left for right, in pictures, regions, questions and answers alike."""

    fraction: float
    """Fraction of the pictures that are mirrored."""
    words: Tensor
    """(words,): the word that replaces each word."""
    answers: Tensor
    """(answers,): the answer that replaces each answer; `IGNORED_CLASS` where training has none."""
    regions: Tensor
    """(regions,): the region that replaces each region."""

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch with some of its pictures mirrored, and their questions, answers and regions."""
        pictures = batch["pictures"]
        mirrored = torch.rand(len(pictures), device=pictures.device) < self.fraction
        mirrored_questions = mirrored[batch["image_of"]]
        out = dict(batch)
        out["pictures"] = torch.where(mirrored[:, None, None, None], pictures.flip(2), pictures)
        out["words"] = torch.where(mirrored_questions[:, None], self.words[batch["words"]], batch["words"])
        out["target"] = torch.where(mirrored_questions, self.answers[batch["target"]], batch["target"])
        if "regions" in batch:
            regions = batch["regions"]
            out["regions"] = torch.where(mirrored[:, None, None, None], regions[:, self.regions].flip(3), regions)
        return out


def mirror_text(text: str) -> str:
    """The text with left and right swapped, in English and Chinese; lower case."""
    return _SIDES.sub(lambda match: _OPPOSITE[match.group()], text.lower())


def _uniform(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Uniform in [-1, 1), one set of values per picture: (B, *shape)."""
    return torch.rand(len(like), *shape, device=like.device) * 2 - 1


def augment_pictures(pictures: Sequence[NDArray[np.uint8]], augment: Augment | None) -> list[NDArray[np.uint8]]:
    """Prepared pictures (H, W, C) of any sizes, each with its own random changes; unchanged where `augment` is None."""
    if augment is None:
        return list(pictures)
    changed = []
    for picture in pictures:
        pixels = augment(torch.tensor(picture).permute(2, 0, 1).unsqueeze(0) / 255.0)[0].permute(1, 2, 0)
        changed.append((pixels.clamp(0, 1) * 255).round().byte().numpy())
    return changed

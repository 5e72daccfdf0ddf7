"""Small random changes to a batch of pictures, on its device; a flip swaps left and right in what is said."""

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

UNSAID = -100
"""The class of a target that is not among the answers: its question is left out of the loss."""
_OTHER = {"left": "right", "right": "left", "左": "右", "右": "左"}
_SIDES = re.compile(r"\b(?:left|right)(?=(?:most)?\b)|左|右")


@dataclass(frozen=True, slots=True)
class Augment:
    """Turn, shift and scale by one bilinear resampling, then change brightness and contrast."""

    rotate: float
    """Largest turn, degrees, either way."""
    shift: float
    """Largest shift, as a share of the side, each way."""
    scale: float
    """Largest change of size, as a share."""
    intensity: float
    """Largest change of brightness, as a share; contrast (gamma) changes by up to twice that."""

    def __call__(self, pictures: Tensor, transforms: Tensor | None = None) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the same shape; what comes in from outside the picture is black."""
        there = moved(pictures, self.transforms(pictures) if transforms is None else transforms, pictures.shape[-2:])
        gamma, gain = (1 + amount * _uniform(pictures, (1, 1, 1)) for amount in (2 * self.intensity, self.intensity))
        return there.clamp(1e-4, 1.0) ** gamma * gain

    def transforms(self, pictures: Tensor) -> Tensor:
        """One affine map of normalized coordinates per picture: (B, 2, 3)."""
        angle = math.radians(self.rotate) * _uniform(pictures, ())
        size = 1 + self.scale * _uniform(pictures, ())
        shift = 2 * self.shift * _uniform(pictures, (2,))  # coordinates run from -1 to 1
        cos, sin = size * angle.cos(), size * angle.sin()
        linear = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], 1)
        return torch.cat([linear, shift.unsqueeze(-1)], -1)


def moved(x: Tensor, transforms: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, h, w) resampled at `size` through one affine map each (B, 2, 3); zero where it comes from outside."""
    grid = F.affine_grid(transforms, [x.shape[0], x.shape[1], *size], align_corners=False)  # len() would fix a graph
    return F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)


@dataclass(frozen=True, slots=True)
class Mirror:
    """Left for right, in pictures, regions, questions and answers alike."""

    share: float
    """Of the pictures that are mirrored."""
    words: Tensor
    """(words,): the word that each word becomes."""
    answers: Tensor
    """(answers,): the answer that each answer becomes; `UNSAID` where training has none."""
    regions: Tensor
    """(regions,): the kind of region that each kind becomes."""

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch with some of its pictures mirrored, and all that is said about them."""
        pictures = batch["pictures"]
        turned = torch.rand(len(pictures), device=pictures.device) < self.share
        asked = turned[batch["image_of"]]
        out = dict(batch)
        out["pictures"] = torch.where(turned[:, None, None, None], pictures.flip(2), pictures)
        out["words"] = torch.where(asked[:, None], self.words[batch["words"]], batch["words"])
        out["target"] = torch.where(asked, self.answers[batch["target"]], batch["target"])
        if "regions" in batch:
            there = batch["regions"]
            out["regions"] = torch.where(turned[:, None, None, None], there[:, self.regions].flip(3), there)
        return out


def mirrored(text: str) -> str:
    """The text with left for right and right for left, in English and Chinese; lower case."""
    return _SIDES.sub(lambda match: _OTHER[match.group()], text.lower())


def _uniform(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Uniform in [-1, 1), one set of values per picture: (B, *shape)."""
    return torch.rand(len(like), *shape, device=like.device) * 2 - 1


def augmented(pictures: Sequence[NDArray[np.uint8]], augment: Augment | None) -> list[NDArray[np.uint8]]:
    """Prepared pictures (H, W, C), each changed a little; as they are where `augment` is None."""
    if augment is None:
        return list(pictures)
    return [_changed(picture, augment) for picture in pictures]


def _changed(picture: NDArray[np.uint8], augment: Augment) -> NDArray[np.uint8]:
    moved = augment(torch.tensor(picture).permute(2, 0, 1).unsqueeze(0) / 255.0)
    pixels: NDArray[np.uint8] = (moved[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
    return pixels

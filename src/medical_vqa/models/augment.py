"""Small random changes to a batch of pictures, on its device; no flips, because left and right carry meaning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


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

    def __call__(self, pictures: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the same shape; what comes in from outside the picture is black."""
        moved = F.grid_sample(
            pictures,
            F.affine_grid(self._transforms(pictures), list(pictures.shape), align_corners=False),
            padding_mode="zeros",
            align_corners=False,
        )
        gamma, gain = (1 + amount * _uniform(pictures, (1, 1, 1)) for amount in (2 * self.intensity, self.intensity))
        return moved.clamp(1e-4, 1.0) ** gamma * gain

    def _transforms(self, pictures: Tensor) -> Tensor:
        """One affine map of normalised coordinates per picture: (B, 2, 3)."""
        angle = math.radians(self.rotate) * _uniform(pictures, ())
        size = 1 + self.scale * _uniform(pictures, ())
        shift = 2 * self.shift * _uniform(pictures, (2,))  # coordinates run from -1 to 1
        cos, sin = size * angle.cos(), size * angle.sin()
        linear = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], 1)
        return torch.cat([linear, shift.unsqueeze(-1)], -1)


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

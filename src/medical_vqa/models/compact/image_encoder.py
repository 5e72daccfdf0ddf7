"""The image half of the compact network: from pictures to tokens, and the foreground that is cut out of them.

Shapes: B images, T image tokens, D channels, R regions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medical_vqa.models.augment import resample
from medical_vqa.models.compact.region_heads import PresenceHead, RegionHead, upsampled
from medical_vqa.models.compact.trunk import EfficientNetLite

_FOREGROUND_BRIGHTNESS = 0.08
"""Brightness, in [0, 1], above which a cell of the picture is foreground."""
_FOREGROUND_FRACTION = 0.12
"""Fraction of a row's or column's cells above which it belongs to the foreground's square."""
_FOREGROUND_MARGIN = 0.05
"""Added on both sides of the foreground, as a fraction of the picture's side."""
_MIN_FOREGROUND_SIDE = 0.45
"""Least side of the square, as a fraction of the picture's side, so that small structures are not enlarged much."""
_MIN_DEVIATION = 0.05
"""Added to the deviation of a window, so that noise in dark, even areas is not amplified."""


def to_unit_range(pictures: Tensor) -> Tensor:
    """uint8 (B, H, W, C) -> float (B, C, H, W) in [0, 1], in the memory format channels last, fast on a CPU."""
    return pictures.permute(0, 3, 1, 2).float() / 255.0


def local_contrast(pictures: Tensor) -> Tensor:
    """(B, 1, H, W) in [0, 1] -> each pixel's difference from its surroundings, in deviations: alike at any exposure."""
    size = (int(pictures.shape[-2]), int(pictures.shape[-1]))  # numbers, so that an exported graph has them fixed
    step = max(1, size[1] // 40)
    mean, square = (_window_mean(F.avg_pool2d(x, step, ceil_mode=True)) for x in (pictures, pictures**2))
    deviation = (square - mean**2).clamp(min=0).sqrt() + _MIN_DEVIATION
    mean, deviation = (F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in (mean, deviation))
    return (pictures - mean) / deviation


def _window_mean(x: Tensor) -> Tensor:
    """The mean over a square window, a fifth of the picture wide, without what is beyond the border."""
    half = int(x.shape[-1]) // 10
    return F.avg_pool2d(x, 2 * half + 1, 1, half, count_include_pad=False)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalization around a shortcut; halves height and width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ceil(H/2), ceil(W/2))."""
        y = F.relu(self.norm1(self.conv1(x)))
        changed: Tensor = self.norm2(self.conv2(y))
        return F.relu(changed + self.shortcut(x))


class ImageEncoder(nn.Module):
    """Grayscale picture -> T tokens, one for each cell of a coarse grid, with a position embedding.

    With `regions` it also localizes R organs and findings, on a grid twice as fine, and adds an embedding of them to
    the tokens; with `presence` it says of the whole picture as well which of them it shows. With `contrast` its input
    has the picture's local contrast as a second channel. With `foreground` its input is a square of that side, cut out
    around what is not dark.
    With `trunk` a pretrained one (`EfficientNetLite`) replaces the residual blocks; its three channels are the picture,
    its local contrast, and the picture again.
    """

    def __init__(
        self,
        side: int,
        channels: tuple[int, ...],
        width: int,
        regions: int = 0,
        *,
        contrast: bool = False,
        foreground: int | None = None,
        trunk: EfficientNetLite | None = None,
        region_stride: int = 8,
        presence: bool = False,
    ) -> None:
        super().__init__()
        self.contrast = contrast
        self.foreground = foreground
        if trunk is None:
            stem, *deeper = channels
            self.stem = nn.Sequential(
                nn.Conv2d(1 + contrast, stem, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(stem), nn.ReLU()
            )
            self.blocks = nn.Sequential(*(ResidualBlock(a, b) for a, b in zip(channels, deeper, strict=False)))
            fine_channels, coarse_channels, stride = channels[-2], channels[-1], 2 ** len(channels)
            finest_channels = None
        else:
            fine_channels, coarse_channels, stride = trunk.fine_channels, trunk.coarse_channels, trunk.fine_stride
            self.fine_projection = nn.Conv2d(fine_channels, width, 1)
            finest_channels = trunk.finest_channels if region_stride < stride else None
        self.trunk = trunk
        self.projection = nn.Conv2d(coarse_channels, width, 1)
        self.cells = -(-(foreground or side) // stride)
        self.position_embedding = nn.Parameter(torch.randn(self.cells**2, width) * 0.02)
        self.norm = nn.LayerNorm(width)
        self.region_head = (
            RegionHead(fine_channels, coarse_channels, width, regions, finest=finest_channels) if regions else None
        )
        self.presence_head = PresenceHead(width, regions) if regions and presence else None

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 1, side, side) in [0, 1] -> (B, T, D)."""
        return self.encode(pictures).tokens

    def encode(self, pictures: Tensor) -> EncodedImages:
        """Pictures (B, 1, side, side) in [0, 1] -> tokens, regions and frame."""
        frame = None
        if self.foreground is not None:
            frame = foreground_frame(pictures)
            pictures = resample(pictures, frame, (self.foreground, self.foreground))
        finest, fine, coarse = self._features(pictures)
        x = self.projection(coarse)
        if self.trunk is not None:
            x = self.fine_projection(fine) + upsampled(x, fine)
        presence_logits = None
        if self.presence_head is not None:
            presence_logits = self.presence_head(x)
            x = x + self.presence_head.embed(presence_logits)
        region_logits = None
        if self.region_head is not None:
            region_logits = self.region_head(fine, coarse, finest)
            x = x + self.region_head.embed(region_logits, (self.cells, self.cells))
        tokens = self.norm(x.flatten(2).transpose(1, 2) + self.position_embedding)
        return EncodedImages(tokens, region_logits, frame, presence_logits)

    def _features(self, pictures: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """(B, 1, side, side) in [0, 1] -> features at two or three scales, each half as fine as the one before."""
        x = (pictures - 0.25) * 4.0  # radiographs and slices are mostly dark: mean near 0.25, deviation near 0.25
        contrast = local_contrast(pictures) if self.contrast else None
        if self.trunk is not None:
            features: tuple[Tensor, Tensor, Tensor] = self.trunk(
                torch.cat([x, x if contrast is None else contrast, x], 1)
            )
            return features
        fine = self.blocks[:-1](self.stem(x if contrast is None else torch.cat([x, contrast], 1)))
        return None, fine, self.blocks[-1](fine)


class EncodedImages(NamedTuple):
    """Output of the image encoder."""

    tokens: Tensor
    """Image tokens (B, T, D)."""
    region_logits: Tensor | None
    """A logit for every region and fine cell of the frame (B, R, h, w); None where regions are not learned."""
    frame: Tensor | None
    """Affine maps (B, 2, 3) from the foreground's square to the picture; None where the input was the whole picture."""
    presence_logits: Tensor | None = None
    """A logit for every region, whether the picture shows it (B, R); None where that is not learned."""

    def region_probabilities(self) -> Tensor | None:
        """Probability of each region in each cell of the whole picture (B, R, h, w)."""
        if self.region_logits is None:
            return None
        if self.frame is None:
            return self.region_logits.sigmoid()
        half, shift = self.frame[:, :1, :1], self.frame[:, :, 2:]
        inverse = torch.cat([self.frame[:, :, :2] / half**2, -shift / half], 2)  # the linear part is half the identity
        size = (int(self.region_logits.shape[2]), int(self.region_logits.shape[3]))
        return resample(self.region_logits.sigmoid(), inverse, size)


def foreground_frame(pictures: Tensor) -> Tensor:
    """(B, 1, side, side) in [0, 1] -> affine maps (B, 2, 3) that cut out a square around what is not dark.

    Thin lines, such as the table under a patient, do not count: a cell is foreground where most cells around it are.
    """
    side = int(pictures.shape[-1])
    step = max(1, side // 40)
    brightness = F.avg_pool2d(pictures, step, ceil_mode=True, count_include_pad=False)[:, 0]
    bright = (brightness > _FOREGROUND_BRIGHTNESS).float()
    foreground = (F.avg_pool2d(bright.unsqueeze(1), 5, 1, 2, count_include_pad=False)[:, 0] > 0.5).float()
    left, right = _extent(foreground.mean(1) > _FOREGROUND_FRACTION, step / side)
    top, bottom = _extent(foreground.mean(2) > _FOREGROUND_FRACTION, step / side)
    half = (torch.maximum(right - left, bottom - top) + _FOREGROUND_MARGIN).clamp(_MIN_FOREGROUND_SIDE, 1.0)
    whole_picture = half > 0.99
    x, y = (torch.where(whole_picture, 0.0, start + end - 1.0) for start, end in ((left, right), (top, bottom)))
    zero = torch.zeros_like(half)
    return torch.stack([torch.stack([half, zero, x], -1), torch.stack([zero, half, y], -1)], 1)


def _extent(mask: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """Start of the first and end of the last true cell of each row (B, cells), as fractions of the side."""
    first, last = mask.float().argmax(1), mask.shape[1] - mask.flip(1).float().argmax(1)
    empty = ~mask.any(1)
    start = torch.where(empty, 0.0, first * step)
    return start, torch.where(empty, 1.0, (last * step).clamp(max=1.0))

"""Organs and findings of a picture in the compact network: where they are, whether they are shown, and their losses.

Shapes: B images, D channels, R regions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medical_vqa.data.cache.regions import FULL, UNKNOWN
from medical_vqa.models.augment import resample


class RegionHead(nn.Module):
    """Classifies each cell by features at two or three scales, and embeds the result for the image tokens."""

    def __init__(self, fine: int, coarse: int, width: int, regions: int, *, finest: int | None = None) -> None:
        super().__init__()
        self.finest = nn.Conv2d(finest, width // 2, 1) if finest else None
        self.fine = nn.Conv2d(fine, width // 2, 1)
        self.coarse = nn.Conv2d(coarse, width // 2, 1)
        self.classifier = nn.Conv2d(width // 2, regions, 1)
        self.embedding = nn.Conv2d(regions, width, 1)
        nn.init.constant_(self.classifier.bias, -4.0)  # type: ignore[arg-type]  # most cells contain no region

    def forward(self, fine: Tensor, coarse: Tensor, finest: Tensor | None = None) -> Tensor:
        """Features at two or three scales -> logits (B, R, H, W) at the finest one."""
        x = self.fine(fine) + upsampled(self.coarse(coarse), fine)
        if self.finest is not None and finest is not None:
            x = self.finest(finest) + upsampled(x, finest)
        logits: Tensor = self.classifier(F.relu(x))
        return logits

    def embed(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits (B, R, H, W) -> an embedding for each token (B, D, *size)."""
        embedded: Tensor = self.embedding(F.adaptive_avg_pool2d(logits.sigmoid(), size))
        return embedded


class PresenceHead(nn.Module):
    """Says of the whole picture which regions it shows, and embeds the result for the image tokens."""

    def __init__(self, width: int, regions: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(2 * width, regions)
        self.embedding = nn.Linear(regions, width)
        nn.init.constant_(self.classifier.bias, -2.0)  # most pictures show few of them

    def forward(self, x: Tensor) -> Tensor:
        """Features of the tokens (B, D, h, w) -> logits (B, R)."""
        x = F.relu(x).flatten(2)
        logits: Tensor = self.classifier(torch.cat([x.mean(2), x.amax(2)], 1))
        return logits

    def embed(self, logits: Tensor) -> Tensor:
        """Logits (B, R) -> an embedding for all tokens of a picture (B, D, 1, 1)."""
        embedded: Tensor = self.embedding(logits.sigmoid())
        return embedded[:, :, None, None]


def upsampled(coarse: Tensor, fine: Tensor) -> Tensor:
    """`coarse` (B, C, h, w) at the height and width of `fine`."""
    height, width = (int(n) for n in fine.shape[-2:])  # numbers, so that an exported graph has them fixed
    return F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)


def region_loss(logits: Tensor, regions: Tensor, transforms: Tensor | None) -> Tensor:
    """Binary cross entropy of localized regions, summed over the regions known of an image, mean over cells and images.

    Args:
        logits: Logits (B, R, H, W).
        regions: Targets as `data.cache.regions` stores them, uint8 (B, R, h, w).
        transforms: Affine maps (B, 2, 3) by which the pictures were resampled; None where they were not.
    """
    known = (regions[:, :, :1, :1] != UNKNOWN).float()
    targets = regions.float() / FULL * known
    size = (logits.shape[2], logits.shape[3])
    targets = F.adaptive_avg_pool2d(targets, size) if transforms is None else resample(targets, transforms, size)
    each = F.binary_cross_entropy_with_logits(logits, targets.clamp(0, 1), reduction="none") * known
    return each.sum(1).mean()


def presence_loss(logits: Tensor, regions: Tensor) -> Tensor:
    """Binary cross entropy of which regions pictures show, summed over those known of an image, mean over images.

    Args:
        logits: Logits (B, R).
        regions: Targets as `data.cache.regions` stores them, uint8 (B, R, h, w).
    """
    known = (regions[:, :, 0, 0] != UNKNOWN).float()
    visible = (regions.amax((2, 3)) > 0).float() * known
    each = F.binary_cross_entropy_with_logits(logits, visible, reduction="none") * known
    return each.sum(1).mean()

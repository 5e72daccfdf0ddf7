"""Options that several model families share: how pictures are prepared and augmented, where adapters go.

No module here imports torch, so that a recipe can be validated without it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from medical_vqa.config.recipe import Fraction, Section


class PictureOptions(Section):
    """How every picture is prepared."""

    side: Annotated[int, Field(ge=16, le=2048)] = 160
    """Side of the picture, pixels."""
    mode: Literal["L", "RGB"] = "L"
    """Grayscale or color."""
    fit: Literal["stretch", "pad", "inside"] = "stretch"
    """Stretch to a square, pad to a square, or fit inside it."""


class AugmentOptions(Section):
    """Small random changes to training pictures; no flips, because left and right carry meaning."""

    rotate: Annotated[float, Field(ge=0, le=45)] = 10.0
    """Largest rotation, degrees, either way."""
    shift: Fraction = 0.06
    """Largest shift, as a fraction of the side, each way."""
    scale: Fraction = 0.1
    """Largest change of size, as a fraction."""
    intensity: Fraction = 0.15
    """Largest change of brightness and contrast, as a fraction."""

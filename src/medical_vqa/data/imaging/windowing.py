"""From the values of a scanner to 8 bits: which values are black and which white."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Ramp = Callable[["NDArray[Any]"], "NDArray[Any]"]
"""From values to brightness: 0 is black, 1 white, beyond is clipped."""

_STRIP = 2_000_000  # values converted at once, so that no second copy of a large picture is made as float64
_SAMPLE = 1_000_000  # values that percentiles are taken of
_PERCENTILES = (0.5, 99.5)


def ramp(low: float, high: float) -> Ramp:
    """Straight from `low` (black) to `high` (white); a step where they are the same."""
    if high <= low:
        return lambda values: (values > low).astype(np.float64)
    return lambda values: (values - low) / (high - low)


def sigmoid(center: float, width: float) -> Ramp:
    """The smooth window of DICOM. Source: PS3.3 C.11.2.1.3.1."""
    return lambda values: 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))


def percentile_range(values: NDArray[Any]) -> tuple[float, float]:
    """The values that half a per cent lie below, and above; values that are not numbers do not count."""
    flat = values.reshape(-1)
    some = flat[:: max(1, flat.size // _SAMPLE)].astype(np.float64)
    finite = some[np.isfinite(some)]
    if not finite.size:
        return 0.0, 0.0
    low, high = np.percentile(finite, _PERCENTILES)
    return (float(low), float(high)) if high > low else (float(finite.min()), float(finite.max()))


def to_8_bits(values: NDArray[Any], shade: Ramp, *, inverted: bool = False) -> NDArray[np.uint8]:
    """Values (height, width) as uint8 (height, width, 1); what is not a number becomes the darkest."""
    pixels = np.empty((*values.shape, 1), dtype=np.uint8)
    rows = max(1, _STRIP // values.shape[1])
    for top in range(0, values.shape[0], rows):
        with np.errstate(over="ignore", invalid="ignore"):
            bright = np.nan_to_num(shade(values[top : top + rows].astype(np.float64)), nan=0.0) * 255
        pixels[top : top + rows, :, 0] = np.rint(np.clip(bright, 0, 255))
    return 255 - pixels if inverted else pixels

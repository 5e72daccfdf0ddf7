"""Windowing: mapping of a scanner's values to 8 bits, from black to white."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Ramp = Callable[["NDArray[Any]"], "NDArray[Any]"]
"""Function from values to brightness: 0 is black, 1 white, values outside are clipped."""

_STRIP = 2_000_000  # values converted at once, so that no float64 copy of a large image is needed
_SAMPLE = 1_000_000  # values that percentiles are computed from
_PERCENTILES = (0.5, 99.5)


def ramp(low: float, high: float) -> Ramp:
    """A linear ramp from `low` (black) to `high` (white); a step where they are equal."""
    if high <= low:
        return lambda values: (values > low).astype(np.float64)
    return lambda values: (values - low) / (high - low)


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A header's table from the scanner's values to brightness, in place of a window."""

    first: int
    """The value of the first entry; smaller values have this entry too, larger ones than the last have the last."""
    entries: NDArray[np.uint8]
    """Brightness of each value from the first: 0 is black, 255 white."""

    def __call__(self, values: NDArray[Any]) -> NDArray[Any]:
        """The brightness of values in the scanner's units."""
        indices = np.clip(np.nan_to_num(values), self.first, self.first + len(self.entries) - 1) - self.first
        brightness: NDArray[Any] = self.entries[indices.astype(np.int64)] / 255
        return brightness


def window_ends(window: tuple[float, float]) -> tuple[float, float]:
    """The values that a window of this center and width shows as black and as white."""
    center, width = window
    return center - width / 2, center + width / 2


def windowed(center: float, width: float, function: str) -> Ramp:
    """Brightness by a window of a DICOM header. Source: PS3.3, C.11.2.1.2 and C.11.2.1.3.

    Args:
        center: Center of the window.
        width: Its width. A linear window is at least 1 wide; a narrower one, as of rescaled PET, can only be meant as
            an exact one.
        function: VOILUTFunction: ``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID``.
    """
    if function == "SIGMOID":
        return lambda values: 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    if function != "LINEAR_EXACT" and width >= 1:
        center, width = center - 0.5, width - 1
    return ramp(center - width / 2, center + width / 2)


def percentile_range(values: NDArray[Any]) -> tuple[float, float]:
    """The 0.5th and 99.5th percentile of the finite values; their range where those are equal, (0, 0) without any."""
    flat = values.reshape(-1)
    sample = flat[:: max(1, flat.size // _SAMPLE)].astype(np.float64)
    finite = sample[np.isfinite(sample)]
    if not finite.size:
        return 0.0, 0.0
    low, high = np.percentile(finite, _PERCENTILES)
    return (float(low), float(high)) if high > low else (float(finite.min()), float(finite.max()))


def to_8_bits(values: NDArray[Any], brightness: Ramp, *, inverted: bool = False) -> NDArray[np.uint8]:
    """Values (height, width) as uint8 (height, width, 1); NaN becomes the darkest."""
    pixels = np.empty((*values.shape, 1), dtype=np.uint8)
    rows = max(1, _STRIP // values.shape[1])
    for top in range(0, values.shape[0], rows):
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.nan_to_num(brightness(values[top : top + rows].astype(np.float64)), nan=0.0) * 255
        pixels[top : top + rows, :, 0] = np.rint(np.clip(scaled, 0, 255))
    return 255 - pixels if inverted else pixels

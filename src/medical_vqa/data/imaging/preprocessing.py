"""The picture that a model receives: an image at its size and color, the same in training, prediction and serving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from PIL import Image

from medical_vqa.data.imaging.raster import MIN_SIDE
from medical_vqa.errors import ConfigError
from medical_vqa.text import did_you_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PictureSpec:
    """Size, color and aspect of the picture that a model receives."""

    side: int = 160
    """Longest side in pixels."""
    mode: Literal["L", "RGB"] = "L"
    """``L`` for grayscale, one channel; ``RGB`` for three."""
    fit: Literal["stretch", "pad", "inside"] = "stretch"
    """``stretch``: side x side, aspect lost. ``pad``: the longest side becomes `side`, centered on a black square.
    ``inside``: the longest side becomes at most `side`, aspect kept, never enlarged."""
    windows: tuple[tuple[float, float], ...] = ()
    """Three windows of CT, center and width in Hounsfield units, that become red, green and blue; empty: one window."""

    def __post_init__(self) -> None:
        if not isinstance(self.side, int) or not MIN_SIDE <= self.side <= 4096:
            raise ConfigError(f"picture side is {self.side!r}; give a whole number of pixels from {MIN_SIDE} to 4096")
        if self.mode not in ("L", "RGB"):
            raise ConfigError(f"picture mode is {self.mode!r}; give L or RGB")
        if self.fit not in ("stretch", "pad", "inside"):
            raise ConfigError(f"picture fit is {self.fit!r}; give stretch, pad or inside")
        if len(self.windows) not in (0, 3) or (self.windows and self.mode != "RGB"):
            raise ConfigError(f"picture has {len(self.windows)} windows; give three, for an RGB picture, or none")

    @property
    def key(self) -> str:
        """Name for files and folders: ``L-160-stretch``."""
        windows = "".join(f"-{center:g}w{width:g}" for center, width in self.windows)
        return f"{self.mode}-{self.side}-{self.fit}{windows}"

    @property
    def channels(self) -> int:
        """Number of channels: 1 for grayscale, 3 for RGB."""
        return len(self.mode)

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the fields above."""
        row = asdict(self)
        return row if self.windows else {name: value for name, value in row.items() if name != "windows"}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read back what `to_json` wrote; raises `ConfigError` on unknown fields and impossible values."""
        known = [f.name for f in fields(cls)]
        if unknown := sorted(set(row) - set(known)):
            raise ConfigError(
                f"unknown field {unknown[0]!r} in a picture specification; {did_you_mean(unknown[0], known)}"
            )
        windows = tuple((float(center), float(width)) for center, width in row.get("windows", ()))
        return cls(**{**row, "windows": windows})


def prepare_picture(image: Image.Image, spec: PictureSpec) -> NDArray[np.uint8]:
    """The picture for a model: uint8 (height, width, channels), resized with antialiased bicubic filtering."""
    picture = image if image.mode == spec.mode else image.convert(spec.mode)
    size = prepared_size(picture.size, spec)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(picture, dtype=np.uint8).reshape(size[1], size[0], spec.channels)
    return _padded(pixels, spec.side) if spec.fit == "pad" else np.array(pixels)


def prepared_size(size: tuple[int, int], spec: PictureSpec) -> tuple[int, int]:
    """Width and height of an image of this size after preparation, without padding."""
    if spec.fit == "stretch":
        return spec.side, spec.side
    scale = spec.side / max(size)
    if spec.fit == "inside":
        scale = min(scale, 1.0)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _padded(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    height, width, channels = pixels.shape
    square = np.zeros((side, side, channels), dtype=np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square

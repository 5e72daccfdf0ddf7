"""Decoding and preparing of pictures in one place: what is accepted, how it becomes RGB, what size a model sees.

Every picture of this project, of a dataset, of `medical-vqa ask` or of the server, passes `open_image` and then
`prepare_picture`, so training and use cannot drift apart.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from PIL import Image, ImageFile, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from medical_vqa.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_SIDE = 8
"""Pixels; a smaller picture shows nothing that a question could be about."""
MAX_PIXELS = 64_000_000
"""Width times height; a larger picture is refused by its header, before it is decoded."""

# The plugin classes and not `Image.open`: that one warns about large pictures before their size can be looked at.
_FORMATS: tuple[tuple[bytes, type[ImageFile.ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"II*\x00", TiffImageFile),
    (b"MM\x00*", TiffImageFile),
    (b"II+\x00", TiffImageFile),
    (b"MM\x00+", TiffImageFile),
    (b"RIFF", WebPImageFile),
    (b"BM", BmpImageFile),
)
_WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
# What Pillow's decoders raise on damaged files; Warning, because a program may have turned warnings into errors.
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError,
    EOFError, MemoryError, RuntimeError, NotImplementedError, struct.error, zlib.error, Warning,
)  # fmt: skip


def open_image(data: bytes, name: str) -> Image.Image:
    """Decode a picture: RGB, upright, 8 bits.

    JPEG, PNG, BMP, TIFF and WebP are read, the first frame of each. The EXIF turn is applied, transparent parts
    are laid over black, and pixels wider than 8 bits are stretched from the picture's own minimum..maximum to
    0..255 (a flat picture becomes black).

    Args:
        data: The file's bytes.
        name: What the message calls the picture.

    Raises:
        ImageError: Another format, damaged or truncated data, a side under `MIN_SIDE` or more than `MAX_PIXELS`.
    """
    try:
        with _opened(data, name) as image:
            _check_size(image.size, name)
            image.load()
            return _upright_rgb(image)
    except _DECODER_ERRORS as error:
        raise ImageError(
            f"{name}: expected a whole picture, but it cannot be decoded ({error}); get the file again"
        ) from error


def open_image_file(path: Path) -> Image.Image:
    """`open_image` on a file; raises `ImageError` also where it is missing or not a file."""
    return open_image(read_image_file(path), str(path))


def read_image_file(path: Path) -> bytes:
    """The bytes of a picture file; raises `ImageError` where it is missing, not a file or not readable."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ImageError(f"{path}: expected a picture, but it {what}; check the path")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); check the file's permissions") from error


def image_size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height in pixels, upright, read from the header alone; raises `ImageError` like `open_image`."""
    try:
        with _opened(data, name) as image:
            _check_size(image.size, name)
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # EXIF orientation: the sides are swapped
            return (image.height, image.width) if turned else (image.width, image.height)
    except _DECODER_ERRORS as error:
        raise ImageError(
            f"{name}: expected a whole picture, but its header is damaged ({error}); get the file again"
        ) from error


def _opened(data: bytes, name: str) -> ImageFile.ImageFile:
    for magic, plugin in _FORMATS:
        if data.startswith(magic):
            return plugin(io.BytesIO(data))
    raise ImageError(f"{name}: expected a JPEG, PNG, BMP, TIFF or WebP picture, got something else; convert it to PNG")


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{name}: is {width}x{height} pixels; give a picture of at least {MIN_SIDE} pixels a side")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name}: is {width}x{height} pixels; make it smaller than {MAX_PIXELS // 1_000_000} million pixels"
        )


def _upright_rgb(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if upright.mode in _WIDE_MODES:
        return _stretched_to_8_bits(np.asarray(upright)).convert("RGB")
    if upright.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        black = Image.new("RGBA", layer.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, layer).convert("RGB")
    return upright.convert("RGB")


def _stretched_to_8_bits(pixels: NDArray[Any]) -> Image.Image:
    values = pixels.astype(np.float64)  # (height, width)
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    if high <= low:
        return Image.fromarray(np.zeros(values.shape, dtype=np.uint8))
    scaled = (np.clip(np.nan_to_num(values, nan=low), low, high) - low) * (255.0 / (high - low))
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


@dataclass(frozen=True, slots=True)
class PictureSpec:
    """How a model wants its picture."""

    side: int = 160
    """Pixels."""
    mode: Literal["L", "RGB"] = "L"
    """``L`` is greyscale, one channel; ``RGB`` has three."""
    fit: Literal["stretch", "pad", "inside"] = "stretch"
    """``stretch``: side x side, aspect lost. ``pad``: the longest side becomes `side`, centred on a black square.
    ``inside``: the longest side becomes at most `side`, aspect kept, never enlarged."""

    def __post_init__(self) -> None:
        if not isinstance(self.side, int) or not MIN_SIDE <= self.side <= 4096:
            raise ConfigError(f"picture side is {self.side!r}; give a whole number of pixels from {MIN_SIDE} to 4096")
        if self.mode not in ("L", "RGB"):
            raise ConfigError(f"picture mode is {self.mode!r}; give L or RGB")
        if self.fit not in ("stretch", "pad", "inside"):
            raise ConfigError(f"picture fit is {self.fit!r}; give stretch, pad or inside")

    @property
    def key(self) -> str:
        """A name for files and folders: ``L-160-stretch``."""
        return f"{self.mode}-{self.side}-{self.fit}"

    @property
    def channels(self) -> int:
        """1 for greyscale, 3 for RGB."""
        return len(self.mode)

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the fields above."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read back what `to_json` wrote; raises `ConfigError` on unknown fields and impossible values."""
        known = [f.name for f in fields(cls)]
        if unknown := sorted(set(row) - set(known)):
            raise ConfigError(
                f"unknown field {unknown[0]!r} in a picture specification; the fields are {', '.join(known)}"
            )
        return cls(**row)


def prepare_picture(image: Image.Image, spec: PictureSpec) -> NDArray[np.uint8]:
    """The picture as a model sees it: uint8 (height, width, channels), resized with antialiased bicubic filtering."""
    picture = image if image.mode == spec.mode else image.convert(spec.mode)
    size = _target_size(picture.size, spec)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(picture, dtype=np.uint8).reshape(size[1], size[0], spec.channels)
    return _padded(pixels, spec.side) if spec.fit == "pad" else np.array(pixels)


def _target_size(size: tuple[int, int], spec: PictureSpec) -> tuple[int, int]:
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

"""Decoding and preparing of pictures in one place: what is accepted, how it becomes RGB, what size a model sees.

Every picture of this project, of a dataset, of `medical-vqa ask` or of the server, passes `decode` and then
`prepare_picture`, so training and use cannot drift apart. DICOM and NIfTI join them in `data/imaging/decode.py`.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from medical_vqa.data.imaging.containers import end_of, tiff_at_page, tiff_pages, webp_size
from medical_vqa.data.imaging.quiet import quiet
from medical_vqa.errors import ConfigError, ImageError, TooLargeError, UnsupportedImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_SIDE = 8
"""Pixels; a smaller picture shows nothing that a question could be about."""
MAX_PIXELS = 50_000_000
"""Width times height; a larger picture is refused by its header, before it is decoded. Of a WebP 0.3 of it."""

_STRIP = 2_000_000  # pixels converted at once: a wide or transparent picture needs no second copy of itself

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
    (b"GIF8", GifImageFile),
)
_EXPECTED = "a JPEG, PNG, BMP, TIFF or WebP picture, or DICOM or NIfTI"
_NOT_READ: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF", "a PDF"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 file"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 stream"),
    (4, b"ftypheic", "a HEIC picture"),
    (4, b"ftypavif", "an AVIF picture"),
    (4, b"ftyp", "a film"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"NRRD", "an NRRD volume"),
    (0, b"<svg", "an SVG drawing"),
)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION, _TILE_WIDTH, _TILE_LENGTH = 0x0112, 322, 323  # tags of EXIF and TIFF
_GRAY_MODES = ("1", "L")
_WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_LAYERED_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
_KEPT_ELSEWHERE = {
    "exif": "EXIF",
    "Raw profile type exif": "EXIF",
    "icc_profile": "ICC profile",
    "comment": "comment",
    "xmp": "XMP",
    "XML:com.adobe.xmp": "XMP",
    "photoshop": "Photoshop data",
}
DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError,
    EOFError, MemoryError, RuntimeError, NotImplementedError, struct.error, zlib.error, Warning,
    Image.DecompressionBombError,
)  # fmt: skip
"""What decoders raise on damaged files; Warning, because a program may have turned warnings into errors."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture file, decoded."""

    pixels: NDArray[np.uint8]
    """(height, width, channels), upright; one channel for gray, three for RGB."""
    format: str
    """``JPEG``, ``PNG``, ``BMP``, ``TIFF``, ``WEBP`` or ``GIF``."""
    pages: int
    """Of a TIFF; 1 otherwise, also for an animation."""
    dropped: tuple[str, ...]
    """What the file held beside these pixels: ``EXIF``, ``ICC profile``, ``trailing bytes`` ..."""


def decode(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS, max_pages: int = 10_000, page: int = 0) -> Decoded:
    """Decode a picture: gray or RGB, upright, 8 bits.

    JPEG, PNG, BMP, TIFF, WebP and GIF are read, the first frame of an animation. The EXIF turn is applied, transparent
    parts are laid over black, and pixels wider than 8 bits are stretched from the picture's own minimum..maximum to
    0..255 (a flat picture becomes black).

    Args:
        data: The file's bytes.
        name: What the message calls the picture.
        max_pixels: Width times height; a larger picture is refused by its header. Of a WebP 0.3 of it.
        max_pages: Of a TIFF; one of more is refused before its pages are read.
        page: Which page of a TIFF, from 0.

    Raises:
        UnsupportedImageError: A known format that is not read.
        TooLargeError: More pixels or pages than allowed.
        ImageError: Unknown, damaged or truncated data, a side under `MIN_SIDE`, no such page.
    """
    try:
        with quiet("PIL"):
            pages, data = _paged(data, name, page, max_pages)
            return _decoded(data, name, max_pixels, pages)
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"{name}: has a frame larger than itself; save it again") from error
    except DECODER_ERRORS as error:
        raise ImageError(
            f"{name}: expected a whole picture, but it cannot be decoded ({error}); get the file again"
        ) from error


def _decoded(data: bytes, name: str, max_pixels: int, pages: int) -> Decoded:
    tail = end_of(data) < len(data)  # before a decoder sees the file: it also refuses one of millions of pieces
    with _opened(data, name, max_pixels) as image:
        animated = getattr(image, "is_animated", False) and image.format != "TIFF"
        image.load()
        check_size(image.size, name, max_pixels)
        dropped = _dropped(image, others=animated or pages > 1, tail=tail)
        return Decoded(_pixels(image), str(image.format), pages, dropped)


def open_image(data: bytes, name: str) -> Image.Image:
    """`decode` as an RGB picture of Pillow's; raises `ImageError` like it."""
    pixels = decode(data, name).pixels
    return as_image(pixels).convert("RGB")


def as_image(pixels: NDArray[np.uint8]) -> Image.Image:
    """Pixels (height, width, 1 or 3) as a picture of Pillow's, gray or RGB: what `prepare_picture` takes."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


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
        with quiet("PIL"), _opened(data, name, MAX_PIXELS) as image:
            swapped = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
            return (image.height, image.width) if swapped else (image.width, image.height)
    except DECODER_ERRORS as error:
        raise ImageError(
            f"{name}: expected a whole picture, but its header is damaged ({error}); get the file again"
        ) from error


def _paged(data: bytes, name: str, page: int, limit: int) -> tuple[int, bytes]:
    """How many pages there are, and the file with the wanted one first."""
    offsets = tiff_pages(data, limit) if data[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+") else [0]
    if len(offsets) > limit:
        raise TooLargeError(f"{name}: has more than {limit:,} pages; give a part of it")
    if not 0 <= page < max(1, len(offsets)):
        raise ImageError(f"{name}: has no frame {page}; the frames are 0 to {len(offsets) - 1}")
    return max(1, len(offsets)), tiff_at_page(data, offsets[page]) if page else data


def _opened(data: bytes, name: str, max_pixels: int) -> ImageFile.ImageFile:
    for magic, plugin in _FORMATS:
        if data.startswith(magic):
            if plugin is WebPImageFile:
                check_size(webp_size(data), name, max_pixels * 3 // 10)  # its decoder holds the canvas several times
            image = plugin(io.BytesIO(data))
            check_size(image.size, name, max_pixels)
            _check_tiles(image, name, max_pixels)
            return image
    _refuse_known(data, name)
    raise ImageError(f"{name}: expected {_EXPECTED}, got something else; convert it to PNG")


def _refuse_known(data: bytes, name: str) -> None:
    for offset, magic, what in _NOT_READ:
        if data.startswith(magic, offset):
            raise UnsupportedImageError(f"{name}: expected {_EXPECTED}, got {what}; convert it to PNG")


def check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    """Raise `ImageError` for a width or height under `MIN_SIDE`, `TooLargeError` for more pixels than allowed."""
    width, height = size
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{name}: is {width}x{height} pixels; give a picture of at least {MIN_SIDE} pixels a side")
    if width * height > max_pixels:
        raise TooLargeError(
            f"{name}: is {width}x{height} pixels; make it smaller than {max_pixels / 1e6:g} million pixels"
        )


def _check_tiles(image: ImageFile.ImageFile, name: str, max_pixels: int) -> None:
    tags = getattr(image, "tag_v2", {})
    tile = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)
    if tile[0] * tile[1] > max_pixels:  # the decoder makes room for a whole tile, however small the picture
        raise TooLargeError(f"{name}: is cut into tiles of {tile[0]}x{tile[1]} pixels; save it with smaller ones")


def _dropped(image: ImageFile.ImageFile, *, others: bool, tail: bool) -> tuple[str, ...]:
    found = dict.fromkeys(what for key, what in _KEPT_ELSEWHERE.items() if image.info.get(key))
    if image.format == "PNG" and set(getattr(image, "text", {})) - set(_KEPT_ELSEWHERE):
        found["text"] = None
    if others:
        found["other frames"] = None
    if tail:
        found["trailing bytes"] = None
    return tuple(found)


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    """The picture as uint8 (height, width, 1 or 3), made strip by strip so that memory is bounded by what comes out."""
    turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    upright = image if turn is None else image.transpose(turn)
    layered = upright.mode in _LAYERED_MODES or "transparency" in upright.info
    gray = upright.mode in (*_GRAY_MODES, *_WIDE_MODES) and not layered
    limits = _value_range(upright) if upright.mode in _WIDE_MODES else None
    pixels = np.empty((upright.height, upright.width, 1 if gray else 3), dtype=np.uint8)
    for top, strip in _strips(upright):
        if limits is not None:
            part = _stretched(np.asarray(strip), *limits)
        else:
            part = np.asarray(_over_black(strip) if layered else strip.convert("L" if gray else "RGB"))
        pixels[top : top + strip.height] = part.reshape(strip.height, strip.width, -1)
    return pixels


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    rows = max(1, _STRIP // image.width)
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _over_black(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer).convert("RGB")


def _value_range(image: Image.Image) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for _, strip in _strips(image):
        values = np.asarray(strip, dtype=np.float64)
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, finite.min()), max(high, finite.max())
    return (float(low), float(high)) if low <= high else (0.0, 0.0)


def _stretched(pixels: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    values = pixels.astype(np.float64)  # (height, width)
    if high <= low:
        return np.zeros(values.shape, dtype=np.uint8)
    scaled = (np.clip(np.nan_to_num(values, nan=low), low, high) - low) * (255.0 / (high - low))
    return np.rint(scaled).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class PictureSpec:
    """How a model wants its picture."""

    side: int = 160
    """Pixels."""
    mode: Literal["L", "RGB"] = "L"
    """``L`` is grayscale, one channel; ``RGB`` has three."""
    fit: Literal["stretch", "pad", "inside"] = "stretch"
    """``stretch``: side x side, aspect lost. ``pad``: the longest side becomes `side`, centered on a black square.
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
        """1 for grayscale, 3 for RGB."""
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

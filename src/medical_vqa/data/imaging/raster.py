"""Decoding of raster images: JPEG, PNG, BMP, TIFF, WebP and GIF.

Every image of the project, of a dataset, of `medical-vqa ask` or of the server, is decoded here (or as DICOM or NIfTI,
see `decode`) and resized by `preprocessing.prepare_picture`, so training and use cannot differ.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from medical_vqa.data.imaging.containers import end_of, tiff_at_page, tiff_pages, webp_size
from medical_vqa.data.imaging.suppress_warnings import suppress_warnings
from medical_vqa.errors import ImageError, TooLargeError, UnsupportedImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_SIDE = 8
"""Pixels; a smaller image shows nothing that a question could be about."""
MAX_PIXELS = 50_000_000
"""Width times height; a larger image is refused by its header, before it is decoded. 0.3 of it for a WebP."""

_STRIP = 2_000_000  # pixels converted at once, so that a wide or transparent image needs no second copy

# The plugin classes and not `Image.open`, which warns about large images before their size can be checked.
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
_UNSUPPORTED: tuple[tuple[int, bytes, str], ...] = (
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
_TRANSPOSES = {
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
_METADATA = {
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
class RasterImage:
    """A decoded raster image."""

    pixels: NDArray[np.uint8]
    """(height, width, channels), upright; one channel for gray, three for RGB."""
    format: str
    """``JPEG``, ``PNG``, ``BMP``, ``TIFF``, ``WEBP`` or ``GIF``."""
    pages: int
    """Number of pages of a TIFF; 1 otherwise, also for an animation."""
    removed_metadata: tuple[str, ...]
    """Other parts of the file, which were removed: ``EXIF``, ``ICC profile``, ``trailing bytes`` ..."""


def decode_raster(
    data: bytes, name: str, *, max_pixels: int = MAX_PIXELS, max_pages: int = 10_000, page: int = 0
) -> RasterImage:
    """Decode a raster image: gray or RGB, upright, 8 bits.

    Of an animation the first frame is decoded. The EXIF orientation is applied, transparent parts are composited over
    black, and pixels wider than 8 bits are stretched from the image's minimum..maximum to 0..255 (an image of one value
    becomes black).

    Args:
        data: The file's bytes.
        name: What messages call the image.
        max_pixels: Limit of width times height, checked by the header; 0.3 of it for a WebP.
        max_pages: Limit of the pages of a TIFF, checked before they are read.
        page: Page of a TIFF, from 0.

    Raises:
        UnsupportedImageError: A known format that is not supported.
        TooLargeError: More pixels or pages than allowed.
        ImageError: Unknown, damaged or truncated data, a side under `MIN_SIDE`, no such page.
    """
    try:
        with suppress_warnings("PIL"):
            pages, data = _select_page(data, name, page, max_pages)
            return _decoded(data, name, max_pixels, pages)
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"{name}: has a frame larger than itself; save it again") from error
    except DECODER_ERRORS as error:
        raise ImageError(
            f"{name}: expected a whole picture, but it cannot be decoded ({error}); get the file again"
        ) from error


def _decoded(data: bytes, name: str, max_pixels: int, pages: int) -> RasterImage:
    tail = end_of(data) < len(data)  # before the decoder runs: it also refuses a file of millions of pieces
    with _opened(data, name, max_pixels) as image:
        animated = getattr(image, "is_animated", False) and image.format != "TIFF"
        image.load()
        check_size(image.size, name, max_pixels)
        metadata = _metadata(image, others=animated or pages > 1, tail=tail)
        return RasterImage(_pixels(image), str(image.format), pages, metadata)


def open_image(data: bytes, name: str) -> Image.Image:
    """`decode_raster` as an RGB image of Pillow; raises `ImageError` like it."""
    return to_pillow(decode_raster(data, name).pixels).convert("RGB")


def to_pillow(pixels: NDArray[np.uint8]) -> Image.Image:
    """Pixels (height, width, 1 or 3) as a Pillow image, gray or RGB."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def open_image_file(path: Path) -> Image.Image:
    """`open_image` on a file; raises `ImageError` also where it is missing or not a file."""
    return open_image(read_image_file(path), str(path))


def read_image_file(path: Path) -> bytes:
    """The bytes of an image file; raises `ImageError` where it is missing, not a file or not readable."""
    if not path.is_file():
        state = "is a folder" if path.is_dir() else "does not exist"
        raise ImageError(f"{path}: expected a picture, but it {state}; check the path")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); check the file's permissions") from error


def image_size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height in pixels, upright, read from the header alone; raises `ImageError` like `open_image`."""
    try:
        with suppress_warnings("PIL"), _opened(data, name, MAX_PIXELS) as image:
            swapped = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
            return (image.height, image.width) if swapped else (image.width, image.height)
    except DECODER_ERRORS as error:
        raise ImageError(
            f"{name}: expected a whole picture, but its header is damaged ({error}); get the file again"
        ) from error


def _select_page(data: bytes, name: str, page: int, limit: int) -> tuple[int, bytes]:
    """The number of pages, and the file with the selected one first."""
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
            tags = getattr(image, "tag_v2", {})
            width, length = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)
            if width * length > max_pixels:  # the decoder allocates a tile, however small the image
                raise TooLargeError(f"{name}: has tiles of {width}x{length} pixels; save it with smaller ones")
            return image
    for offset, magic, what in _UNSUPPORTED:
        if data.startswith(magic, offset):
            raise UnsupportedImageError(f"{name}: expected {_EXPECTED}, got {what}; convert it to PNG")
    raise ImageError(f"{name}: expected {_EXPECTED}, got something else; convert it to PNG")


def check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    """Raise `ImageError` for a width or height under `MIN_SIDE`, `TooLargeError` for more pixels than allowed."""
    width, height = size
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{name}: is {width}x{height} pixels; give a picture of at least {MIN_SIDE} pixels a side")
    if width * height > max_pixels:
        raise TooLargeError(
            f"{name}: is {width}x{height} pixels; make it smaller than {max_pixels / 1e6:g} million pixels"
        )


def _metadata(image: ImageFile.ImageFile, *, others: bool, tail: bool) -> tuple[str, ...]:
    """Names of the parts of the file that are not pixels of the decoded frame, each once."""
    names = [name for key, name in _METADATA.items() if image.info.get(key)]
    if image.format == "PNG" and set(getattr(image, "text", {})) - set(_METADATA):
        names.append("text")
    if others:
        names.append("other frames")
    if tail:
        names.append("trailing bytes")
    return tuple(dict.fromkeys(names))


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    """The image as uint8 (height, width, 1 or 3), converted in strips so that memory is bounded by the result."""
    transpose = _TRANSPOSES.get(image.getexif().get(_ORIENTATION, 1))
    upright = image if transpose is None else image.transpose(transpose)
    layered = upright.mode in _LAYERED_MODES or "transparency" in upright.info
    gray = upright.mode in (*_GRAY_MODES, *_WIDE_MODES) and not layered
    limits = _value_range(upright) if upright.mode in _WIDE_MODES else None
    pixels = np.empty((upright.height, upright.width, 1 if gray else 3), dtype=np.uint8)
    for top, strip in _strips(upright):
        if limits is not None:
            part = _stretched(np.asarray(strip), *limits)
        elif layered:
            layer = strip.convert("RGBA")
            black = Image.new("RGBA", layer.size, (0, 0, 0, 255))
            part = np.asarray(Image.alpha_composite(black, layer).convert("RGB"))
        else:
            part = np.asarray(strip.convert("L" if gray else "RGB"))
        pixels[top : top + strip.height] = part.reshape(strip.height, strip.width, -1)
    return pixels


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    rows = max(1, _STRIP // image.width)
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


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

"""Decoding of raster images: JPEG, PNG, BMP, TIFF, WebP and GIF, and HEIC where the extra ``heic`` is installed.

Every image of the project, of a dataset, of `medical-vqa ask` or of the server, is decoded here (or as DICOM or NIfTI,
see `decode`) and resized by `preprocessing.prepare_picture`, so training and use cannot differ.
"""

from __future__ import annotations

import importlib
import io
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
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

from medical_vqa.data.imaging.containers import end_of, tiff_at_page, tiff_page_size, tiff_pages, webp_size
from medical_vqa.data.imaging.recognition import describe_unsupported, is_heic
from medical_vqa.data.imaging.suppress_warnings import suppress_warnings
from medical_vqa.data.imaging.windowing import percentile_range, ramp, to_8_bits, window_ends
from medical_vqa.errors import ImageError, TooLargeError, UnsupportedImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_SIDE = 8
"""Pixels; a smaller image shows nothing that a question could be about."""
MAX_PIXELS = 50_000_000
"""Width times height; a larger image is refused by its header, before it is decoded. 0.3 of it for a WebP."""

_SAMPLE = 1_000_000  # values that percentiles are computed from
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
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION, _TILE_WIDTH, _TILE_LENGTH, _PHOTOMETRIC = 0x0112, 322, 323, 262  # tags of EXIF and TIFF
_GRAY_MODES = ("1", "L")
_WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
# How Pillow unpacks one byte of each value of 16 bits: the high one, and the low one, by the name for the other order.
_OTHER_BYTE = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
_WHITE_IS_ZERO = 0
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
    """``JPEG``, ``PNG``, ``BMP``, ``TIFF``, ``WEBP``, ``GIF`` or ``HEIF``."""
    pages: int
    """Number of pages of a TIFF; 1 otherwise, also for an animation."""
    removed_metadata: tuple[str, ...]
    """Other parts of the file, which were removed: ``EXIF``, ``ICC profile``, ``trailing bytes`` ..."""
    page: int = 0
    """Page of the pixels, from 0."""
    window: tuple[float, float] | None = None
    """Center and width of the values that were mapped to 0..255; None for 8 bits, which are unchanged."""


def decode_raster(
    data: bytes,
    name: str,
    *,
    max_pixels: int = MAX_PIXELS,
    max_pages: int = 10_000,
    page: int | None = None,
    window: tuple[float, float] | None = None,
    advice: Mapping[str, str] | None = None,
) -> RasterImage:
    """Decode a raster image: gray or RGB, upright, 8 bits.

    Of an animation the first frame is decoded. The EXIF orientation is applied, transparent parts are composited over
    black, and values of more than 8 bits are mapped to 0..255 by `window`, by default from their 0.5th to their 99.5th
    percentile (an image of one value becomes black).

    Args:
        data: The file's bytes.
        name: What messages call the image.
        max_pixels: Limit of width times height, checked by the header; 0.3 of it for a WebP.
        max_pages: Limit of the pages of a TIFF, checked before they are read.
        page: Page of a TIFF, from 0; by default the middle one of pages of one size, else the first.
        window: Center and width of the values to show, of an image of more than 8 bits.
        advice: What messages about the limits ``pixels`` and ``frames`` add about raising them.

    Raises:
        UnsupportedImageError: A known format that is not supported.
        TooLargeError: More pixels or pages than allowed.
        ImageError: Unknown, damaged or truncated data, a side under `MIN_SIDE`, no such page, or a window for 8 bits.
    """
    more = advice or {}
    try:
        with suppress_warnings("PIL"):
            pages, selected, data = _select_page(data, name, page, max_pages, more.get("frames", ""))
            return _decoded(data, name, max_pixels, (pages, selected), window, more.get("pixels", ""))
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"{name}: has a frame larger than itself; save it again") from error
    except DECODER_ERRORS as error:
        raise ImageError(
            f"{name}: expected a whole picture, but it cannot be decoded ({error}); get the file again"
        ) from error


def _decoded(
    data: bytes,
    name: str,
    max_pixels: int,
    pages: tuple[int, int],
    window: tuple[float, float] | None,
    advice: str,
) -> RasterImage:
    """One page, of `pages`, their number and the page's, as an image."""
    tail = end_of(data) < len(data)  # before the decoder runs: it also refuses a file of millions of pieces
    with _opened(data, name, max_pixels, advice) as image:
        wide_colors = _is_wide_color(image)
        if window is not None and not wide_colors and image.mode not in _WIDE_MODES:
            raise ImageError(
                f"{name}: a window is for values of more than 8 bits, and this picture has 8; leave it out"
            )
        animated = getattr(image, "is_animated", False) and image.format != "TIFF"
        low_bytes = _low_bytes(data, name, max_pixels, image) if wide_colors else None
        image.load()
        check_size(image.size, name, max_pixels, advice)
        metadata = _metadata(image, others=animated or pages[0] > 1, tail=tail)
        if low_bytes is None:
            pixels, used_window = _pixels(image, window)
        else:
            pixels, used_window = _wide_color_pixels(image, low_bytes, window)
        return RasterImage(pixels, str(image.format), pages[0], metadata, pages[1], used_window)


def wide_values(data: bytes, *, max_pixels: int) -> tuple[NDArray[Any], bool] | None:
    """The gray values of a file of one page that `decode_raster` reads, upright, and whether small ones are bright.

    None where a value has 8 bits or the picture has colors; raises what a decoder raises, or `ImageError`.
    """
    with suppress_warnings("PIL"), _opened(data, "the file", max_pixels) as image:
        if image.mode not in _WIDE_MODES:
            return None
        image.load()
        transpose = _TRANSPOSES.get(image.getexif().get(_ORIENTATION, 1))
        upright = image if transpose is None else image.transpose(transpose)
        inverted = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        return np.array(upright), inverted


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
    try:
        if not path.is_file():
            state = "is a folder" if path.is_dir() else "does not exist"
            raise ImageError(f"{path}: expected a picture, but it {state}; check the path")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be read ({error.strerror}); check its name and the file's permissions"
        ) from error


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


def _select_page(data: bytes, name: str, page: int | None, limit: int, advice: str) -> tuple[int, int, bytes]:
    """The number of pages, the selected one, and the file with that one first."""
    is_tiff = data[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
    offsets = tiff_pages(data, limit) if is_tiff else [0]
    if len(offsets) > limit:
        raise TooLargeError(f"{name}: has more than {limit:,} pages; give a part of it{advice}")
    if page is None:
        stack = len(offsets) > 1 and len({tiff_page_size(data, offset) for offset in offsets}) == 1
        page = len(offsets) // 2 if stack else 0
    if not 0 <= page < max(1, len(offsets)):
        raise ImageError(f"{name}: has no frame {page}; the frames are 0 to {len(offsets) - 1}")
    return max(1, len(offsets)), page, tiff_at_page(data, offsets[page]) if page else data


def _opened(data: bytes, name: str, max_pixels: int, advice: str = "") -> ImageFile.ImageFile:
    for magic, plugin in _FORMATS:
        if data.startswith(magic):
            if plugin is WebPImageFile:
                check_size(
                    webp_size(data), name, max_pixels * 3 // 10, advice
                )  # its decoder holds the canvas several times
            image = plugin(io.BytesIO(data))
            check_size(image.size, name, max_pixels, advice)
            tags = getattr(image, "tag_v2", {})
            width, length = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)
            if width * length > max_pixels:  # the decoder allocates a tile, however small the image
                raise TooLargeError(f"{name}: has tiles of {width}x{length} pixels; save it with smaller ones")
            return image
    if not data:
        raise ImageError(f"{name}: expected {_EXPECTED}, got an empty file; get the file again")
    if is_heic(data) and (heic := heic_plugin()) is not None:
        photograph = heic(io.BytesIO(data))
        check_size(photograph.size, name, max_pixels, advice)
        return photograph
    if known := describe_unsupported(data):
        raise UnsupportedImageError(f"{name}: expected {_EXPECTED}, got {known[0]}; {known[1]}")
    raise ImageError(f"{name}: expected {_EXPECTED}, got something else; convert it to PNG")


def heic_plugin() -> type[ImageFile.ImageFile] | None:
    """Pillow's plugin for HEIC, the default of iPhones; None where the extra ``heic`` is not installed."""
    try:
        plugin: type[ImageFile.ImageFile] = importlib.import_module("pillow_heif.as_plugin").HeifImageFile
    except ImportError:
        return None
    return plugin


def check_size(size: tuple[int, int], name: str, max_pixels: int, advice: str = "") -> None:
    """Raise `ImageError` for a width or height under `MIN_SIDE`, `TooLargeError` for more pixels than allowed."""
    width, height = size
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{name}: is {width}x{height} pixels; give a picture of at least {MIN_SIDE} pixels a side")
    if width * height > max_pixels:
        raise TooLargeError(
            f"{name}: is {width}x{height} pixels; make it smaller than {max_pixels / 1e6:g} million pixels{advice}"
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


def _pixels(
    image: Image.Image, window: tuple[float, float] | None
) -> tuple[NDArray[np.uint8], tuple[float, float] | None]:
    """The image as uint8 (height, width, 1 or 3), and the window of values of more than 8 bits.

    Converted in strips, so that memory is bounded by the result.
    """
    transpose = _TRANSPOSES.get(image.getexif().get(_ORIENTATION, 1))
    upright = image if transpose is None else image.transpose(transpose)
    layered = upright.mode in _LAYERED_MODES or "transparency" in upright.info
    wide = upright.mode in _WIDE_MODES
    gray = (upright.mode in _GRAY_MODES or wide) and not (layered and not wide)
    inverted = wide and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    limits = _limits(upright, window) if wide else None
    pixels = np.empty((upright.height, upright.width, 1 if gray else 3), dtype=np.uint8)
    for top, strip in _strips(upright):
        if limits is not None:
            part = to_8_bits(np.asarray(strip), ramp(*limits), inverted=inverted)
        elif layered:
            layer = strip.convert("RGBA")
            black = Image.new("RGBA", layer.size, (0, 0, 0, 255))
            part = np.asarray(Image.alpha_composite(black, layer).convert("RGB"))
        else:
            part = np.asarray(strip.convert("L" if gray else "RGB"))
        pixels[top : top + strip.height] = part.reshape(strip.height, strip.width, -1)
    return pixels, None if limits is None else ((limits[0] + limits[1]) / 2, limits[1] - limits[0])


def _limits(image: Image.Image, window: tuple[float, float] | None) -> tuple[float, float]:
    """The values of a wide image that become black and white."""
    return percentile_range(_sample(image)) if window is None else window_ends(window)


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    rows = max(1, _STRIP // image.width)
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _sample(image: Image.Image) -> NDArray[Any]:
    """About `_SAMPLE` values of a wide image, evenly spaced whatever the height of a strip."""
    step = max(1, image.width * image.height // _SAMPLE)
    parts = []
    for top, strip in _strips(image):
        first = -(top * image.width) % step
        parts.append(np.asarray(strip).reshape(-1)[first::step])
    return np.concatenate(parts)


# --- colors of 16 bits ------------------------------------------------------------------------------------------------


def _raw_mode(tile: Any) -> str:
    arguments = tile.args
    return str(arguments if isinstance(arguments, str) else arguments[0])


def _is_wide_color(image: ImageFile.ImageFile) -> bool:
    """Whether Pillow, which has no mode for colors of 16 bits, would keep only the high byte of each."""
    tiles = image.tile
    return image.mode in ("RGB", "RGBA", "RGBX") and bool(tiles) and _raw_mode(tiles[0])[-3:] in _OTHER_BYTE


def _low_bytes(data: bytes, name: str, max_pixels: int, image: ImageFile.ImageFile) -> Image.Image:
    """The same file with the low byte of each value in place of the high one."""
    low = _opened(data, name, max_pixels)
    tiles = []
    for tile in image.tile:
        raw = _raw_mode(tile)
        other = raw[:-3] + _OTHER_BYTE[raw[-3:]]
        rest = () if isinstance(tile.args, str) or tile.args is None else tile.args[1:]
        tiles.append(tile._replace(args=(other, *rest) if rest else other))
    low.tile = tiles
    low.load()
    return low


def _wide_color_pixels(
    high: Image.Image, low: Image.Image, window: tuple[float, float] | None
) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """RGB in 8 bits by one window for the three colors; transparent parts become black."""
    transpose = _TRANSPOSES.get(high.getexif().get(_ORIENTATION, 1))
    if transpose is not None:
        high, low = high.transpose(transpose), low.transpose(transpose)
    limits = window_ends(window) if window else percentile_range(_joined(high, low))
    brightness = ramp(*limits)
    pixels = np.empty((high.height, high.width, 3), dtype=np.uint8)
    for (top, high_strip), (_, low_strip) in zip(_strips(high), _strips(low), strict=True):
        values = _joined(high_strip, low_strip)
        for band in range(3):
            pixels[top : top + high_strip.height, :, band] = to_8_bits(values[..., band], brightness)[..., 0]
        if high_strip.mode == "RGBA":
            opacity = np.asarray(high_strip)[..., 3:].astype(np.uint16)
            pixels[top : top + high_strip.height] = (pixels[top : top + high_strip.height] * opacity + 127) // 255
    return pixels, ((limits[0] + limits[1]) / 2, limits[1] - limits[0])


def _joined(high: Image.Image, low: Image.Image) -> NDArray[np.uint16]:
    """Values of 16 bits (height, width, 3)."""
    values: NDArray[np.uint16] = np.asarray(high)[..., :3].astype(np.uint16) * np.uint16(256)
    values += np.asarray(low)[..., :3]
    return values

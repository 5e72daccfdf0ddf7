from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medical_vqa.data.imaging.preprocessing import PictureSpec, prepare_picture
from medical_vqa.data.imaging.raster import image_size, open_image, open_image_file
from medical_vqa.errors import ConfigError, ImageError


def saved(image: Image.Image, fmt: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"])
def test_the_usual_formats_are_read_as_rgb(picture: Any, fmt: str) -> None:
    image = open_image(picture(fmt=fmt), "a")
    assert (image.mode, image.size) == ("RGB", (24, 16))


def test_another_format_is_refused(picture: Any) -> None:
    with pytest.raises(ImageError, match=r"scan: expected a JPEG, PNG, .* or NIfTI, got something else; convert"):
        open_image(picture(fmt="ICO"), "scan")
    with pytest.raises(ImageError, match=r"expected a JPEG.*, got an empty file"):
        open_image(b"", "scan")


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "RGB"])
def test_every_usual_mode_becomes_rgb(mode: str) -> None:
    image = Image.linear_gradient("L").resize((16, 16)).convert(mode)
    assert open_image(saved(image, "TIFF"), "a").mode == "RGB"


def test_transparent_parts_are_black() -> None:
    layer = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    layer.paste((255, 255, 255, 255), (0, 0, 4, 8))
    pixels = np.asarray(open_image(saved(layer, "PNG"), "a"))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, 7].tolist() == [0, 0, 0]


def test_a_palette_with_a_transparent_color_is_laid_over_black() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 255, 255, 255])
    pixels = np.asarray(open_image(saved(image, "PNG", transparency=1), "a"))
    assert pixels.max() == 0


def test_sixteen_bits_are_stretched_over_their_own_range() -> None:
    values = np.linspace(1000, 3000, 64).reshape(8, 8).astype(np.uint16)
    pixels = np.asarray(open_image(saved(Image.fromarray(values), "PNG"), "a"))
    assert (pixels[0, 0, 0], pixels[-1, -1, 0]) == (0, 255)


def test_floats_that_are_not_numbers_do_not_spread() -> None:
    values = np.full((8, 8), 0.5, dtype=np.float32)
    values[0, 0], values[0, 1], values[1, 1] = np.nan, 2.0, np.inf
    pixels = np.asarray(open_image(saved(Image.fromarray(values), "TIFF"), "a"))
    assert (pixels[0, 0, 0], pixels[0, 1, 0], pixels[7, 7, 0]) == (0, 255, 0)


def test_a_flat_sixteen_bit_picture_is_black() -> None:
    values = np.full((8, 8), 700, dtype=np.uint16)
    assert np.asarray(open_image(saved(Image.fromarray(values), "TIFF"), "a")).max() == 0


def test_the_camera_turn_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.new("RGB", (30, 10)), "JPEG", exif=exif)
    assert open_image(data, "a").size == (10, 30)
    assert image_size(data, "a") == (10, 30)


def test_a_picture_of_one_pixel_is_refused() -> None:
    with pytest.raises(ImageError, match=r"dot\.png: is 1x1 pixels; give a picture of at least 8 pixels a side"):
        open_image(saved(Image.new("L", (1, 1)), "PNG"), "dot.png")


@pytest.mark.parametrize("side", [8001, 9600, 30000])
def test_a_huge_picture_is_refused_by_its_header_and_without_a_warning(side: int) -> None:
    with warnings.catch_warnings(record=True) as caught, pytest.raises(ImageError, match=f"is {side}x{side} pixels"):
        warnings.simplefilter("always")
        open_image(png_header(side, side), "wall.png")
    assert caught == []


def test_a_truncated_picture_is_refused(picture: Any) -> None:
    data = picture(size=(64, 64), fmt="JPEG")
    with pytest.raises(ImageError, match="cannot be decoded"):
        open_image(data[: len(data) // 2], "half.jpg")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        open_image_file(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder"):
        open_image_file(tmp_path)


WHOLE = {fmt: saved(Image.linear_gradient("L").resize((20, 12)), fmt) for fmt in ("JPEG", "PNG", "BMP", "TIFF", "WEBP")}


@settings(max_examples=150, deadline=None)
@given(
    fmt=st.sampled_from(sorted(WHOLE)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    cut=st.floats(0.5, 1),
)
def test_damaged_bytes_give_a_picture_or_an_image_error(fmt: str, changes: list[tuple[float, int]], cut: float) -> None:
    data = bytearray(WHOLE[fmt][: round(len(WHOLE[fmt]) * cut)])
    for place, value in changes:
        data[int(place * len(data))] = value
    try:
        assert open_image(bytes(data), "a").mode == "RGB"
    except ImageError as error:
        assert str(error).startswith("a: ")


@pytest.mark.parametrize(("fit", "shape"), [("stretch", (32, 32, 1)), ("pad", (32, 32, 1)), ("inside", (16, 32, 1))])
def test_a_wide_picture_is_fitted(fit: Any, shape: tuple[int, int, int]) -> None:
    pixels = prepare_picture(Image.new("RGB", (64, 32), "white"), PictureSpec(side=32, fit=fit))
    assert (pixels.shape, pixels.dtype) == (shape, np.dtype(np.uint8))
    assert pixels[pixels.shape[0] // 2, 16, 0] == 255


def test_padding_is_black_and_centered() -> None:
    pixels = prepare_picture(Image.new("RGB", (64, 32), "white"), PictureSpec(side=32, mode="RGB", fit="pad"))
    assert pixels[:8].max() == 0
    assert pixels[24:].max() == 0
    assert pixels[8:24].min() == 255


def test_inside_never_enlarges() -> None:
    assert prepare_picture(Image.new("L", (20, 10)), PictureSpec(side=160, fit="inside")).shape == (10, 20, 1)


def test_a_very_thin_picture_keeps_a_pixel() -> None:
    assert prepare_picture(Image.new("L", (4000, 8)), PictureSpec(side=8, fit="inside")).shape == (1, 8, 1)


def test_preparing_is_deterministic(picture: Any) -> None:
    image, spec = open_image(picture(size=(50, 40)), "a"), PictureSpec(side=16)
    assert np.array_equal(prepare_picture(image, spec), prepare_picture(image, spec))


def test_a_specification_names_itself_and_round_trips() -> None:
    spec = PictureSpec(side=224, mode="RGB", fit="pad")
    assert (spec.key, spec.channels) == ("RGB-224-pad", 3)
    assert PictureSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("row", [{"side": 0}, {"side": "9"}, {"mode": "CMYK"}, {"fit": "crop"}, {"size": 3}])
def test_an_impossible_specification_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="picture"):
        PictureSpec.from_json(row)

from __future__ import annotations

import gzip
import io
import logging
import struct
import sys
import tracemalloc
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from medical_vqa.data.imaging import recognition
from medical_vqa.data.imaging.decode import decode_image, decode_image_file
from medical_vqa.data.imaging.decoded_frame import DecodeLimits
from medical_vqa.data.imaging.preprocessing import PictureSpec, prepare_picture
from medical_vqa.data.imaging.raster import open_image
from medical_vqa.errors import ImageError, TooLargeError, UnsupportedImageError

GRAY = Image.linear_gradient("L").resize((40, 24))
COLOR = Image.merge("RGB", (GRAY, GRAY.transpose(Image.Transpose.FLIP_LEFT_RIGHT), GRAY.point(lambda v: 255 - v)))


def saved(image: Image.Image, fmt: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"])
def test_the_format_is_told_by_content_and_the_picture_is_what_a_dataset_would_get(fmt: str) -> None:
    data = saved(COLOR, fmt)
    found = decode_image(data)
    assert (found.format, found.width, found.height, found.pixels.shape) == (fmt, 40, 24, (24, 40, 3))
    assert found.pixels.dtype == np.uint8
    assert np.array_equal(found.pixels, np.asarray(open_image(data, "a")))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_gray_picture_has_one_channel_and_prepares_like_its_three(mode: Any) -> None:
    data = saved(GRAY, "PNG")
    found, spec = decode_image(data), PictureSpec(side=16, mode=mode)
    assert found.pixels.shape == (24, 40, 1)
    assert np.array_equal(prepare_picture(found.image, spec), prepare_picture(open_image(data, "a"), spec))


@pytest.mark.parametrize(
    ("mode", "fmt", "channels"),
    [("1", "PNG", 1), ("1", "TIFF", 1), ("P", "PNG", 3), ("CMYK", "JPEG", 3), ("CMYK", "TIFF", 3), ("LA", "PNG", 3)],
)
def test_every_usual_mode_is_read(mode: str, fmt: str, channels: int) -> None:
    assert decode_image(saved(COLOR.convert(mode), fmt)).pixels.shape == (24, 40, channels)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_a_wide_tiff_is_stretched_over_its_own_range(dtype: Any) -> None:
    values = np.linspace(100, 3000, 24 * 40).reshape(24, 40).astype(dtype)
    found = decode_image(saved(Image.fromarray(values), "TIFF"))
    assert found.pixels.shape == (24, 40, 1)
    assert (found.pixels[0, 0, 0], found.pixels[-1, -1, 0]) == (0, 255)


def test_a_picture_made_in_strips_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    layered = COLOR.convert("RGBA")
    layered.putalpha(GRAY)
    wide = Image.fromarray(np.arange(960, dtype=np.uint16).reshape(24, 40))
    files = [saved(layered, "PNG"), saved(wide, "TIFF"), saved(COLOR.convert("P"), "GIF"), saved(COLOR, "WEBP")]
    whole = [decode_image(data).pixels for data in files]
    monkeypatch.setattr("medical_vqa.data.imaging.raster._STRIP", 100)
    assert all(np.array_equal(decode_image(data).pixels, picture) for data, picture in zip(files, whole, strict=True))


def test_what_is_not_pixels_is_dropped_and_named() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = 6, "Dr Who"
    found = decode_image(saved(COLOR, "JPEG", exif=exif, icc_profile=b"p" * 200, comment=b"name") + b"PK\x03\x04 more")
    assert sorted(found.removed_metadata) == ["EXIF", "ICC profile", "comment", "trailing bytes"]
    assert (found.width, found.height) == (24, 40)


def test_the_text_of_a_png_is_dropped_and_named() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Patient", "Doe")
    assert decode_image(saved(GRAY, "PNG", pnginfo=text)).removed_metadata == ("text",)


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_zip_behind_a_picture_is_told(fmt: str) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.html", "<script>")
    assert decode_image(saved(COLOR, fmt)).removed_metadata == ()
    assert decode_image(saved(COLOR, fmt) + archive.getvalue()).removed_metadata == ("trailing bytes",)


@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(fmt: str) -> None:
    found = decode_image(saved(COLOR, fmt, save_all=True, append_images=[GRAY.convert("RGB")], lossless=True))
    assert (found.frames, found.removed_metadata) == (1, ("other frames",))
    assert np.abs(found.pixels.astype(int) - np.asarray(COLOR).astype(int)).mean() < 8
    with pytest.raises(ImageError, match=r"has no frame 1; the frames are 0 to 0"):
        decode_image(saved(COLOR, fmt), frame=1)


@pytest.mark.parametrize("big", [False, True])
def test_any_page_of_a_tiff_can_be_asked_for(big: bool) -> None:
    pages = [Image.new("L", (16, 16), shade) for shade in (10, 20, 30)]
    data = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:], big_tiff=big)
    assert [decode_image(data, frame=n).pixels[0, 0, 0] for n in range(3)] == [10, 20, 30]
    assert decode_image(data).frames == 3
    with pytest.raises(ImageError, match="has no frame 3; the frames are 0 to 2"):
        decode_image(data, frame=3)
    with pytest.raises(TooLargeError, match="has more than 2 pages"):
        decode_image(data, limits=DecodeLimits(frames=2))


def test_a_tiff_whose_pages_run_in_a_circle_is_read() -> None:
    data = bytearray(saved(GRAY, "TIFF"))
    (offset,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, offset)
    struct.pack_into("<I", data, offset + 2 + 12 * entries, offset)
    assert decode_image(bytes(data)).frames == 1


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"%PDF-1.7", "a PDF; convert it to PNG"),
        (b"PK\x03\x04", "a zip archive; unpack it, or ask about the series"),
        (b"a" * 257 + b"ustar\x0000", "a tar archive; unpack it"),
        (b'<?xml version="1.0"?>\n<!-- a drawing -->\n<svg xmlns="x">', "an SVG drawing; convert it to PNG"),
        (b"<!DOCTYPE html><html>", "a web page; save the picture itself"),
        (b"ObjectType = Image\nNDims = 3\n", "a MetaImage volume .*; convert it to NIfTI"),
        (b"NRRD0004\n", "an NRRD volume; convert it to NIfTI"),
        (b"\0\0\0\x01\0\0\0\x08" + bytes(300), "a FreeSurfer volume .*; convert it to NIfTI"),
    ],
)
def test_a_known_format_that_is_not_read_is_named(start: bytes, words: str) -> None:
    with pytest.raises(UnsupportedImageError, match=rf"scan\.png: expected a JPEG.*, got {words}"):
        decode_image(start + bytes(100), name="scan.png")


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_a_heic_picture_without_its_extra_is_told_how_to_be_read(monkeypatch: pytest.MonkeyPatch, brand: bytes) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif.as_plugin", None)
    with pytest.raises(
        UnsupportedImageError, match=r"a HEIC picture; convert it to PNG, or run: .*medical-vqa\[heic\]"
    ):
        decode_image(b"\0\0\0\x18ftyp" + brand + bytes(100), name="scan.heic")


def test_a_photograph_of_an_iphone_is_read() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    out = io.BytesIO()
    picture = Image.new("RGB", (64, 48), (10, 10, 10))
    picture.paste((200, 200, 200), (0, 0, 32, 48))
    pillow_heif.from_pillow(picture).save(out)
    assert out.getvalue()[4:8] == b"ftyp"
    decoded = decode_image(out.getvalue(), name="photo.heic")
    assert decoded.pixels.shape[:2] == (48, 64)
    assert abs(int(decoded.pixels[24, 10, 0]) - 200) < 12
    assert abs(int(decoded.pixels[24, 50, 0]) - 10) < 12
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode_image(out.getvalue()[:200], name="cut.heic")


def test_an_empty_file_is_said_to_be_empty() -> None:
    with pytest.raises(ImageError, match="got an empty file; get the file again"):
        decode_image(b"")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\0\0\0\x01\0\0\0\x08" + bytes(300), r"a FreeSurfer volume \(\.mgh\); convert it to NIfTI"),
        (b"a" * 257 + b"ustar\x0000" + bytes(300), "a tar archive; unpack it"),
        (bytes(128) + b"DICM" + bytes(400), "a DICOM file; unpack it"),
        (b"hello " * 100, "something else; unpack it"),
    ],
)
def test_what_is_in_a_gzip_file_is_named(content: bytes, words: str) -> None:
    with pytest.raises(UnsupportedImageError, match=f"expected a NIfTI volume in the gzip file, got {words}"):
        decode_image(gzip.compress(content))


def test_an_analyze_header_is_named() -> None:
    header = bytearray(348)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, 64, 64, 20, 1, 1, 1, 1)
    with pytest.raises(UnsupportedImageError, match=r"got the header of an Analyze 7\.5 volume; convert both files to"):
        decode_image(bytes(header))


@pytest.mark.parametrize("window", [(40.0, 0.0), (40.0, -5.0), (float("nan"), 400.0), (40.0, float("inf"))])
def test_a_window_that_makes_no_sense_is_refused_for_every_format(window: tuple[float, float]) -> None:
    for data in (saved(GRAY, "PNG"), bytes(128) + b"DICM", saved(Image.new("I;16", (16, 16)), "TIFF")):
        with pytest.raises(ImageError, match="expected a window of a finite center and a width above 0, got"):
            decode_image(data, window=window)


@pytest.mark.parametrize("fmt", ["PNG", "TIFF"])
def test_one_outlier_does_not_flatten_a_wide_picture_and_its_window_can_be_chosen(fmt: str) -> None:
    values = np.linspace(1000, 1200, 64 * 64).reshape(64, 64).astype(np.uint16)
    values[0, 0] = 65535
    data = saved(Image.fromarray(values), fmt)
    decoded = decode_image(data)
    low, high = np.percentile(values, [0.5, 99.5])
    assert decoded.window == pytest.approx(((low + high) / 2, high - low))
    assert decoded.window_source == "percentiles"
    assert decoded.pixels[-1, -1, 0] == 255
    assert decoded.pixels.std() > 70
    chosen = decode_image(data, window=(1100, 100))
    assert (chosen.window, chosen.window_source) == ((1100, 100), "option")
    expected = np.clip((values.astype(float) - 1050) / 100, 0, 1) * 255
    assert np.array_equal(chosen.pixels[:, :, 0], np.rint(expected))


def test_a_wide_tiff_in_which_white_is_zero_is_inverted() -> None:
    values = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)
    black_is_zero = decode_image(saved(Image.fromarray(values), "TIFF")).pixels
    white_is_zero = decode_image(saved(Image.fromarray(values), "TIFF", tiffinfo={262: 0})).pixels
    assert np.array_equal(white_is_zero, 255 - black_is_zero)


def png_48(values: np.ndarray, channels: int = 3) -> bytes:
    """A PNG of 16 bits a color, which Pillow does not write."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2 if channels == 3 else 6, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part)) for kind, part in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def tiff_48(values: np.ndarray) -> bytes:
    """An uncompressed little-endian TIFF of 16 bits a color, which Pillow does not write."""
    height, width = values.shape[:2]
    body = values.astype("<u2").tobytes()
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 14),
        (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, len(body)),
    ]  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<I", 14 + len(body)) + struct.pack("<3H", 16, 16, 16)
    return head + body + directory + bytes(4)


@pytest.mark.parametrize("build", [png_48, tiff_48])
def test_colors_of_12_bits_in_16_are_not_black(build: Any) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (32, 40, 3)).astype(np.uint16)
    decoded = decode_image(build(values), window=(2047.5, 4095))
    assert np.array_equal(decoded.pixels, np.rint(values / 4095 * 255))
    assert decode_image(build(values)).pixels.mean() == pytest.approx(127, abs=4)


def test_transparent_parts_of_a_wide_color_picture_are_black() -> None:
    values = np.full((16, 16, 4), 65535, dtype=np.uint16)
    values[:8, :, 3] = 0
    pixels = decode_image(png_48(values, channels=4), window=(32767.5, 65535)).pixels
    assert (pixels[0].max(), pixels[-1].min()) == (0, 255)


def test_a_picture_of_one_value_is_reported_whatever_made_it() -> None:
    words = "every pixel of the picture has the same value"
    wide = Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16))
    assert words in decode_image(saved(Image.new("L", (16, 16), 7), "PNG")).warnings
    assert words in decode_image(saved(wide, "TIFF"), window=(9000, 10)).warnings
    assert decode_image(saved(GRAY, "PNG")).warnings == ()


def test_of_a_stack_of_tiff_pages_the_middle_one_is_shown_and_of_a_pyramid_the_first() -> None:
    pages = [Image.new("L", (16, 16), shade) for shade in (10, 20, 30)]
    stack = decode_image(saved(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert (stack.frame, stack.frames, stack.pixels[0, 0, 0]) == (1, 3, 20)
    pages[1] = pages[1].resize((8, 8))
    pyramid = decode_image(saved(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert (pyramid.frame, pyramid.pixels[0, 0, 0]) == (0, 10)


def test_limits_are_kept_before_decoding() -> None:
    data = saved(COLOR, "PNG")
    with pytest.raises(TooLargeError, match=r"has [\d,]+ bytes; give a file of at most 0.0001 million bytes"):
        decode_image(data, limits=DecodeLimits(file_bytes=100))
    with pytest.raises(TooLargeError, match=r"is 40x24 pixels; make it smaller than 0.0005 million pixels"):
        decode_image(data, limits=DecodeLimits(pixels=500))
    named = DecodeLimits(pixels=500, settings={"pixels": "MEDICAL_VQA_MAX_PIXELS"})
    with pytest.raises(TooLargeError, match=r"0.0005 million pixels or raise MEDICAL_VQA_MAX_PIXELS"):
        decode_image(data, limits=named)


def test_a_window_is_refused_where_there_is_none() -> None:
    with pytest.raises(ImageError, match="a window is for values of more than 8 bits, and this picture has 8; leave"):
        decode_image(saved(GRAY, "PNG"), window=(40.0, 400.0))


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"])
def test_a_truncated_file_is_refused(fmt: str) -> None:
    data = saved(COLOR.resize((200, 120)), fmt)
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode_image(data[: len(data) * 2 // 3])


@pytest.mark.parametrize("fmt", ["PNG", "TIFF", "GIF", "WEBP"])
def test_a_bomb_is_refused_without_the_memory_for_it(fmt: str) -> None:
    side = 13_000
    data = (
        b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\x3f\0\xff\x3f\0" + bytes(8)
        if fmt == "WEBP"
        else saved(Image.new("1", (side, side)), fmt, **({"compression": "group4"} if fmt == "TIFF" else {}))
    )
    assert len(data) < 400_000
    tracemalloc.start()
    with warnings.catch_warnings(), pytest.raises(TooLargeError, match=r"pixels; make it smaller than (50|15) million"):
        warnings.simplefilter("error")
        decode_image(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


def test_a_webp_may_have_fewer_pixels_because_its_decoder_holds_them_several_times() -> None:
    with pytest.raises(TooLargeError, match="is 4000x4000 pixels; make it smaller than 15 million pixels"):
        decode_image(saved(Image.new("RGB", (4000, 4000)), "WEBP"))


def test_a_file_cut_into_too_many_pieces_is_refused() -> None:
    data = saved(GRAY, "JPEG")
    with pytest.raises(ImageError, match="more than 65,536 segments"):
        decode_image(data[:2] + b"\xff\xe5\0\2" * 70_000 + data[2:])


def test_a_photograph_of_too_many_scans_is_refused_and_a_progressive_one_is_read() -> None:
    """Each scan of a few bytes makes the decoder pass over all pixels: 100 kB took a minute."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    data = saved(noise, "JPEG", progressive=True)
    assert data.count(b"\xff\xda") > 5
    assert decode_image(data).pixels.shape == (40, 40, 3)
    last = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(ImageError, match="more than 256 scans"):
        decode_image(data[:-2] + last * 300 + data[-2:])
    large = saved(Image.new("L", (5000, 5000)), "JPEG", progressive=True)
    last = large[large.rindex(b"\xff\xda") : -2]
    with pytest.raises(ImageError, match="more than 16 scans"):
        decode_image(large[:-2] + last * 20 + large[-2:])


def test_a_tile_larger_than_any_picture_is_refused() -> None:
    data = bytearray(saved(GRAY, "TIFF"))
    (offset,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, offset)
    at = offset + 2 + 12 * (entries - 2)
    struct.pack_into("<HHIIHHII", data, at, 322, 4, 1, 60_000, 323, 4, 1, 60_000)
    with pytest.raises(ImageError, match="tiles of 60000x60000 pixels"):
        decode_image(bytes(data))


def test_a_file_of_ones_own_is_read_by_its_path(tmp_path: Any) -> None:
    (tmp_path / "scan.dat").write_bytes(saved(GRAY, "PNG"))
    assert decode_image_file(tmp_path / "scan.dat").format == "PNG"
    with pytest.raises(ImageError, match="does not exist"):
        decode_image_file(tmp_path / "none.png")


@pytest.mark.parametrize(
    ("package", "module", "data"),
    [("pydicom", "dicom", bytes(128) + b"DICM"), ("nibabel", "nifti", bytes(344) + b"n+1\0")],
)
def test_without_the_extra_the_line_that_installs_it_is_shown(
    monkeypatch: pytest.MonkeyPatch, package: str, module: str, data: bytes
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    for name in [name for name in sys.modules if name.startswith(f"medical_vqa.data.imaging.{module}")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(
        UnsupportedImageError, match=rf"needs the package {package}.*pip install 'medical-vqa\[dicom\]'"
    ):
        decode_image(data)


def test_quiet_is_for_threads_too() -> None:
    filters = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        shapes = list(pool.map(lambda _: decode_image(saved(GRAY, "PNG")).pixels.shape, range(200)))
    assert set(shapes) == {(24, 40, 1)}
    assert warnings.filters == filters
    assert not logging.getLogger("PIL").disabled


def test_what_a_header_says_goes_into_no_warning_or_log(capfd: Any, caplog: Any) -> None:
    exif = Image.Exif()
    exif[0x010E] = "Doe"
    data = bytearray(saved(COLOR, "JPEG", exif=exif))
    at = data.index(b"Exif\0\0") + 6
    data[at + 14 : at + 18] = b"\xff\xff\xff\x00"  # the count of the first entry
    with warnings.catch_warnings(), caplog.at_level(0):
        warnings.simplefilter("always")
        decode_image(bytes(data))
    assert capfd.readouterr().err == ""
    assert caplog.records == []


def test_a_jpeg_of_thousands_of_exif_segments_is_refused_before_they_are_joined() -> None:
    """Which took 13 seconds for a file of 6 MB."""
    out = io.BytesIO()
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(out, "JPEG")
    plain, segment = out.getvalue(), b"\xff\xe1\0\x10Exif\0\0" + bytes(8)
    assert decode_image(plain[:2] + segment * 64 + plain[2:]).pixels.shape == (16, 16, 1)
    with pytest.raises(ImageError, match="more than 64 segments of EXIF"):
        decode_image(plain[:2] + segment * 65 + plain[2:])


@pytest.mark.parametrize("filling", [b" ", b"\n", b"a = ", b"a=\n", b"a=" + b" " * 100, b"<!-- -->", b"<!--", b"<?xml"])
def test_what_no_format_begins_with_is_recognized_as_nothing_in_one_pass(filling: bytes) -> None:
    """Spaces took quadratic time, a fifth of a second for each junk file of 4 kB; these would take minutes."""
    data = filling * (1_000_000 // len(filling))
    assert not recognition._META_IMAGE.match(data)
    found = recognition._XML.match(data)
    assert found is None or found[1] is None


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"\xef\xbb\xbf \n<?xml version='1.0'?>\n<!-- a -->\n<svg>", "an SVG drawing"),
        (b"\n\n <!DOCTYPE html>\n<html>", "a web page"),
        (b"ObjectType = Image\nNDims = 3\n", "a MetaImage volume (.mha, .mhd)"),
        (b"Comment =  a = b\nNDims=3\n", "a MetaImage volume (.mha, .mhd)"),
    ],
)
def test_texts_are_recognized_behind_spaces_and_comments(head: bytes, what: str) -> None:
    found = recognition.describe_unsupported(head)
    assert found is not None
    assert found[0] == what

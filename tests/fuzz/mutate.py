"""Hostile uploads: valid files, damaged at random from a seed, and the known decompression bombs.

    for name, data in uploads(10_000, seed=0):
        ...

The same seed gives the same uploads. The bombs come first, each once; then every file is a valid one with one to three
changes: bits, cuts, splices of two formats, header fields, appended data.
"""

from __future__ import annotations

import gzip
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom.data
from PIL import Image

EXTREMES = (0, 1, 2, 7, 0x7F, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 13_000, 65_500)
MAGICS = (
    b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"RIFF\0\0\0\0WEBPVP8 ", b"BM",
    b"GIF89a", b"\x02\0\0\0UL\x04\0", b"\x1f\x8b\x08\0", b"PK\x03\x04", b"%PDF-1.7\n", b"<svg ", b"\xff\x4f\xff\x51",
)  # fmt: skip
DICOM_TAGS = {
    "SamplesPerPixel": (0x28, 0x02), "NumberOfFrames": (0x28, 0x08), "Rows": (0x28, 0x10), "Columns": (0x28, 0x11),
    "BitsAllocated": (0x28, 0x100), "BitsStored": (0x28, 0x101), "HighBit": (0x28, 0x102),
    "PixelRepresentation": (0x28, 0x103), "WindowWidth": (0x28, 0x1051), "RescaleSlope": (0x28, 0x1053),
    "PixelData": (0x7FE0, 0x10), "PhotometricInterpretation": (0x28, 0x04),
}  # fmt: skip
DICOM_FILES = (
    "CT_small.dcm", "ExplVR_BigEnd.dcm", "GDCMJ2K_TextGBR.dcm", "JPEG2000.dcm", "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm", "JPGExtended.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm",
    "SC_rgb_jls_lossy_line.dcm", "SC_rgb_jls_lossy_sample.dcm", "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_rle_16bit_2frame.dcm",
    "SC_rgb_small_odd_jpeg.dcm", "SC_ybr_full_422_uncompressed.dcm", "image_dfl.dcm", "liver_1frame.dcm",
    "reportsi.dcm", "rtdose_rle.dcm", "examples_palette.dcm", "priv_SQ.dcm",
)  # fmt: skip


# --- valid files ------------------------------------------------------------------------------------------------------


def saved(image: Image.Image, fmt: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


def gzipped(data: bytes, level: int = 9) -> bytes:
    """Gzip without a time stamp: the same bytes in every run."""
    return gzip.compress(data, level, mtime=0)


@cache
def valid_files() -> dict[str, bytes]:
    """A small file of every format and variant, by a name with its usual extension."""
    gray = Image.linear_gradient("L").resize((60, 44))
    color = Image.merge("RGB", (gray, gray.rotate(180), gray.point(lambda v: 255 - v)))
    wide = Image.fromarray(np.arange(60 * 44, dtype=np.uint16).reshape(44, 60))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "chest"
    files = {
        "gray.jpg": saved(gray, "JPEG"),
        "turned.jpg": saved(color, "JPEG", exif=exif, comment=b"note", icc_profile=b"icc" * 50),
        "progressive.jpg": saved(color, "JPEG", progressive=True),
        "cmyk.jpg": saved(color.convert("CMYK"), "JPEG"),
        "gray.png": saved(gray, "PNG"),
        "wide.png": saved(wide, "PNG"),
        "layered.png": saved(color.convert("RGBA"), "PNG", exif=exif),
        "palette.png": saved(color.convert("P"), "PNG", transparency=3),
        "bits.png": saved(gray.convert("1"), "PNG"),
        "animated.png": saved(color, "PNG", save_all=True, append_images=[color.rotate(90)]),
        "a.bmp": saved(color, "BMP"),
        "gray.bmp": saved(gray, "BMP"),
        "lossy.webp": saved(color, "WEBP"),
        "lossless.webp": saved(color.convert("RGBA"), "WEBP", lossless=True, exif=exif),
        "animated.webp": saved(color, "WEBP", save_all=True, append_images=[color.rotate(90)]),
        "a.gif": saved(color.convert("P"), "GIF", save_all=True, append_images=[color.rotate(90).convert("P")]),
        "float.tif": saved(Image.fromarray(np.linspace(0, 1, 2640, dtype=np.float32).reshape(44, 60)), "TIFF"),
        "big.tif": saved(color, "TIFF", big_tiff=True),
        "pages.tif": saved(gray, "TIFF", save_all=True, append_images=[gray.rotate(90)]),
    }
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        files[f"{compression}.tif"] = saved(color, "TIFF", compression=compression)
    files["group4.tif"] = saved(gray.convert("1"), "TIFF", compression="group4")
    volume = nibabel.Nifti1Image(np.arange(20 * 24 * 6, dtype=np.int16).reshape(20, 24, 6), np.eye(4))
    files["a.nii"] = bytes(volume.to_bytes())
    files["a.nii.gz"] = gzipped(files["a.nii"])
    shipped = Path(pydicom.data.__file__).parent / "test_files"
    files |= {name: (shipped / name).read_bytes() for name in DICOM_FILES}
    # a picture of one bit: a segmentation, which is none, under the class of such pictures
    one_bit, segmentation = b"1.2.840.10008.5.1.4.1.1.7.1\0", b"1.2.840.10008.5.1.4.1.1.66.4"
    return files | {"one_bit.dcm": files["liver_1frame.dcm"].replace(segmentation, one_bit)}


# --- bombs ------------------------------------------------------------------------------------------------------------


def png(width: int, height: int, *, bits: int = 1, color: int = 0, extra: bytes = b"", packed: bytes = b"") -> bytes:
    """A PNG of any size, with whatever chunks before its pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    body = chunk(b"IDAT", packed or zlib.compress(b"\0" * 272))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + body + chunk(b"IEND", b"")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@cache
def zeros(count: int, kind: int = zlib.MAX_WBITS) -> bytes:
    """Zeros as zlib (15), raw deflate (-15) or gzip (31) make them small, assembled from one block."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = squeezer.compress(bytes(1_000_000)) + squeezer.flush(zlib.Z_FULL_FLUSH)
    body = block * (count // 1_000_000) + b"\x03\0"
    if kind == 31:
        head, tail = gzipped(b"")[:10], struct.pack("<II", zlib.crc32(bytes(count)), count)
    else:
        head, tail = (b"\x78\xda", struct.pack(">I", zlib.adler32(bytes(count)))) if kind > 0 else (b"", b"")
    return head + body + tail


def tiff(*entries: tuple[int, int, int, int], tail: bytes = b"") -> bytes:
    """A little-endian TIFF of one directory; an entry is tag, type, count, value or offset."""
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0\x08\0\0\0" + directory + struct.pack("<I", 0) + tail


def dicom(*elements: bytes, syntax: bytes = b"1.2.840.10008.1.2.1\0") -> bytes:
    """A DICOM file of these elements as they are."""
    uid = struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax
    body = b"".join(elements)
    return bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(uid)) + uid + body


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return struct.pack("<HH2s2xI", group, number, vr, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def short(number: int, value: int) -> bytes:
    return element(0x28, number, b"US", struct.pack("<H", value))


def gray_dicom(rows: int, columns: int, pixels: bytes, *, frames: bytes = b"1", **how: Any) -> bytes:
    return dicom(
        short(0x02, 1),
        element(0x28, 0x04, b"CS", b"MONOCHROME2"),
        element(0x28, 0x08, b"IS", frames),
        *(short(number, value) for number, value in ((0x10, rows), (0x11, columns))),
        *(short(number, value) for number, value in ((0x100, 8), (0x101, 8), (0x102, 7), (0x103, 0))),
        element(0x7FE0, 0x10, b"OB", pixels),
        **how,
    )


def nested(depth: int) -> bytes:
    """Sequences within sequences, all of undefined length."""
    return struct.pack("<HH2s2xIHHI", 0x28, 0x3000, b"SQ", 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF) * depth


@cache
def bombs() -> dict[str, bytes]:
    """The known ways to make a small upload expensive, each well below the limit of bytes."""
    valid = valid_files()
    claims = struct.pack("<H", 6) + b"".join(struct.pack("<HHII", tag, 1, 9_000_000, 8) for tag in range(700, 706))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(zipfile.ZipInfo("a.html"), "<script>alert(1)</script>" * 1000, zipfile.ZIP_DEFLATED)
    gray = valid["gray.png"]
    head = valid["a.nii"]
    many = 300_000_000
    huge_nifti = bytearray(head)
    struct.pack_into("<8h", huge_nifti, 40, 3, 32_000, 32_000, 32_000, 1, 1, 1, 1)
    deep_nifti = bytearray(head)
    struct.pack_into("<8h", deep_nifti, 40, 3, 512, 512, 1_000, 1, 1, 1, 1)
    long_gif = b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0) + b"\x08\x02\x4c\x01\0"
    return {
        "bits-13000.png": png(13_000, 13_000, packed=zeros(22_000_000)),
        "header-30000.png": png(30_000, 30_000),
        "sides-2147483647.png": png(2**31 - 1, 2**31 - 1),
        "column.png": png(8, 2**30),
        "one-pixel.png": png(1, 1),
        "allowed-7000.png": png(7_000, 7_000, packed=zeros(7_000_000)),
        "allowed-color-6000.png": png(6_000, 6_000, bits=8, color=6, packed=zeros(145_000_000)),
        "inflates-beyond-itself.png": png(16, 16, bits=8, packed=zeros(many)),
        "text.png": png(16, 16, bits=8, extra=chunk(b"zTXt", b"a\0\0" + zeros(1_000_000)) * 200),
        "profile.png": png(16, 16, bits=8, extra=chunk(b"iCCP", b"a\0\0" + zeros(many))),
        "chunks.png": png(16, 16, bits=8, extra=chunk(b"aaAa", b"") * 1_000_000),
        "segments.jpg": valid["gray.jpg"][:2] + b"\xff\xe5\0\2" * 3_000_000 + valid["gray.jpg"][2:],
        "exif-overlap.jpg": _with_exif(valid["gray.jpg"], b"II*\0\x08\0\0\0" + struct.pack("<H", 5_000) + b"".join(
            struct.pack("<HHII", tag, 1, 60_000, 8) for tag in range(5_000))),
        "huge.jpg": valid["gray.jpg"].replace(struct.pack(">HH", 44, 60), struct.pack(">HH", 65_500, 65_500), 1),
        "huge.bmp": valid["a.bmp"][:18] + struct.pack("<ii", 60_000, 60_000) + valid["a.bmp"][26:],
        "upside-down.bmp": valid["a.bmp"][:18] + struct.pack("<ii", -60, -(2**31)) + valid["a.bmp"][26:],
        "canvas.webp": b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0" + b"\xff\xff\xff" * 2 + bytes(8),
        "screen.gif": long_gif + frame + b";",
        "frame-beyond-screen.gif": b"GIF89a" + struct.pack("<HHBBB", 16, 16, 0, 0, 0) + frame + b";",
        "frames.gif": valid["a.gif"][:-1] + (b"," + struct.pack("<4HB2s", 0, 0, 9, 9, 0, b"\x02\0")) * 500_000,
        "size.tif": tiff((256, 4, 1, 60_000), (257, 4, 1, 60_000), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8)),
        "tile.tif": tiff(
            (256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1),
            (322, 4, 1, 40_000), (323, 4, 1, 40_000), (324, 4, 1, 200), (325, 4, 1, 300_000),
            tail=bytes(66) + zeros(many)),
        "rows-per-strip.tif": tiff(
            (256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1),
            (273, 4, 1, 200), (278, 4, 1, 2**32 - 1), (279, 4, 1, 300_000), tail=bytes(78) + zeros(many)),
        "tags.tif": b"II*\0\x08\0\0\0" + claims + bytes(4) + bytes(9_000_000),
        "circle.tif": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
        "pages.tif": b"II*\0\x08\0\0\0" + b"".join(
            struct.pack("<HI", 0, 8 + 6 * (n + 1)) for n in range(1_000_000)) + bytes(6),
        "deflated.dcm": dicom(zeros(many, -15), syntax=b"1.2.840.10008.1.2.1.99"),
        "rows.dcm": gray_dicom(65_535, 65_535, bytes(64)),
        "frames.dcm": gray_dicom(64, 64, bytes(4096), frames=b"2000000000"),
        "length.dcm": gray_dicom(64, 64, bytes(4096))[:-4100] + b"\xfe\xff\xff\xff" + bytes(4096),
        "rle.dcm": gray_dicom(7_000, 7_000, _encapsulated(struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 4),
                              syntax=b"1.2.840.10008.1.2.5\0"),
        "stream.dcm": gray_dicom(64, 64, _encapsulated(_j2k(30_000, 30_000)), syntax=b"1.2.840.10008.1.2.4.90"),
        "components.dcm": gray_dicom(64, 64, _encapsulated(_j2k(64, 64, components=16_384)),
                                     syntax=b"1.2.840.10008.1.2.4.90"),
        "nested.dcm": dicom(nested(100_000)),
        "elements.dcm": dicom(element(0x28, 0x02, b"US", b"\1\0") * 1_000_000),
        "fragments.dcm": gray_dicom(64, 64, _encapsulated(*[b""] * 500_000), syntax=b"1.2.840.10008.1.2.4.90"),
        "endless.nii.gz": gzipped(bytes(deep_nifti[:352])) + zeros(many, 31),
        "huge.nii": bytes(huge_nifti),
        "zeros.gz": zeros(many, 31),
        "zip-behind.png": gray + archive.getvalue(),
        "zip-before.png": archive.getvalue() + gray,
        "page.png": b"<html><script>alert(1)</script>" + gray,
        "dicom-and-tiff.dcm": valid["packbits.tif"][:128].ljust(128, b"\0") + valid["MR_small.dcm"][128:],
        "empty.png": b"",
        "zeros.bin": bytes(1_000_000),
    }  # fmt: skip


def _with_exif(jpeg: bytes, exif: bytes) -> bytes:
    body = b"Exif\0\0" + exif
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def _encapsulated(*fragments: bytes) -> bytes:
    items = [struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in (b"", *fragments)]
    return b"".join(items) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def _j2k(width: int, height: int, components: int = 1) -> bytes:
    size = struct.pack(">HIIIIIIIIH", 0, width, height, 0, 0, width, height, 0, 0, components) + b"\7\1\1" * components
    coding = b"\xff\x52\0\x0c\0\0\0\1\0\1\4\4\0\1" + b"\xff\x5c\0\x07\x40\x40\x48\x48"
    return b"\xff\x4f\xff\x51" + struct.pack(">H", len(size) + 2) + size + coding + b"\xff\xd9"


# --- changes ----------------------------------------------------------------------------------------------------------

Change = Callable[[bytearray, random.Random], bytearray]


def flip_bits(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def set_bytes(data: bytearray, rng: random.Random) -> bytearray:
    at, length = rng.randrange(len(data)), rng.choice((1, 4, 16, 256))
    data[at : at + length] = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    return data


def set_number(data: bytearray, rng: random.Random) -> bytearray:
    """An extreme number where headers have theirs."""
    form = rng.choice(("<H", ">H", "<I", ">I"))
    at = rng.randrange(max(1, min(len(data), rng.choice((64, 400, 2_000))) - 4))
    number = struct.pack(form, rng.choice(EXTREMES) & (0xFFFF if form[1] == "H" else 0xFFFFFFFF))
    data[at : at + len(number)] = number
    return data


def cut(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(len(data))]


def remove(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 4, 64, 1_000))]
    return data


def repeat(data: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(data))
    part = data[start : start + rng.choice((4, 64, 1_000))]
    at = rng.randrange(len(data))
    data[at:at] = part * rng.choice((1, 3, 50))
    return data


def splice(data: bytearray, rng: random.Random) -> bytearray:
    other = valid_files()[rng.choice(sorted(valid_files()))]
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def disguise(data: bytearray, rng: random.Random) -> bytearray:
    magic = rng.choice(MAGICS)
    data[: len(magic)] = magic
    return data


def append(data: bytearray, rng: random.Random) -> bytearray:
    return data + rng.choice(
        (rng.randbytes(300), b"PK\x03\x04" + bytes(200), valid_files()["gray.png"], bytes(100_000))
    )


def set_element(data: bytearray, rng: random.Random) -> bytearray:
    """The value of one element of a DICOM file, where there is one."""
    group, number = DICOM_TAGS[rng.choice(sorted(DICOM_TAGS))]
    at = data.find(struct.pack("<HH", group, number), 132)
    if at >= 0:
        where = at + rng.choice((4, 6, 8, 12))
        value = rng.choice((rng.randbytes(4), struct.pack("<I", rng.choice(EXTREMES)), b"-1  ", b"1e99", b"nan "))
        data[where : where + len(value)] = value
    return data


CHANGES: tuple[Change, ...] = (
    flip_bits, set_bytes, set_number, set_number, cut, remove, repeat, splice, disguise, append,
    set_element, set_element,
)  # fmt: skip


def mutated(name: str, rng: random.Random) -> tuple[str, bytes]:
    """One of the valid files with one to three changes; a compressed volume is also changed inside."""
    inside = name.endswith(".gz") and rng.random() < 0.5
    data = bytearray(gzip.decompress(valid_files()[name]) if inside else valid_files()[name])
    done = []
    for change in rng.choices(CHANGES, k=rng.choice((1, 1, 2, 3))):
        if data:
            data = change(data, rng)
            done.append(change.__name__)
    content = gzipped(bytes(data), 1) if inside else bytes(data)
    return f"{'-'.join(done)}-{name}", content


def uploads(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """`count` names and contents: the bombs first, then mutated files."""
    yield from list(bombs().items())[:count]
    names = sorted(valid_files())
    for number in range(count - len(bombs())):
        rng = random.Random(f"{seed}-{number}")
        yield mutated(names[number % len(names)], rng)

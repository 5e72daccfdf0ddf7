"""Structure of image files, read without a decoder: pages, canvas size, the last byte.

Every function takes untrusted bytes, does work that is linear in their number, and raises `struct.error`
where they end too early.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

MAX_PIECES = 65_536
"""Limit of PNG chunks and JPEG segments; decoders spend microseconds on each."""

# A progressive JPEG has about ten scans. A decoder passes over all pixels in each, whose data may be a few bytes.
_FEW_SCANS, _MANY_SCANS, _SCANNED_PIXELS = 16, 256, 400_000_000
_EXIF, _MAX_EXIF = b"Exif\0\0", 64  # segments, which the decoder joins one by one, each time with a copy of all
_SIZE_TAGS = (256, 257)  # ImageWidth and ImageLength of TIFF
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF0-15 and that of JPEG-LS
# A marker that ends entropy-coded data of a JPEG: not a stuffed zero, a fill byte, TEM, RST0-7 or SOI.
_SEGMENT = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")


def tiff_pages(data: bytes, limit: int) -> list[int]:
    """The offset of each page's directory, at most ``limit + 1`` of them; a circular chain ends where it closes."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    count, entry, pointer = (order + "Q", 20, order + "Q") if big else (order + "H", 12, order + "I")
    (offset,) = struct.unpack_from(pointer, data, 8 if big else 4)
    offsets: dict[int, None] = {}
    while offset and offset not in offsets and len(offsets) <= limit:
        offsets[offset] = None
        try:
            after = offset + struct.calcsize(count) + entry * struct.unpack_from(count, data, offset)[0]
            (offset,) = struct.unpack_from(pointer, data, after)
        except struct.error:  # some complete files lack the last pointer
            break
    return list(offsets)


def tiff_at_page(data: bytes, offset: int) -> bytes:
    """The file with the page at `offset` first, so that a decoder need not read the others."""
    order = "<" if data[:2] == b"II" else ">"
    if struct.unpack_from(order + "H", data, 2)[0] == 43:
        return data[:8] + struct.pack(order + "Q", offset) + data[16:]
    return data[:4] + struct.pack(order + "I", offset) + data[8:]


def tiff_page_size(data: bytes, offset: int) -> tuple[int, int] | None:
    """Width and height of the page at `offset`; None where its directory does not state them."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    count, entry, start = ("Q", 20, 8) if big else ("H", 12, 2)
    sizes: dict[int, int] = {}
    try:
        for number in range(min(64, struct.unpack_from(order + count, data, offset)[0])):
            at = offset + start + number * entry
            tag, kind = struct.unpack_from(order + "HH", data, at)
            if tag in _SIZE_TAGS:
                sizes[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at + entry - 4 - 4 * big)[0]
    except struct.error:
        return None
    return (sizes[256], sizes[257]) if len(sizes) == len(_SIZE_TAGS) else None


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP's canvas, which its decoder allocates as soon as the file is opened.

    Source: RFC 9649, sections 2.5 to 2.7.
    """
    chunk = data[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def end_of(data: bytes) -> int:
    """Offset of the end of the image, after which other data may follow; the file's length where the format has none.

    Raises `ValueError` for a file of more than `MAX_PIECES` pieces, or a JPEG of too many scans or parts of EXIF.
    """
    end = next((end for magic, end in _END_FINDERS.items() if data.startswith(magic)), len)
    try:
        return min(len(data), end(data))
    except (struct.error, IndexError):
        return len(data)


def _end_of_png(data: bytes) -> int:
    at = 8
    for _ in range(MAX_PIECES):
        chunk = data[at + 4 : at + 8]
        at += 12 + int(struct.unpack_from(">I", data, at)[0])
        if chunk == b"IEND":
            return at
    raise ValueError(f"more than {MAX_PIECES:,} chunks")


def _end_of_jpeg(data: bytes) -> int:
    at, scans, most = 2, 0, _MANY_SCANS
    exif = 0
    for _ in range(MAX_PIECES):
        marker = _SEGMENT.search(data, at)
        if marker is None:
            return len(data)
        if marker[1] == b"\xd9":
            return marker.end()
        if marker[1][0] in _FRAME_HEADERS:
            height, width = struct.unpack_from(">HH", data, marker.end() + 3)
            most = min(_MANY_SCANS, max(_FEW_SCANS, _SCANNED_PIXELS // max(1, width * height)))
        scans += marker[1] == b"\xda"
        if scans > most:
            raise ValueError(f"more than {most} scans")
        exif += marker[1] == b"\xe1" and data.startswith(_EXIF, marker.end() + 2)
        if exif > _MAX_EXIF:
            raise ValueError(f"more than {_MAX_EXIF} segments of EXIF")
        at = marker.end() + int(struct.unpack_from(">H", data, marker.end())[0])
    raise ValueError(f"more than {MAX_PIECES:,} segments")


def _end_of_webp(data: bytes) -> int:
    length = int.from_bytes(data[4:8], "little")
    return length + length % 2 + 8


def _end_of_bmp(data: bytes) -> int:
    length, start = map(int, struct.unpack_from("<I4xI", data, 2))
    return length if length > start else len(data)  # many writers write zero


_END_FINDERS: dict[bytes, Callable[[bytes], int]] = {
    b"\x89PNG": _end_of_png,
    b"\xff\xd8": _end_of_jpeg,
    b"RIFF": _end_of_webp,
    b"BM": _end_of_bmp,
}


def stream_size(stream: bytes) -> tuple[int, int, int]:
    """Width, height and components of one JPEG, JPEG-LS or JPEG 2000 stream, by its own header.

    A DICOM header may state less than the stream decodes to. Raises `ValueError` where the stream has no such header.
    """
    start = stream.find(b"\xff\x4f\xff\x51", 0, 4096)  # JPEG 2000 may be in a JP2 box
    if start >= 0 and not stream.startswith(b"\xff\xd8"):
        right, bottom, left, top = struct.unpack_from(">IIII", stream, start + 8)
        return right - left, bottom - top, int(struct.unpack_from(">H", stream, start + 40)[0])
    at = 0
    for _ in range(MAX_PIECES):
        marker = _SEGMENT.search(stream, at)
        if marker is None:
            break
        if marker[1][0] in _FRAME_HEADERS:
            height, width, components = struct.unpack_from(">HHB", stream, marker.end() + 3)
            return width, height, components
        at = marker.end() + int(struct.unpack_from(">H", stream, marker.end())[0])
    raise ValueError("no header in the stream")

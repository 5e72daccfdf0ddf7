"""What picture files say of themselves outside their pixels, read without a decoder: pages, canvas size, the last byte.

Every function takes untrusted bytes, does work that is linear in their number, and raises `struct.error`
where they end too early.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

MOST_PIECES = 65_536
"""Chunks of a PNG or segments of a JPEG; decoders spend microseconds on each, so there may not be millions."""

_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF0-15 and that of JPEG-LS
# What ends a run of JPEG picture data: not a stuffed zero, a fill byte, TEM, RST0-7 or SOI.
_SEGMENT = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")


def tiff_pages(data: bytes, limit: int) -> list[int]:
    """The offset of each page's directory, at most ``limit + 1`` of them; a chain that runs in a circle ends there."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    count, entry, pointer = (order + "Q", 20, order + "Q") if big else (order + "H", 12, order + "I")
    (offset,) = struct.unpack_from(pointer, data, 8 if big else 4)
    found: dict[int, None] = {}
    while offset and offset not in found and len(found) <= limit:
        found[offset] = None
        try:
            after = offset + struct.calcsize(count) + entry * struct.unpack_from(count, data, offset)[0]
            (offset,) = struct.unpack_from(pointer, data, after)
        except struct.error:  # the last pointer is missing in some files that are otherwise whole
            break
    return list(found)


def tiff_at_page(data: bytes, offset: int) -> bytes:
    """The file with the page at `offset` first, so that a decoder need not walk to it."""
    order = "<" if data[:2] == b"II" else ">"
    if struct.unpack_from(order + "H", data, 2)[0] == 43:
        return data[:8] + struct.pack(order + "Q", offset) + data[16:]
    return data[:4] + struct.pack(order + "I", offset) + data[8:]


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP's canvas; its decoder makes room for it as soon as the file is opened.

    Source: RFC 9649, sections 2.5 to 2.7.
    """
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def end_of(data: bytes) -> int:
    """Where the picture ends; what follows belongs to something else. All of the bytes where the format cannot tell.

    Raises `ValueError` for a file of more than `MOST_PIECES` pieces.
    """
    end = next((end for magic, end in _ENDS.items() if data.startswith(magic)), len)
    try:
        return min(len(data), end(data))
    except (struct.error, IndexError):
        return len(data)


def _end_of_png(data: bytes) -> int:
    at = 8
    for _ in range(MOST_PIECES):
        kind, length = data[at + 4 : at + 8], int(struct.unpack_from(">I", data, at)[0])
        at += 12 + length
        if kind == b"IEND":
            return at
    raise ValueError(f"more than {MOST_PIECES:,} chunks")


def _end_of_jpeg(data: bytes) -> int:
    at = 2
    for _ in range(MOST_PIECES):
        found = _SEGMENT.search(data, at)
        if found is None:
            return len(data)
        if found[1] == b"\xd9":
            return found.end()
        at = found.end() + int(struct.unpack_from(">H", data, found.end())[0])
    raise ValueError(f"more than {MOST_PIECES:,} segments")


def _end_of_webp(data: bytes) -> int:
    length = int.from_bytes(data[4:8], "little")
    return length + length % 2 + 8


def _end_of_bmp(data: bytes) -> int:
    length, start = map(int, struct.unpack_from("<I4xI", data, 2))
    return length if length > start else len(data)  # many writers leave it zero


_ENDS: dict[bytes, Callable[[bytes], int]] = {
    b"\x89PNG": _end_of_png,
    b"\xff\xd8": _end_of_jpeg,
    b"RIFF": _end_of_webp,
    b"BM": _end_of_bmp,
}


def stream_size(stream: bytes) -> tuple[int, int, int]:
    """Width, height and components of one JPEG, JPEG-LS or JPEG 2000 stream, as its own header has them.

    A DICOM header may claim less than the stream will come to. Raises `ValueError` where the stream has no such header.
    """
    start = stream.find(b"\xff\x4f\xff\x51", 0, 4096)  # JPEG 2000 may lie in a JP2 box
    if start >= 0 and not stream.startswith(b"\xff\xd8"):
        right, bottom, left, top = struct.unpack_from(">IIII", stream, start + 8)
        return right - left, bottom - top, int(struct.unpack_from(">H", stream, start + 40)[0])
    at = 0
    for _ in range(MOST_PIECES):
        found = _SEGMENT.search(stream, at)
        if found is None:
            break
        if found[1][0] in _FRAME_HEADERS:
            height, width, components = struct.unpack_from(">HHB", stream, found.end() + 3)
            return width, height, components
        at = found.end() + int(struct.unpack_from(">H", stream, found.end())[0])
    raise ValueError("no header in the stream")

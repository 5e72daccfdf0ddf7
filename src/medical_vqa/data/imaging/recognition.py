"""Recognition of a file's format by its first bytes, never by its name: what is read, and what is not, by its name."""

from __future__ import annotations

import re
import struct

_VALUE_REPRESENTATIONS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
LONG_VALUE_REPRESENTATIONS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Value representations whose length has four bytes after two reserved ones. Source: PS3.5, section 7.1.2."""
_FIRST_GROUPS = (0x0008, 0x0010, 0x0018, 0x0020, 0x0028)  # of datasets without a header
_UNDEFINED_LENGTH = 0xFFFFFFFF
_ELEMENTS_READ = 5
_DIRECTORY_CLASS = b"1.2.840.10008.1.3.10"

_ADVICE = "convert it to PNG"
_HEIC_ADVICE = f"{_ADVICE}, or run: pip install 'medical-vqa[heic]'"
_UNSUPPORTED: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"%PDF", "a PDF", _ADVICE),
    (0, b"PK\x03\x04", "a zip archive", "unpack it, or ask about the series of pictures in it"),
    (0, b"PK\x05\x06", "an empty zip archive", "put pictures into it"),
    (257, b"ustar", "a tar archive", "unpack it"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (0, b"Rar!", "a RAR archive", "unpack it"),
    (0, b"\xfd7zXZ\x00", "an xz file", "unpack it"),
    (0, b"BZh", "a bzip2 file", "unpack it"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file", "unpack it"),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 file", _ADVICE),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 stream", _ADVICE),
    (0, b"\x00\x00\x00\x0cJXL ", "a JPEG XL file", _ADVICE),
    (0, b"\xff\x0a", "a JPEG XL stream", _ADVICE),
    (4, b"ftypavif", "an AVIF picture", _ADVICE),
    (4, b"ftypavis", "an AVIF animation", _ADVICE),
    (4, b"ftyphe", "a HEIC picture", _HEIC_ADVICE),
    (4, b"ftypmif1", "a HEIC picture", _HEIC_ADVICE),
    (4, b"ftypmsf1", "a HEIC animation", _ADVICE),
    (4, b"ftyp", "a film", "export one picture of it"),
    (0, b"\x1a\x45\xdf\xa3", "a film", "export one picture of it"),
    (0, b"8BPS", "a Photoshop file", _ADVICE),
    (0, b"NRRD", "an NRRD volume", "convert it to NIfTI"),
    (0, b"\x89HDF", "an HDF5 file", "export the picture"),
    (0, b"CDF", "a MINC or NetCDF file", "convert it to NIfTI"),
    (0, b"\x93NUMPY", "a NumPy array", "save it as PNG, TIFF or NIfTI"),
    (0, b"P1\n", "a PBM picture", _ADVICE),
    (0, b"P4\n", "a PBM picture", _ADVICE),
    (0, b"P5", "a PGM picture", _ADVICE),
    (0, b"P6", "a PPM picture", _ADVICE),
)
_XML = re.compile(rb"^(?:\xef\xbb\xbf)?(?:<\?xml[^>]*>|<!--.*?-->|<!DOCTYPE[^>]*>|\s)*<\s*(svg|html)?", re.I | re.S)
_META_IMAGE = re.compile(rb"^(?:\w+ *=[^\n]*\n)*?(ObjectType|NDims) *=", re.I)


def is_dicom(data: bytes) -> bool:
    """Whether these are the bytes of a DICOM file: with its preamble, with its meta header alone, or a bare dataset."""
    return data[128:132] == b"DICM" or _is_meta_header(data) or bare_encoding(data) is not None


def is_heic(data: bytes) -> bool:
    """Whether these are the bytes of a HEIC picture."""
    return data[4:10] == b"ftyphe" or data[4:12] == b"ftypmif1"


def is_nifti(data: bytes) -> bool:
    """Whether these are the bytes of NIfTI or Analyze, or of a gzip file, as which NIfTI files are compressed."""
    magic = data[344:347] in (b"n+1", b"ni1") or data[4:7] in (b"n+2", b"ni2")
    return data.startswith(b"\x1f\x8b") or magic or is_analyze(data)


def is_analyze(data: bytes) -> bool:
    """Whether these are the bytes of an Analyze 7.5 header: its size, its extent and its character, at fixed places."""
    return any(
        len(data) >= 348
        and struct.unpack_from(order + "i", data)[0] == 348
        and 1 <= struct.unpack_from(order + "h", data, 40)[0] <= 7
        for order in "<>"
    )


def is_zip(data: bytes) -> bool:
    """Whether these are the bytes of a zip archive."""
    return data.startswith(b"PK\x03\x04")


def is_dicom_directory(data: bytes) -> bool:
    """Whether these are the bytes of a DICOMDIR, which lists files and holds no picture."""
    return data[128:132] == b"DICM" and _DIRECTORY_CLASS in data[132:1024]


def bare_encoding(data: bytes, start: int = 0) -> tuple[bool, bool] | None:
    """Encoding of a DICOM dataset that nothing describes, by its first elements: (implicit VR, little endian).

    None where the bytes at `start` are no dataset.
    """
    for order, explicit in (("<", True), ("<", False), (">", True)):
        if _valid_elements(data, start, order, explicit=explicit) >= 2:
            return not explicit, order == "<"
    return None


def describe_unsupported(data: bytes) -> tuple[str, str] | None:
    """What a file of a known format that is not read is, and what to do: ``("a PDF", "convert it to PNG")``."""
    for offset, magic, what, advice in _UNSUPPORTED:
        if data.startswith(magic, offset):
            return what, advice
    head = data[:4096]
    if head[:4] == b"\x00\x00\x00\x01" and len(data) > 284:
        return "a FreeSurfer volume (.mgh)", "convert it to NIfTI"
    if (xml := _XML.match(head)) and xml[1]:
        return ("an SVG drawing", _ADVICE) if xml[1].lower() == b"svg" else ("a web page", "save the picture itself")
    if _META_IMAGE.match(head):
        return "a MetaImage volume (.mha, .mhd)", "convert it to NIfTI"
    return None


def _is_meta_header(data: bytes) -> bool:
    """Whether the data begins with elements of group 2, with a group length or without."""
    return data[:2] == b"\x02\x00" and data[4:6] in _VALUE_REPRESENTATIONS and data[3:4] == b"\x00"


def _valid_elements(data: bytes, at: int, order: str, *, explicit: bool) -> int:
    """How many of the first elements are plausible: tags that ascend from a usual group, lengths within the file."""
    previous = (0, 0)
    for count in range(_ELEMENTS_READ):
        if at + 12 > len(data):
            return count
        group, element = struct.unpack_from(order + "HH", data, at)
        if (group, element) <= previous or (count == 0 and group not in _FIRST_GROUPS):
            return count if count and group > 0x0028 else 0
        representation = data[at + 4 : at + 6]
        if explicit and representation not in _VALUE_REPRESENTATIONS:
            return 0
        if explicit and representation not in LONG_VALUE_REPRESENTATIONS:
            length, header = struct.unpack_from(order + "H", data, at + 6)[0], 8
        elif explicit:
            length, header = struct.unpack_from(order + "I", data, at + 8)[0], 12
        else:
            length, header = struct.unpack_from(order + "I", data, at + 4)[0], 8
        if length == _UNDEFINED_LENGTH:
            return count + 1
        if at + header + length > len(data):
            return count
        previous = group, element
        at += header + length
    return _ELEMENTS_READ

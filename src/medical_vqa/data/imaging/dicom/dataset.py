"""The elements of a DICOM file on an allow-list, read from files with or without a header, within limits.

The parser receives the list, so names, dates and identifiers of patients are never read.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
)

from medical_vqa.data.imaging.dicom.elements import ElementReader
from medical_vqa.data.imaging.raster import DECODER_ERRORS
from medical_vqa.data.imaging.recognition import LONG_VALUE_REPRESENTATIONS, bare_encoding
from medical_vqa.errors import ImageError, TooLargeError, UnsupportedImageError

if TYPE_CHECKING:
    from medical_vqa.data.imaging.decoded_frame import DecodeLimits

DICOM_ERRORS = (*DECODER_ERRORS, InvalidDicomError, BytesLengthException)
"""What pydicom raises on damaged files, some of it only when an element is used; the texts may quote the header."""
PLAIN_SYNTAXES = {
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
}
"""Transfer syntaxes whose pixels are not compressed."""
_SAME_STREAMS = {
    UID("1.2.840.10008.1.2.4.53"): JPEGExtended12Bit,  # spectral selection, retired
    UID("1.2.840.10008.1.2.4.55"): JPEGExtended12Bit,  # full progression, retired
}
"""Transfer syntaxes of older files by the one whose decoders read them: a stream says itself how it was coded."""
TAGS: Collection[int] = [
    0x00080016, 0x00080060, 0x00180015, 0x00185101, 0x00280301,  # class, Modality, BodyPartExamined, ViewPosition, ...
    0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011,  # samples, colors, frames, rows, columns
    0x00280030, 0x00280034, 0x00181164, 0x00182010,  # size of the pixels
    0x00200032, 0x00200037,  # position and orientation
    0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00280120, 0x00280121,  # bits, sign, padding
    0x00281050, 0x00281051, 0x00281052, 0x00281053, 0x00281056,  # window, rescale, VOI LUT function
    *range(0x00281101, 0x00281104), *range(0x00281201, 0x00281204), *range(0x00281221, 0x00281224),  # palettes
    0x00283000, 0x00283010, 0x20500020, 0x52009229, 0x52009230,  # modality, VOI and presentation LUT, functional groups
    0x7FE00001, 0x7FE00002, 0x7FE00008, 0x7FE00009, 0x7FE00010,  # pixels
]  # fmt: skip
"""The elements that are read."""
PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
"""Keywords of the elements that hold a picture."""
_PIECE = 1 << 14  # bytes of a deflated dataset that are inflated at once


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a DICOM dataset, with the meaning of its pixels."""

    dataset: Dataset
    """Elements on the allow-list."""
    index: int
    """Number of the frame, from 0."""
    name: str
    """What messages call the image."""
    warnings: list[str] = field(default_factory=list)
    """Sentences on what could not be used; each names elements and never their values."""
    streams: list[bytes] | None = None
    """The compressed frames of the dataset, filled with all of them when the first is used; None: one is used alone."""

    def group(self, sequence: str) -> Dataset:
        """A module's attributes for this frame: its functional group in an enhanced object, else the dataset."""
        for place, index in (("PerFrameFunctionalGroupsSequence", self.index), ("SharedFunctionalGroupsSequence", 0)):
            groups = self.dataset.get(place) or []
            items = groups[index].get(sequence) if index < len(groups) else None
            if items:
                return items[0]  # type: ignore[no-any-return]
        return self.dataset

    def numbers(self, module: Dataset, keyword: str) -> list[float] | None:
        """The values of an optional element; None where it is absent, empty or, with a warning, not numbers."""
        try:
            value = module.get(keyword)
            values = [float(part) for part in np.ravel([] if value is None else value)]
        except DICOM_ERRORS:
            values = [np.nan]
        if values and not np.isfinite(values).all():
            self.warn(f"{keyword} is not a number and was not used")
            return None
        return values or None

    def warn(self, sentence: str) -> None:
        """Add a warning, once."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)


def read_elements(data: bytes, name: str, limits: DecodeLimits, tags: Collection[int] = TAGS) -> Dataset:
    """The elements on the allow-list; deflated ones are inflated no further than the limit.

    Args:
        data: The file's bytes.
        name: What messages call the image.
        limits: Limits of the inflated size.
        tags: The elements to read.

    Raises:
        UnsupportedImageError: The transfer syntax is unknown.
        TooLargeError: It inflates to more than allowed, or has too many elements.
        ImageError: The header cannot be parsed.
    """
    syntax, start = _file_meta(data)
    if not syntax:
        syntax = _syntax_of_bare_dataset(data, start, name)
    deflated = syntax == DeflatedExplicitVRLittleEndian
    if deflated:
        data, start = _inflated(data[start:], name, limits), 0
    try:
        little_endian = syntax != ExplicitVRBigEndian
        reader = ElementReader(data, name, little_endian=little_endian, budget=limits.budget)
        dataset = reader.dataset(start, implicit=syntax == ImplicitVRLittleEndian, tags=tags)
    except DICOM_ERRORS as error:  # its text may quote the header
        raise ImageError(
            f"{name}: expected a DICOM header, but an element of it is damaged ({type(error).__name__} in the "
            f"{len(data) - start:,} bytes after the file meta information); export the file again"
        ) from error
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if deflated else _SAME_STREAMS.get(syntax, syntax)
    return dataset


def _file_meta(data: bytes) -> tuple[UID, int]:
    """The transfer syntax, empty where none is stated, and the offset of the dataset. Source: PS3.10, section 7.1."""
    at = 132 if data[128:132] == b"DICM" else 0
    syntax = b""
    while data[at : at + 2] == b"\x02\x00" and at + 12 <= len(data):
        element, vr = data[at + 2 : at + 4], data[at + 4 : at + 6]
        if vr in LONG_VALUE_REPRESENTATIONS:
            (length,), header = struct.unpack_from("<I", data, at + 8), 12
        elif vr.isalpha() and vr.isupper():
            (length,), header = struct.unpack_from("<H", data, at + 6), 8
        else:  # implicit, against the standard
            (length,), header = struct.unpack_from("<I", data, at + 4), 8
        if element == b"\x10\x00":
            syntax = data[at + header : at + header + length]
        at += header + length
    try:
        return UID(syntax[:64].decode("ascii").strip("\x00 ")), at
    except UnicodeDecodeError:
        return UID("invalid"), at


def _syntax_of_bare_dataset(data: bytes, start: int, name: str) -> UID:
    """The encoding of a dataset whose file states no transfer syntax, by its first elements."""
    encoding = bare_encoding(data, start)
    if encoding is None:
        raise UnsupportedImageError(
            f"{name}: is DICOM without the element TransferSyntaxUID, and its {len(data) - start:,} bytes of data are "
            "in no encoding that can be recognized; export the file again"
        )
    implicit, little_endian = encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian


def _inflated(body: bytes, name: str, limits: DecodeLimits) -> bytes:
    limit = min(4 * limits.file_bytes, limits.inflated_bytes)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated: list[bytes] = []
    remaining = limit
    try:
        for at in range(0, len(body), _PIECE):
            limits.spend(0, name)  # nothing where earlier files have exceeded the budget
            most = min(remaining, limits.budget.inflated_bytes_left) + 1
            inflated.append(inflater.decompress(body[at : at + _PIECE], most))
            remaining -= len(inflated[-1])
            limits.spend(len(inflated[-1]), name)
            if remaining < 0 or inflater.eof:
                break
    except zlib.error as error:
        raise ImageError(
            f"{name}: expected a deflated DICOM dataset, but its {len(body):,} bytes cannot be inflated; "
            "export the file again"
        ) from error
    if remaining < 0:
        setting = "inflated_bytes" if limit == limits.inflated_bytes else "file_bytes"
        raise TooLargeError(
            f"{name}: inflates to more than {limit / 1e6:g} million bytes; convert it to an "
            f"uncompressed transfer syntax{limits.advice(setting)}"
        )
    return b"".join(inflated)


def transfer_syntax_name(syntax: UID) -> str:
    """The standard's name of a transfer syntax; ``of no name`` for anything that is not a UID."""
    return str(syntax.name) if re.fullmatch(r"[0-9.]{1,64}", syntax) else "of no name"

"""The parser of DICOM elements: what it skips costs little, and what it reads is what pydicom reads."""

from __future__ import annotations

import gc
import io
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import BuiltinFunctionType, FrameType
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

sys.path.insert(0, str(Path(__file__).parent))
from dicom_files import RAMP, SHIPPED, lut, made

from medical_vqa.data.imaging.decode import decode_image
from medical_vqa.data.imaging.decoded_frame import DecodeLimits
from medical_vqa.data.imaging.dicom.dataset import TAGS, read_elements
from medical_vqa.data.imaging.dicom.facts import read_facts
from medical_vqa.data.imaging.dicom.slices import SliceReader
from medical_vqa.data.imaging.dicom_export.source import read_source
from medical_vqa.data.imaging.series.reading import sort_files
from medical_vqa.errors import ImageError, TooLargeError

UNDEFINED = 0xFFFFFFFF
ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
ITEM_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
PRIVATE = (0x0027, 0x1010)
LIMITS = DecodeLimits()


def element(tag: tuple[int, int], representation: bytes, value: bytes = b"", length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    if representation in (b"OB", b"SQ", b"UN", b"UC"):
        return struct.pack("<HH2sHI", *tag, representation, 0, size) + value
    return struct.pack("<HH2sH", *tag, representation, size) + value


def with_elements(content: bytes, file: bytes | None = None) -> bytes:
    """A valid file with more elements before its SamplesPerPixel."""
    file = made(RAMP) if file is None else file
    at = file.index(b"\x28\x00\x02\x00")
    return file[:at] + content + file[at:]


def nested(depth: int, representation: bytes = b"SQ", tag: tuple[int, int] = PRIVATE, inside: bytes = b"") -> bytes:
    """Sequences within sequences, all of undefined length."""
    opened = (element(tag, representation, length=UNDEFINED) + ITEM) * depth
    return opened + inside + (ITEM_END + SEQUENCE_END) * depth


def of_coverage(frame: FrameType, function: Any) -> bool:
    """Whether a call is one of slipcover's, which now and then rewrites all the code that it has counted."""
    return frame.f_globals.get("__name__", "").startswith("slipcover.") or (
        isinstance(function, BuiltinFunctionType) and function.__module__ == "slipcover.probe"
    )


def calls(function: Callable[[], Any]) -> int:
    """How many functions are called while another runs: its work, without a clock."""
    count = 0
    left_out: FrameType | None = None

    def record(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count, left_out
        if left_out is not None:
            left_out = None if event == "return" and frame is left_out else left_out
        elif event in ("call", "c_call"):
            if not of_coverage(frame, argument):
                count += 1
            elif event == "call":
                left_out = frame

    gc.disable()
    sys.setprofile(record)
    try:
        function()
    except ImageError:
        pass
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


@pytest.mark.parametrize("representation", [b"SQ", b"UN"])
@pytest.mark.parametrize("tag", [PRIVATE, (0x0028, 0x3000), (0x5200, 0x9230), (0x0040, 0x0275)])
def test_what_is_nested_ten_thousand_deep_and_not_requested_is_skipped(
    representation: bytes, tag: tuple[int, int]
) -> None:
    data = with_elements(nested(10_000, representation, tag))
    assert np.array_equal(decode_image(data).pixels, decode_image(made(RAMP)).pixels)
    assert read_facts(data, LIMITS).identity == ("PatientID", "", "4711")
    assert [len(series) for series in sort_files(iter([lambda: data]), "x", limits=LIMITS).series] == [1]


@pytest.mark.parametrize(
    "content",
    [
        lambda n: nested(100, b"UN", inside=element((0x0027, 0x1011), b"OB", bytes(20), UNDEFINED) * n),
        lambda n: element(PRIVATE, b"UN", length=UNDEFINED) + (ITEM + element(PRIVATE, b"OB", length=UNDEFINED)) * n,
        lambda n: element((0x5200, 0x9230), b"SQ", length=UNDEFINED) + (ITEM + ITEM_END) * n + SEQUENCE_END,
        lambda n: element((0x5200, 0x9230), b"SQ", struct.pack("<HHI", 0xFFFE, 0xE000, 0) * n),
        lambda n: (element(PRIVATE, b"OB", length=UNDEFINED) + SEQUENCE_END) * n,
        nested,
        lambda n: nested(n)[: -8 * n],
        lambda n: element((0x0028, 0x1050), b"DS", b"1 ") * n,
        lambda n: element((0x0008, 0x0005), b"UC", b"A\\" * (5 * n)),
        lambda n: element((0x0008, 0x0005), b"CS", b"ISO 2022 IR 6\\" * 400) * n,
    ],
    ids=["nested", "unended", "items", "counted-items", "values", "depth", "open", "repeated", "charset", "charsets"],
)
def test_twice_the_elements_take_twice_the_work(content: Callable[[int], bytes]) -> None:
    """Each of these took pydicom quadratic time, or hundreds of calls for a few bytes."""
    few, many = (with_elements(content(n)) for n in (1_000, 2_000))
    decode_image(made(RAMP))  # imports are no work of a file
    assert calls(lambda: decode_image(many)) <= 2.2 * calls(lambda: decode_image(few))
    assert calls(lambda: decode_image(many)) <= 2 * len(many) + 5_000


@pytest.mark.parametrize("keyword", ["WindowCenter", "RescaleSlope", "PixelSpacing"])
def test_a_million_numbers_in_an_element_for_one_are_not_converted(keyword: str) -> None:
    plain, data = (made(RAMP, ImplicitVRLittleEndian, **{keyword: value}) for value in (None, ["1"] * 100_000))
    assert calls(lambda: decode_image(data)) <= calls(lambda: decode_image(plain)) + 500


@pytest.mark.parametrize("read", [decode_image, read_source])
def test_too_many_elements_are_refused_with_one_sentence(read: Callable[[bytes], Any]) -> None:
    data = with_elements(element(PRIVATE, b"US") * 1_500_000)
    with pytest.raises(TooLargeError, match="more than 1,000,000 elements and items in its DICOM header; give a part"):
        read(data)


def test_a_deflated_header_of_a_series_is_inflated_no_further_than_its_limit() -> None:
    plain = made(RAMP)
    start = plain.index(b"\x08\x00\x16\x00UI")
    meta = io.BytesIO()
    file_meta = pydicom.dcmread(io.BytesIO(plain)).file_meta
    file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    pydicom.filewriter.write_file_meta_info(meta, file_meta)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = packer.compress(plain[start:] + bytes(5_000_000)) + packer.flush()
    data = b"\0" * 128 + b"DICM" + meta.getvalue() + body
    limits = DecodeLimits(file_bytes=1_000_000)
    left_out = sort_files(iter([lambda: data]), "x", limits=limits).left_out
    assert [one.reason for one in left_out] == [
        "the file inflates to more than 4 million bytes; convert it to an uncompressed transfer syntax"
    ]


def test_a_file_that_ends_early_keeps_what_precedes_its_end() -> None:
    data = with_elements(element((0x0028, 0x0301), b"CS", b"NO"))
    with pytest.raises(ImageError, match="Secondary Capture Image without its pixels; get the whole file"):
        decode_image(data[: data.index(b"\xe0\x7f\x10\x00") + 6])


def grouped(frames: int) -> Dataset:
    group = Dataset()
    for keyword, name, value in (
        ("PixelMeasuresSequence", "PixelSpacing", [0.5, 0.5 + frames]),
        ("PlanePositionSequence", "ImagePositionPatient", [0, 0, frames]),
        ("PlaneOrientationSequence", "ImageOrientationPatient", [1, 0, 0, 0, 1, 0]),
        ("FrameVOILUTSequence", "WindowCenter", 40 + frames),
        ("PixelValueTransformationSequence", "RescaleSlope", 2),
        ("FrameContentSequence", "FrameComments", "x"),
    ):
        item = Dataset()
        setattr(item, name, value)
        setattr(group, keyword, [item])
    group.FrameVOILUTSequence[0].WindowWidth = 400
    group.PixelValueTransformationSequence[0].RescaleIntercept = -1024
    group.FrameVOILUTSequence[0].VOILUTSequence = [lut(np.arange(256), 0, 16)]
    return group


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_functional_groups_are_what_pydicom_reads(syntax: Any, undefined: bool) -> None:
    groups = [grouped(frame) for frame in range(3)]
    data = made(np.stack([RAMP] * 3), syntax, PerFrameFunctionalGroupsSequence=groups)
    reference = pydicom.dcmread(io.BytesIO(data))
    if undefined:
        for dataset, _ in ((reference, 0), *((item, 0) for item in reference.PerFrameFunctionalGroupsSequence)):
            for one in dataset:
                one.is_undefined_length = one.VR == "SQ"
        out = io.BytesIO()
        reference.save_as(out, enforce_file_format=True)
        data = out.getvalue()
    dataset = read_elements(data, "x", LIMITS)
    read = dataset.PerFrameFunctionalGroupsSequence
    assert len(read) == 3
    for one, other in zip(read, reference.PerFrameFunctionalGroupsSequence, strict=True):
        assert "FrameContentSequence" not in one
        for sequence in ("PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence"):
            assert one[sequence].value[0] == other[sequence].value[0]
        voi, reference_voi = (item.FrameVOILUTSequence[0] for item in (one, other))
        assert (voi.WindowCenter, voi.WindowWidth) == (reference_voi.WindowCenter, reference_voi.WindowWidth)
        assert voi.VOILUTSequence[0].LUTDescriptor == reference_voi.VOILUTSequence[0].LUTDescriptor
        assert len(voi.VOILUTSequence[0].LUTData) == len(reference_voi.VOILUTSequence[0].LUTData)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.dcm")), ids=lambda path: path.stem)
def test_the_requested_elements_of_published_files_are_what_pydicom_reads(path: Path) -> None:
    data = path.read_bytes()
    try:
        reference = pydicom.dcmread(io.BytesIO(data), specific_tags=TAGS, force=True)
    except Exception as error:
        pytest.skip(f"pydicom cannot read it: {type(error).__name__}")
    try:
        dataset = read_elements(data, "x", LIMITS)
    except ImageError:
        assert "TransferSyntaxUID" not in reference.file_meta
        return
    for expected in reference:
        if expected.VR != "SQ" and expected.tag in TAGS:
            assert dataset[expected.tag].value == expected.value, expected.keyword
    assert {one.tag for one in dataset} - {0x00080005} == {one.tag for one in reference} - {0x00080005}


def encapsulated(frames: int, fragments: int) -> bytes:
    """Frames of JPEG in several fragments each, without a table of their offsets."""
    stream = io.BytesIO()
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(stream, "JPEG")
    coded = stream.getvalue() + b"\0" * (len(stream.getvalue()) % 2)
    parts = [b"", *([coded[:100], *[b""] * (fragments - 2), coded[100:]] * frames)]
    pixels = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(part)) + part for part in parts)
    dataset = pydicom.dcmread(io.BytesIO(made(np.zeros((1, 16, 16), np.uint8))))
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.NumberOfFrames = frames
    dataset.PixelData = pixels
    dataset["PixelData"].is_undefined_length = True
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def test_twice_the_compressed_frames_take_twice_the_work() -> None:
    """Each frame was searched for among all of them, twice: 4,000 frames in 2 MB took minutes."""

    def read(data: bytes) -> None:
        reader = SliceReader("x", LIMITS)
        whole = reader_of(data)
        for index in range(int(pydicom.dcmread(io.BytesIO(data)).NumberOfFrames)):
            assert not reader.values(whole, index).any()

    def reader_of(data: bytes) -> Callable[[], bytes]:
        return lambda: data

    few, many = encapsulated(50, 8), encapsulated(100, 8)
    read(few)
    assert calls(lambda: read(many)) <= 2.2 * calls(lambda: read(few))

"""Damaged image files: each is decoded or refused with one sentence, within bounds; none is black without a warning.

    python benchmarks/mutated_files.py [COUNT] [SEED]     # 3,000 files, seed 16; writes results/mutated_files.json

The files are those that pydicom ships, and NIfTI, PNG, JPEG and TIFF files of `tests/fuzz/mutate.py`. In DICOM files
single elements are removed, repeated, or receive another type, length or value; in NIfTI files fields of the header;
all of them also receive the changes of `tests/fuzz/mutate.py`. Every tenth file is one of a series of five.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import random
import resource
import struct
import sys
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
from pydicom.datadict import tag_for_keyword
from pydicom.filereader import data_element_generator

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fuzz"))
from mutate import CHANGES, Change, gzipped, valid_files

from medical_vqa.data.imaging.decode import UPLOAD_LIMITS, decode_image
from medical_vqa.data.imaging.decoded_frame import DecodedFrame
from medical_vqa.data.imaging.dicom.facts import read_facts
from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.data.imaging.stripping import stripped
from medical_vqa.errors import ImageError
from medical_vqa.serving.series.decode import SeriesJob

RESULTS = Path(__file__).parent / "results" / "mutated_files.json"
SHIPPED = Path(pydicom.data.__file__).parent / "test_files"
SPEC = PictureSpec(side=64)
DARK = 0.999
"""Fraction of the pixels that have one value in a picture that shows nothing."""
_SERIES_EVERY = 10
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT")
_TYPES = (
    b"US",
    b"SS",
    b"UL",
    b"DS",
    b"IS",
    b"CS",
    b"LO",
    b"UN",
    b"OB",
    b"OW",
    b"FD",
    b"FL",
    b"SQ",
    b"UI",
    b"PN",
    b"??",
)
_TEXTS = (
    b"", b" ", b"0", b"1", b"-1", b"nan", b"inf", b"1e308", b"-1e308", b"1e-300", b"1,5", b"\\", b"40\\", b"\\40",
    b"40;300", b"40 HU", b"99999999999", b"0\\0\\0\\0\\0\\0", b"1\\1\\1", b"MONOCHROME1", b"MONOCHROME2", b"RGB",
    b"YBR_FULL", b"YBR_FULL_422", b"YBR_ICT", b"PALETTE COLOR", b"monochrome2", b"ARGB", b"XYZ", b"YES", b"\xff\xfe",
    b"SIGMOID", b"1.2.840.10008.1.2.5", b"1" * 64,
)  # fmt: skip
_NUMBERS = (0, 1, 2, 3, 4, 7, 8, 12, 15, 16, 17, 31, 32, 64, 255, 1024, 0x7FFF, 0x8000, 0xFFFF)
_INSERTED = (
    "WindowCenter", "WindowWidth", "VOILUTFunction", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "PixelAspectRatio", "PixelSpacing", "NumberOfFrames", "BurnedInAnnotation",
    "ImageOrientationPatient", "ImagePositionPatient", "PlanarConfiguration", "HighBit", "BitsStored",
)  # fmt: skip


@dataclass(frozen=True)
class Element:
    """Where an element of a DICOM file lies in it."""

    tag: int
    start: int
    value: int
    end: int


@dataclass(frozen=True)
class DicomFile:
    """A DICOM file by its elements."""

    data: bytes
    implicit: bool
    little: bool
    elements: tuple[Element, ...]


@cache
def dicom_files() -> dict[str, DicomFile]:
    """The files that pydicom ships, those whose elements can be listed."""
    files = {}
    for path in sorted(SHIPPED.rglob("*")):
        data = path.read_bytes() if path.is_file() and path.stat().st_size < 3_000_000 else b""
        if data[128:132] != b"DICM":
            continue
        try:
            files[path.relative_to(SHIPPED).as_posix()] = listed(data)
        except Exception:  # files that are damaged on purpose
            files[path.relative_to(SHIPPED).as_posix()] = DicomFile(data, False, True, ())
    return files


def listed(data: bytes) -> DicomFile:
    """A file with its top-level elements."""
    meta = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, force=True).file_meta
    syntax = str(meta.get("TransferSyntaxUID", "1.2.840.10008.1.2.1"))
    start = 132 + 12 + struct.unpack_from("<I", data, 140)[0]
    implicit, little = syntax == "1.2.840.10008.1.2", syntax != "1.2.840.10008.1.2.2"
    if syntax == "1.2.840.10008.1.2.1.99":
        return DicomFile(data, implicit, little, ())
    stream = io.BytesIO(data)
    stream.seek(start)
    elements, at = [], start
    for element in data_element_generator(stream, implicit, little):
        value = int(getattr(element, "value_tell", at))
        elements.append(Element(int(element.tag), at, value, stream.tell()))
        at = stream.tell()
    return DicomFile(data, implicit, little, tuple(elements))


def encoded(file: DicomFile, tag: int, representation: bytes, value: bytes) -> bytes:
    """An element in the encoding of a file."""
    order = "<" if file.little else ">"
    value += b" " * (len(value) % 2)
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if file.implicit:
        return head + struct.pack(order + "I", len(value)) + value
    if representation in _LONG:
        return head + representation + b"\0\0" + struct.pack(order + "I", len(value)) + value
    return head + representation + struct.pack(order + "H", len(value) & 0xFFFF) + value


def value_of(file: DicomFile, rng: random.Random) -> bytes:
    """A number or a text, sensible or not."""
    if rng.random() < 0.5:
        return rng.choice(_TEXTS)
    number = struct.pack("<H" if file.little else ">H", rng.choice(_NUMBERS))
    return number * rng.choice((1, 1, 1, 2, 3))


def changed_element(file: DicomFile, rng: random.Random) -> bytes:
    """The file with one change to one of its elements."""
    data = file.data
    image = [one for one in file.elements if one.tag >> 16 in (0x0028, 0x7FE0) or one.tag >= 0x52000000]
    one = rng.choice(image if image and rng.random() < 0.8 else list(file.elements))
    element, kind = data[one.start : one.end], rng.randrange(6)
    if kind == 0:  # absent
        return data[: one.start] + data[one.end :]
    if kind == 1:  # twice
        return data[: one.end] + element + data[one.end :]
    representation = rng.choice(_TYPES)
    if kind == 2:  # of another type
        changed = encoded(file, one.tag, representation, data[one.value : one.end][: rng.choice((2, 8, 60_000))])
    elif kind == 3:  # of another value
        own = data[one.start + 4 : one.start + 6] if not file.implicit else b"UN"
        changed = encoded(file, one.tag, own, value_of(file, rng))
    elif kind == 4 and one.end - one.value > 4:  # shorter
        own = data[one.start + 4 : one.start + 6] if not file.implicit else b"UN"
        changed = encoded(file, one.tag, own, data[one.value : one.value + rng.randrange(one.end - one.value)])
    else:  # another one before it
        tag = int(tag_for_keyword(rng.choice(_INSERTED)) or 0)
        usual = rng.choice((b"DS", b"CS", b"US", b"SS", b"IS"))
        return data[: one.start] + encoded(file, tag, usual, value_of(file, rng)) + data[one.start :]
    return data[: one.start] + changed + data[one.end :]


def changed_nifti(data: bytes, rng: random.Random) -> bytes:
    """A volume with one to three other fields in its header, or cut."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        offset, form = rng.choice((
            (40, "h"), (42, "h"), (44, "h"), (46, "h"), (48, "h"), (70, "h"), (72, "h"), (76, "f"), (80, "f"),
            (84, "f"), (88, "f"), (108, "f"), (112, "f"), (116, "f"), (123, "B"), (252, "h"), (254, "h"),
            (256, "f"), (260, "f"), (268, "f"), (280, "f"), (284, "f"), (296, "f"), (312, "f"), (320, "f"),
        ))  # fmt: skip
        number = rng.choice((0, 1, 2, 4, 5, 7, 8, 16, 64, 128, 255, 512, 1024, 32_767, -1, float("nan"), 1e30, -0.5))
        if form != "f":
            number = 0 if math.isnan(number) else int(max(-32_768, min(32_767, number))) & (0xFF if form == "B" else -1)
        struct.pack_into("<" + form, content, offset, number)
    cut = rng.randrange(len(content)) if rng.random() < 0.1 else len(content)
    zipped = gzipped(bytes(content[:cut]), 1) if rng.random() < 0.5 else bytes(content[:cut])
    return zipped[: rng.randrange(len(zipped))] if rng.random() < 0.1 else zipped


def changed_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to three of the changes that know nothing of the format."""
    content = bytearray(data)
    change: Change
    for change in rng.choices(CHANGES, k=rng.choice((1, 1, 2, 3))):
        if content:
            content = change(content, rng)
    return bytes(content)


def mutated_files(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Names and contents; the same seed gives the same files."""
    others = {name: data for name, data in valid_files().items() if not name.endswith(".dcm")}
    dicom = sorted(dicom_files())
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        part = rng.random()
        if part < 0.6:
            name = rng.choice(dicom)
            file = dicom_files()[name]
            for _ in range(rng.choice((1, 1, 2))):
                if file.elements:
                    data = changed_element(file, rng)
                    try:
                        file = listed(data)
                    except Exception:
                        file = DicomFile(data, file.implicit, file.little, ())
            yield name, file.data
        elif part < 0.75:
            name = rng.choice(dicom)
            yield name, changed_bytes(dicom_files()[name].data, rng)
        elif part < 0.85:
            yield "a.nii", changed_nifti(others["a.nii"], rng)
        else:
            name = rng.choice(sorted(others))
            inside = name.endswith(".gz") and rng.random() < 0.5
            data = changed_bytes(gzip.decompress(others[name]) if inside else others[name], rng)
            yield name, gzipped(data, 1) if inside else data


@dataclass
class Report:
    """What became of the files."""

    outcomes: Counter[str] = field(default_factory=Counter)
    crashes: list[dict[str, Any]] = field(default_factory=list)
    black: list[dict[str, Any]] = field(default_factory=list)
    sentences: list[dict[str, Any]] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")


def shows_nothing(decoded: DecodedFrame) -> bool:
    """Whether nearly every pixel has one value."""
    counts = np.bincount(decoded.pixels.ravel(), minlength=256)
    return bool(counts.max() >= DARK * decoded.pixels.size)


def check_file(name: str, number: int, data: bytes, report: Report, rng: random.Random) -> None:
    """Decode one file as an upload, read its facts, strip it, and put every tenth one into a series."""
    start = time.perf_counter()
    where = {"file": name, "number": number}
    try:
        window = (40.0, 400.0) if rng.random() < 0.1 else None
        decoded = decode_image(data, name="upload", frame=0 if rng.random() < 0.1 else None, window=window)
        report.outcomes["decoded"] += 1
        if shows_nothing(decoded) and not decoded.warnings:
            report.black.append(where | {"window": str(decoded.window_source)})
    except ImageError as error:
        report.outcomes[f"refused: {type(error).__name__}"] += 1
        if not str(error).startswith("upload: ") or "\n" in str(error):
            report.sentences.append(where | {"message": str(error)})
    except Exception:
        report.crashes.append(where | {"in": "decode_image", "error": traceback.format_exc()})
    further: dict[str, Any] = {
        "read_facts": lambda: read_facts(data, UPLOAD_LIMITS),
        "stripped": lambda: stripped(data, "upload"),
    }
    if number % _SERIES_EVERY == 0:
        further["series"] = lambda: SeriesJob((zipped_series(name, data),), UPLOAD_LIMITS, SPEC).run()
    for what, call in further.items():
        try:
            call()
        except ImageError:
            pass
        except Exception:
            report.crashes.append(where | {"in": what, "error": traceback.format_exc()})
    seconds = time.perf_counter() - start
    report.slowest = max(report.slowest, (round(seconds, 2), f"{name} ({number})"))


def zipped_series(name: str, data: bytes) -> bytes:
    """An archive of the damaged file and four whole ones of the same series."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo("0"), data)
        original = dicom_files()[name].data if name in dicom_files() else valid_files()[name]
        for number in range(1, 5):
            archive.writestr(zipfile.ZipInfo(str(number)), original)
    return out.getvalue()


def main(count: int, seed: int) -> None:
    """Check the files, print what is wrong, and write the results."""
    warnings.simplefilter("error")  # a library's warning could quote a header: none may come through
    report = Report()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = list(mutated_files(count, seed))
    made = time.perf_counter() - start
    before_checks = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, (name, data) in enumerate(files):
        check_file(name, number, data, report, random.Random(number))
    results = {
        "files": count,
        "seed": seed,
        "outcomes": dict(report.outcomes.most_common()),
        "crashes": len(report.crashes),
        "black without a warning": len(report.black),
        "messages of another form": len(report.sentences),
        "slowest_seconds": report.slowest[0],
        "slowest": report.slowest[1],
        "seconds": round(time.perf_counter() - start - made, 1),
        "peak_memory_megabytes_before": round(max(before, before_checks) / 1024),
        "peak_memory_megabytes_after": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    for problems in (report.crashes, report.black, report.sentences):
        for problem in problems[:40]:
            print(problem.pop("error", ""), problem)
    print(json.dumps(results, indent=1))
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if report.crashes or report.black or report.sentences:
        sys.exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3000, int(sys.argv[2]) if len(sys.argv) > 2 else 16)

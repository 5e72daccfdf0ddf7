"""A series of DICOM files, or a file of many slices, as one `Volume`: grouped, sorted by position, checked for gaps.

The slices are sorted by their position along the normal, not by file name or number. What does not belong to the volume
(other series, localizers, repeated positions, slices of another geometry) is left out and reported.
"""

from __future__ import annotations

import gzip
import io
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medical_vqa.data.imaging.decode import LOCAL_LIMITS
from medical_vqa.data.imaging.decoded_frame import DecodeLimits
from medical_vqa.data.imaging.planes import PLANES
from medical_vqa.data.imaging.raster import DECODER_ERRORS
from medical_vqa.data.imaging.recognition import is_dicom, is_dicom_directory, is_nifti, is_zip
from medical_vqa.data.imaging.suppress_warnings import suppress_warnings
from medical_vqa.data.imaging.volume import Volume, oriented
from medical_vqa.errors import ImageError, TooLargeError, UnsupportedImageError

_HEADER_TAGS: list[Any] = [
    0x00080008, 0x00080060, 0x00180015, 0x00185101, 0x00280301, 0x0020000E, 0x00200013, 0x00200032, 0x00200037,
    0x00280008, 0x00280010, 0x00280011, 0x00280030, 0x00080016, 0x52009229, 0x52009230,
]  # fmt: skip
_SAME_PLACE = 0.01  # millimeters
_GAP = 1.5  # of the usual distance
_MIN_SLICES = 2
_LISTED = 8  # damaged files and slices in a sentence


@dataclass(frozen=True, slots=True)
class _Slice:
    """One slice, without its pixels."""

    read: Callable[[], bytes] = field(repr=False)
    file: int
    frame: int
    series: str = field(repr=False)
    """Identifies the series; never stored or shown."""
    number: float
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    size: tuple[int, int]
    spacing: tuple[float, float]
    localizer: bool
    computed: bool
    """Whether it is no slice of a scanner but one computed from such: a dose, a parametric map."""

    @property
    def geometry(self) -> tuple[object, ...]:
        """Equal for slices that can lie in one volume."""
        turned = tuple(round(value, 3) + 0.0 for value in self.orientation) if self.orientation else None
        return self.size, tuple(round(value, 4) for value in self.spacing), turned


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that is in no series, or of which nothing is."""

    file: int
    """Number of the file, from 0, in the order in which the files were given."""
    reason: str
    """Why, in one sentence; never a value of the header."""


@dataclass(slots=True)
class _Report:
    """What was left out of a series, or is missing."""

    sentences: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def add(self, code: str, sentence: str, slices: Sequence[_Slice] = (), reason: str = "") -> None:
        self.sentences.append(sentence)
        self.codes.append(code)
        self.left_out += [LeftOut(one.file, reason) for one in slices]


class _NoPictureError(ImageError):
    """A DICOM object without a picture of its own; the text says which, without the file's name."""


class _DamagedError(ImageError):
    """A file that cannot be read; the text says why, without the file's name."""


@dataclass(slots=True)
class SortedFiles:
    """Files by what they hold; nothing of a picture has been decoded."""

    series: list[list[_Slice]] = field(default_factory=list)
    """Slices of each DICOM series, the largest first, those of scanners before computed ones."""
    volumes: list[tuple[int, bytes]] = field(default_factory=list)
    """Number and bytes of each NIfTI file."""
    pictures: list[tuple[int, Callable[[], bytes]]] = field(default_factory=list)
    """Number of each other file, and what reads it."""
    left_out: list[LeftOut] = field(default_factory=list)
    """Files without a picture of their own, and damaged ones."""


def is_series(path: Path) -> bool:
    """Whether this is a folder, a zip archive or a DICOMDIR, which hold more than one picture."""
    if path.is_dir():
        return True
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError:
        return False
    return is_zip(start) or is_dicom_directory(start)


def read_series(source: Path | Sequence[Path], *, limits: DecodeLimits = LOCAL_LIMITS) -> Volume:
    """The volume in a folder, a zip archive, a DICOMDIR, several DICOM files, or one file of many slices.

    Of several series the one with the most slices is read; segmentations, reports and other objects that have no
    picture of their own are none. Damaged slices are left out and reported.

    Args:
        source: The path, or the paths of the files.
        limits: Limits of slices, pixels and bytes.

    Raises:
        TooLargeError: A limit is exceeded.
        UnsupportedImageError: A type of picture that forms no volume.
        ImageError: There is no series, or fewer than two slices of it are intact.
    """
    name = str(source) if isinstance(source, Path) else "the series"
    try:
        with suppress_warnings("pydicom"):
            return series_of(series_files(source, limits), name, limits=limits)
    except ModuleNotFoundError as error:
        raise UnsupportedImageError(
            f"{name}: reading a series needs the package {error.name}; run: pip install 'medical-vqa[dicom]'"
        ) from error


def series_of(files: Iterator[Callable[[], bytes]], name: str, *, limits: DecodeLimits = LOCAL_LIMITS) -> Volume:
    """`read_series` of files that are read by calls, each at most twice.

    Args:
        files: Functions that return the bytes of a file.
        name: What messages call the series.
        limits: Limits of slices, pixels and bytes.
    """
    slices: list[_Slice] = []
    report = _Report()
    others = 0
    objects: list[str] = []
    damaged: list[int] = []
    for number, read in enumerate(files):
        try:
            data = read()
            if is_nifti(data) and not slices:
                return nifti_volume(data, name, limits)
            if is_dicom_directory(data) or not is_dicom(data):
                others += 1
                continue
            slices += _headers(read, data, number, limits)
        except _NoPictureError as error:
            objects.append(str(error))
        except _DamagedError:
            damaged.append(number)
        _check_count(slices, name, limits)
    if others:
        report.add("files_left_out", f"{others} files hold no slice and were left out")
    for reason, count in sorted(Counter(objects).items()):
        report.add("files_left_out", f"{count} files were left out: each {reason}")
    if damaged:
        sentence = f"{len(damaged)} damaged files were left out: {_listed([f'number {file}' for file in damaged])}"
        report.add("damaged_left_out", f"{sentence}, counted from 0 in the order of the files")
    return _volume(_one_series(slices, name, report), name, limits, report)


def sort_files(files: Iterator[Callable[[], bytes]], name: str, *, limits: DecodeLimits) -> SortedFiles:
    """Files by what they hold; a zip archive among them is opened, one within it is not.

    Args:
        files: Functions that return the bytes of a file.
        name: What messages call the files together.
        limits: Limits of slices and bytes.

    Raises:
        TooLargeError: There are too many slices, or an archive holds too much.
        ImageError: An archive is damaged.
    """
    slices: list[_Slice] = []
    sorted_files = SortedFiles()
    for number, read in enumerate(files):
        try:
            data = read()
            if is_dicom_directory(data):
                continue
            if is_nifti(data):
                sorted_files.volumes.append((number, data))
            elif is_dicom(data):
                slices += _headers(read, data, number, limits)
            else:
                sorted_files.pictures.append((number, read))
        except (_NoPictureError, _DamagedError) as error:
            sorted_files.left_out.append(LeftOut(number, f"the file {error}"))
        _check_count(slices, name, limits)
    by_series: dict[str, list[_Slice]] = {}
    for one in slices:
        by_series.setdefault(one.series, []).append(one)
    sorted_files.series = sorted(by_series.values(), key=_rank)
    return sorted_files


def volume_of(slices: list[_Slice], name: str, *, limits: DecodeLimits) -> tuple[Volume, list[LeftOut]]:
    """The volume of one series, and the files of it that are not in the volume.

    Args:
        slices: The slices, from `sort_files`.
        name: What messages call the series.
        limits: Limits of pixels and bytes.

    Raises:
        TooLargeError: A limit is exceeded.
        UnsupportedImageError: The slices have colors.
        ImageError: Fewer than two slices fit together and are intact.
    """
    report = _Report()
    volume = _volume(_without_localizers(slices, report), name, limits, report)
    return volume, report.left_out


def _check_count(slices: list[_Slice], name: str, limits: DecodeLimits) -> None:
    if len(slices) > limits.frames:
        raise TooLargeError(
            f"{name}: has more than {limits.frames:,} slices; give a part of it{limits.advice('frames')}"
        )


def _volume(slices: list[_Slice], name: str, limits: DecodeLimits, report: _Report) -> Volume:
    members = _sorted(_one_geometry(slices, report), report)
    if len(members) < _MIN_SLICES:
        raise ImageError(f"{name}: expected a series of at least two slices of one size and orientation, got "
                         f"{len(members)}; give the folder of the whole series")  # fmt: skip
    volume = _dicom_volume(members, name, limits, report)
    used = {file for file, _ in volume.files}
    report.left_out = [one for one in {file.file: file for file in report.left_out}.values() if one.file not in used]
    return volume


# --- files ------------------------------------------------------------------------------------------------------------


def series_files(source: Path | Sequence[Path], limits: DecodeLimits = LOCAL_LIMITS) -> Iterator[Callable[[], bytes]]:
    """Functions that return the bytes of each file, in the order of `Volume.files`; takes what `read_series` takes."""
    name = str(source) if isinstance(source, Path) else "the series"
    if not isinstance(source, Path):
        yield from (_reader(path) for path in source)
        return
    if not source.exists():
        raise ImageError(f"{name}: expected a series, but it does not exist; check the path")
    if source.is_dir():
        paths = sorted(source.rglob("*"))
        yield from (_reader(path) for path in paths if path.is_file() and not path.is_symlink())
        return
    data = source.read_bytes()
    if is_dicom_directory(data):
        yield from series_files(source.parent, limits)
    elif is_zip(data):
        yield from zip_members(data, name, limits)
    else:
        yield lambda: data


def _reader(path: Path) -> Callable[[], bytes]:
    """A function that returns the bytes of a file."""

    def read() -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise _DamagedError(f"cannot be read ({type(error).__name__}); check its permissions") from error

    return read


def zip_members(data: bytes, name: str, limits: DecodeLimits) -> Iterator[Callable[[], bytes]]:
    """Functions that return the bytes of each file in a zip archive; nothing is written, and no path is followed.

    Args:
        data: The archive.
        name: What messages call it.
        limits: Limits of the number of files and of their bytes together, checked before anything is unpacked.

    Raises:
        TooLargeError: A limit is exceeded.
        ImageError: The archive is damaged.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = [member for member in archive.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, *DECODER_ERRORS) as error:
        raise ImageError(f"{name}: expected a whole zip archive, but it cannot be read; export it again") from error
    total = sum(member.file_size for member in members)
    if len(members) > 2 * limits.frames or total > limits.inflated_bytes:
        raise TooLargeError(
            f"{name}: holds {len(members):,} files of {total / 1e6:,.0f} million bytes; give at most "
            f"{2 * limits.frames:,} files of {limits.inflated_bytes / 1e6:,.0f} million bytes"
            f"{limits.advice('inflated_bytes')}"
        )

    def read(member: zipfile.ZipInfo) -> bytes:
        try:
            with archive.open(member) as file:
                return file.read(member.file_size)  # its own size may be a lie
        except (zipfile.BadZipFile, *DECODER_ERRORS) as error:
            raise _DamagedError("cannot be unpacked from its archive; export it again") from error

    yield from (lambda member=member: read(member) for member in members)


# --- headers ----------------------------------------------------------------------------------------------------------


def _headers(read: Callable[[], bytes], data: bytes, number: int, limits: DecodeLimits) -> list[_Slice]:
    """The slices of one DICOM file.

    Of a header that states more frames than the limit, one more than the limit: `_check_count` refuses them.

    Raises:
        _NoPictureError: It is a report, a segmentation or another object without a picture of its own.
        _DamagedError: Its header cannot be read.
    """
    from medical_vqa.data.imaging.dicom.dataset import (  # noqa: PLC0415 - pydicom is an extra
        DICOM_ERRORS,
        Frame,
        read_elements,
    )
    from medical_vqa.data.imaging.dicom.object_kind import (  # noqa: PLC0415
        describe_without_picture,
        is_about_images,
        is_computed,
    )

    try:
        dataset = read_elements(data, "", LOCAL_LIMITS, _HEADER_TAGS)
        if is_about_images(dataset) or dataset.get("Rows") is dataset.get("Columns") is None:
            raise _NoPictureError(f"is {describe_without_picture(dataset)[0]}")
        size = int(dataset.Rows), int(dataset.Columns)
        frames = int(dataset.get("NumberOfFrames") or 1)
    except _NoPictureError:
        raise
    except (*DICOM_ERRORS, ImageError) as error:
        raise _DamagedError("is DICOM, but its header is damaged; export it again") from error
    slices = []
    for index in range(min(frames, limits.frames + 1)):
        frame = Frame(dataset, index, "")
        spacing = frame.numbers(frame.group("PixelMeasuresSequence"), "PixelSpacing") or [1.0, 1.0]
        position = frame.numbers(frame.group("PlanePositionSequence"), "ImagePositionPatient")
        orientation = frame.numbers(frame.group("PlaneOrientationSequence"), "ImageOrientationPatient")
        instance = frame.numbers(dataset, "InstanceNumber") or [0.0]
        slices.append(
            _Slice(
                read,
                number,
                index,
                str(dataset.get("SeriesInstanceUID") or ""),
                instance[0] + index / frames,
                tuple(position) if position and len(position) == 3 else None,
                tuple(orientation) if orientation and len(orientation) == 6 else None,
                size,
                (spacing[0], spacing[-1]),
                "LOCALIZER" in [str(part).upper() for part in np.ravel(dataset.get("ImageType") or [])],
                is_computed(dataset),
            )
        )
    return slices


def _rank(series: list[_Slice]) -> tuple[bool, int]:
    """Sorts series: those of scanners before computed ones, the largest first."""
    return series[0].computed, -len(series)


def _listed(parts: Sequence[str]) -> str:
    """The first parts, and how many others there are."""
    further = len(parts) - _LISTED
    return ", ".join(parts[:_LISTED]) + (f" and {further} others" if further > 0 else "")


def _one_series(slices: list[_Slice], name: str, report: _Report) -> list[_Slice]:
    """The slices of the largest series, without localizers."""
    pictures = _without_localizers(slices, report)
    if not pictures:
        reasons = f" ({'; '.join(report.sentences)})" if report.sentences else ""
        raise ImageError(f"{name}: expected a series of DICOM pictures, but none is there{reasons}; check the path")
    by_series: dict[str, list[_Slice]] = {}
    for one in pictures:
        by_series.setdefault(one.series, []).append(one)
    if len(by_series) > 1:
        report.add("series_left_out", f"{len(by_series)} series are there; the one with the most slices was read")
    return min(by_series.values(), key=_rank)


def _without_localizers(slices: list[_Slice], report: _Report) -> list[_Slice]:
    localizers = [one for one in slices if one.localizer]
    if localizers:
        sentence = f"{len(localizers)} localizers were left out"
        report.add("localizers_left_out", sentence, localizers, "the file is a localizer of the series")
    return [one for one in slices if not one.localizer]


def _one_geometry(slices: list[_Slice], report: _Report) -> list[_Slice]:
    """The slices of the commonest size, spacing and orientation."""
    if not slices:
        return []
    geometry, _ = Counter(one.geometry for one in slices).most_common(1)[0]
    others = [one for one in slices if one.geometry != geometry]
    if others:
        report.add(
            "geometry_left_out",
            f"{len(others)} slices of another size, spacing or orientation were left out",
            others,
            "the slice has another size, spacing or orientation than the rest of its series",
        )
    return [one for one in slices if one.geometry == geometry]


def _sorted(slices: list[_Slice], report: _Report) -> list[_Slice]:
    """The slices along their normal, one at each position; by their numbers where positions are absent."""
    if any(one.position is None or one.orientation is None for one in slices):
        report.add("order_by_number", "positions are missing; the slices are in the order of their numbers")
        return sorted(slices, key=lambda one: one.number)
    ordered = sorted(slices, key=lambda one: (_distance(one), one.number))
    distinct = ordered[:1]
    repeated: list[_Slice] = []
    for one in ordered[1:]:
        (distinct if _distance(one) - _distance(distinct[-1]) > _SAME_PLACE else repeated).append(one)
    if repeated:
        sentence = f"{len(repeated)} slices repeat a position and were left out"
        report.add("duplicates_left_out", sentence, repeated, "the slice repeats the position of another one")
    return distinct


def _report_gaps(slices: list[_Slice], report: _Report) -> None:
    """Report distances along the normal that are larger than usual."""
    if any(one.position is None or one.orientation is None for one in slices):
        return
    steps = np.diff([_distance(one) for one in slices])
    if len(steps) and (gaps := int((steps > _GAP * np.median(steps)).sum())):
        report.add("gaps", f"{gaps} gaps: slices are missing, and proportions across them are not true")


def _distance(one: _Slice) -> float:
    """Position along the normal, in millimeters."""
    assert one.position is not None
    assert one.orientation is not None
    return float(np.dot(np.cross(one.orientation[:3], one.orientation[3:]), one.position))


# --- volumes ----------------------------------------------------------------------------------------------------------


def _dicom_volume(slices: list[_Slice], name: str, limits: DecodeLimits, report: _Report) -> Volume:
    from medical_vqa.data.imaging.dicom.slices import SliceReader  # noqa: PLC0415 - pydicom is an extra

    rows, columns = slices[0].size
    size = len(slices) * rows * columns * 2
    if size > limits.inflated_bytes:
        raise TooLargeError(
            f"{name}: has {len(slices)} slices of {columns}x{rows} values, {size / 1e6:,.0f} million bytes; "
            f"give a part of it{limits.advice('inflated_bytes')}"
        )
    reader = SliceReader(name, limits)
    values = np.empty((len(slices), rows, columns), np.int16)
    intact: list[_Slice] = []
    damaged: list[_Slice] = []
    first_error: ImageError | None = None
    for one in slices:
        try:
            decoded = reader.values(one.read, one.frame)
        except TooLargeError:
            raise
        except ImageError as error:
            first_error = first_error or error
            damaged.append(one)
            continue
        if not np.can_cast(decoded.dtype, values.dtype) and values.dtype == np.int16:
            values = values.astype(np.float32)
        values[len(intact)] = decoded
        intact.append(one)
    if first_error is not None and len(intact) < _MIN_SLICES:
        raise first_error
    if damaged:
        sentence = f"{len(damaged)} damaged slices were left out: {_listed([_place(one, slices) for one in damaged])}"
        report.add("damaged_left_out", f"{sentence}, counted from 0", damaged, "the slice is damaged; export it again")
    slices, values = intact, values[: len(intact)]
    _report_gaps(slices, report)
    middle = reader.description(slices[len(slices) // 2].read, slices[len(slices) // 2].frame)
    directions = _directions(slices)
    turned, order = oriented(values, directions)
    steps = np.linalg.norm(directions, axis=0)
    files = tuple((one.file, one.frame) for one in slices)
    return Volume(
        turned,
        (float(steps[order[0]]), float(steps[order[1]]), float(steps[order[2]])),
        PLANES[order.index(0)],
        middle.window,
        middle.facts,
        inverted=middle.inverted,
        warnings=(*report.sentences, *reader.warnings),
        burned_in_annotation=middle.burned_in_annotation,
        located=all(one.position is not None and one.orientation is not None for one in slices),
        notes=(*report.codes, *(["header"] if reader.warnings else [])),
        files=files[::-1] if directions[order.index(0), 0] < 0 else files,
    )


def _place(one: _Slice, slices: Sequence[_Slice]) -> str:
    """A neutral name of a slice: the number of its file in the order of the files, and of its frame there."""
    several = sum(other.file == one.file for other in slices) > 1
    return f"frame {one.frame} of file {one.file}" if several else f"file {one.file}"


def _directions(slices: list[_Slice]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Steps of (slice, row, column) in patient coordinates; an axial volume where nothing is stated."""
    first, last = slices[0], slices[-1]
    orientation = np.asarray(first.orientation or (1, 0, 0, 0, 1, 0), float)
    along_row, along_column = orientation[:3], orientation[3:]
    normal = np.cross(along_row, along_column)
    if first.orientation is not None and first.position is not None and last.position is not None:
        step = (_distance(last) - _distance(first)) / (len(slices) - 1)
    else:
        step = 1.0
    return np.stack([normal * step, along_column * first.spacing[0], along_row * first.spacing[1]], axis=1)


def nifti_volume(data: bytes, name: str, limits: DecodeLimits) -> Volume:
    """The first volume of a NIfTI file; raises `ImageError` like `read_series`."""
    import nibabel  # noqa: PLC0415 - an extra

    from medical_vqa.data.imaging.nifti import NIFTI_ERRORS, read_nifti  # noqa: PLC0415

    read_nifti(data, name, limits=limits)  # checks format, limits and that the file is whole up to its middle
    try:
        inflated = (
            gzip.GzipFile(fileobj=io.BytesIO(data)).read(limits.inflated_bytes) if data[:2] == b"\x1f\x8b" else data
        )
        kind = nibabel.Nifti2Image if inflated[4:7] in (b"n+2", b"ni2") else nibabel.Nifti1Image
        image = kind.from_bytes(inflated)
        first = tuple([slice(None)] * 3 + [0] * (image.ndim - 3))
        values = np.asarray(image.dataobj[first])
        affine = np.asarray(image.header.get_best_affine(), float)
    except (*DECODER_ERRORS, *NIFTI_ERRORS) as error:
        raise ImageError(f"{name}: expected a whole NIfTI volume, but it cannot be decoded; export it again") from error
    if values.ndim != 3 or values.dtype.names:
        raise UnsupportedImageError(f"{name}: expected a gray volume of three axes; give one")
    if values.dtype not in (np.dtype(np.int16), np.dtype(np.uint8), np.dtype(np.uint16)):
        values = values.astype(np.float32)
    directions = np.diag([-1.0, -1.0, 1.0]) @ affine[:3, :3]  # NIfTI's x grows to the right and its y to the front
    turned, order = oriented(values, directions)
    steps = np.linalg.norm(directions, axis=0)
    spacing = float(steps[order[0]]), float(steps[order[1]]), float(steps[order[2]])
    return Volume(turned, spacing, PLANES[order.index(2)], format="NIFTI")

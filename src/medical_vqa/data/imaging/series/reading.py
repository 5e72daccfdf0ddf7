"""A series of DICOM files, or a file of many slices, as one `Volume`; many files as several series."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medical_vqa.data.imaging.decode import LOCAL_LIMITS
from medical_vqa.data.imaging.decoded_frame import DecodeLimits
from medical_vqa.data.imaging.recognition import is_dicom, is_dicom_directory, is_nifti
from medical_vqa.data.imaging.series.dicom_volume import MIN_SLICES, dicom_volume
from medical_vqa.data.imaging.series.files import series_files
from medical_vqa.data.imaging.series.nifti_volume import nifti_volume
from medical_vqa.data.imaging.series.report import LeftOut, Report, listed
from medical_vqa.data.imaging.series.slices import DamagedError, NoPictureError, Slice, slices_of
from medical_vqa.data.imaging.series.sorting import (
    by_series,
    in_order,
    of_one_geometry,
    of_one_series,
    without_localizers,
)
from medical_vqa.data.imaging.suppress_warnings import suppress_warnings
from medical_vqa.data.imaging.volume import Volume
from medical_vqa.errors import ImageError, TooLargeError, UnsupportedImageError

_DIRECTORY = "the file is a DICOMDIR, a list of files without a picture; give the files that it lists too"


@dataclass(slots=True)
class SortedFiles:
    """Files by what they hold; nothing of a picture has been decoded."""

    series: list[list[Slice]] = field(default_factory=list)
    """Slices of each DICOM series, the largest first, those of scanners before computed ones."""
    volumes: list[tuple[int, bytes]] = field(default_factory=list)
    """Number and bytes of each NIfTI file."""
    pictures: list[tuple[int, Callable[[], bytes]]] = field(default_factory=list)
    """Number of each other file, and what reads it."""
    left_out: list[LeftOut] = field(default_factory=list)
    """Files without a picture of their own, and damaged ones; a DICOMDIR only where no file has a picture."""


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
    slices: list[Slice] = []
    report = Report()
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
            slices += slices_of(read, data, number, limits)
        except NoPictureError as error:
            objects.append(str(error))
        except DamagedError:
            damaged.append(number)
        _check_count(slices, name, limits)
    if others:
        report.add("files_left_out", f"{others} files hold no slice and were left out")
    for reason, count in sorted(Counter(objects).items()):
        report.add("files_left_out", f"{count} files were left out: each {reason}")
    if damaged:
        sentence = f"{len(damaged)} damaged files were left out: {listed([f'number {file}' for file in damaged])}"
        report.add("damaged_left_out", f"{sentence}, counted from 0 in the order of the files")
    return _volume(of_one_series(slices, name, report), name, limits, report)


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
    slices: list[Slice] = []
    sorted_files = SortedFiles()
    directories: list[LeftOut] = []
    for number, read in enumerate(files):
        try:
            data = read()
            if is_dicom_directory(data):
                directories.append(LeftOut(number, _DIRECTORY))
                continue
            if is_nifti(data):
                sorted_files.volumes.append((number, data))
            elif is_dicom(data):
                slices += slices_of(read, data, number, limits)
            else:
                sorted_files.pictures.append((number, read))
        except (NoPictureError, DamagedError) as error:
            sorted_files.left_out.append(LeftOut(number, f"the file {error}"))
        except TooLargeError as error:
            sorted_files.left_out.append(LeftOut(number, f"the file {str(error).removeprefix(f'{name}: ')}"))
        _check_count(slices, name, limits)
    sorted_files.series = by_series(slices)
    if not (slices or sorted_files.volumes or sorted_files.pictures):
        sorted_files.left_out += directories
    return sorted_files


def volume_of(slices: list[Slice], name: str, *, limits: DecodeLimits) -> tuple[Volume, list[LeftOut]]:
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
    report = Report()
    volume = _volume(without_localizers(slices, report), name, limits, report)
    return volume, report.left_out


def _check_count(slices: list[Slice], name: str, limits: DecodeLimits) -> None:
    if len(slices) > limits.frames:
        raise TooLargeError(
            f"{name}: has more than {limits.frames:,} slices; give a part of it{limits.advice('frames')}"
        )


def _volume(slices: list[Slice], name: str, limits: DecodeLimits, report: Report) -> Volume:
    members = in_order(of_one_geometry(slices, report), report)
    if len(members) < MIN_SLICES:
        reasons = f" ({'; '.join(report.sentences)})" if report.sentences else ""
        raise ImageError(
            f"{name}: expected a series of at least two slices of one size and orientation at different positions, got "
            f"{len(members)}{reasons}; give the folder of the whole series"
        )
    volume = dicom_volume(members, name, limits, report)
    used = {file for file, _ in volume.files}
    report.left_out = [one for one in {file.file: file for file in report.left_out}.values() if one.file not in used]
    return volume

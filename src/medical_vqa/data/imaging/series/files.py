"""The files of a series: of a folder, a zip archive, a DICOMDIR or a list of paths."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from medical_vqa.data.imaging.decode import LOCAL_LIMITS
from medical_vqa.data.imaging.decoded_frame import DecodeLimits
from medical_vqa.data.imaging.raster import DECODER_ERRORS
from medical_vqa.data.imaging.recognition import is_dicom_directory, is_zip
from medical_vqa.data.imaging.series.slices import DamagedError
from medical_vqa.errors import ImageError, TooLargeError


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
            raise DamagedError(f"cannot be read ({type(error).__name__}); check its permissions") from error

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
        limits.spend(member.file_size, name)
        try:
            with archive.open(member) as file:
                return file.read(member.file_size)  # its own size may be a lie
        except (zipfile.BadZipFile, *DECODER_ERRORS) as error:
            raise DamagedError("cannot be unpacked from its archive; export it again") from error

    yield from (lambda member=member: read(member) for member in members)

"""In a decoding process: several files, or one of many slices, as series and single pictures."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from medical_vqa.data.imaging.decoded_frame import DecodeLimits, ReadingBudget
from medical_vqa.data.imaging.dicomweb import DicomwebAddress, retrieve
from medical_vqa.data.imaging.picture_statistics import PictureContext
from medical_vqa.data.imaging.recognition import is_zip
from medical_vqa.data.imaging.series.files import zip_members
from medical_vqa.data.imaging.series.nifti_volume import nifti_volume
from medical_vqa.data.imaging.series.reading import SortedFiles, sort_files, volume_of
from medical_vqa.data.imaging.series.report import LeftOut
from medical_vqa.data.imaging.stack import storable
from medical_vqa.data.imaging.suppress_warnings import suppress_warnings
from medical_vqa.data.imaging.volume import Volume
from medical_vqa.errors import ImageError, TooLargeError, UnsupportedImageError
from medical_vqa.serving.decoding.decoded_image import DecodedImage, info_of
from medical_vqa.serving.decoding.pictures import png_of, prepared_slice
from medical_vqa.serving.decoding.upload import DecodeJob, decode, read_sources
from medical_vqa.serving.image_facts import facts_of_volume

if TYPE_CHECKING:
    from collections.abc import Callable

    from medical_vqa.data.imaging.preprocessing import PictureSpec

MAX_ITEMS = 64
"""Series and single pictures of one request; what is beyond is left out."""
_TOO_MANY = f"the request holds more than {MAX_ITEMS} series and single pictures; send the rest in another one"
_MAX_INFLATED = 2  # times the bytes that the values of a request may have: what its compressed files may hold
_MAX_ELEMENTS = 3_000_000  # of the headers of all files; each takes about a microsecond
_READINGS = 2  # of a file of a series, for its values and for reports, after that of its header
_NAME = "the series"  # in messages: a client's file name is never repeated


@dataclass(frozen=True, slots=True)
class SeriesJob:
    """Files to sort into series."""

    files: tuple[bytes, ...]
    """The files; one may be a zip archive."""
    limits: DecodeLimits
    """Bounds on slices and values."""
    spec: PictureSpec | None
    """How the model needs its pictures; None for a model that uses no image."""
    keep_sources: bool = False
    """Whether what a DICOM report must repeat is returned too, to be stored."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files))

    def run(self) -> DecodedSeries:
        """Sort and decode the files in this process; raises `ImageError` where they hold nothing."""
        try:
            with suppress_warnings("pydicom"):
                return _decoded(self)
        except ModuleNotFoundError as error:
            raise UnsupportedImageError(
                f"{_NAME}: this server lacks the package {error.name}, which reads series; install medical-vqa[dicom]"
            ) from error


@dataclass(frozen=True, slots=True)
class DicomwebJob:
    """A study or series to retrieve from a DICOMweb server, and then to sort."""

    address: DicomwebAddress
    """Where it is."""
    limits: DecodeLimits
    """Bounds on bytes, slices and values."""
    spec: PictureSpec | None
    """How the model needs its pictures; None for a model that uses no image."""
    keep_sources: bool = False
    """Whether what a DICOM report must repeat is returned too, to be stored."""

    @property
    def size(self) -> int:
        """Bytes that are held in the server for it."""
        return 0

    def run(self) -> DecodedSeries:
        """Retrieve and decode in this process; raises `DicomwebError` or `ImageError`."""
        files = retrieve(self.address, limits=self.limits)
        return SeriesJob(tuple(files), self.limits, self.spec, self.keep_sources).run()


@dataclass(slots=True)
class DecodedSeries:
    """What the files of a job hold."""

    items: list[DecodedImage] = field(default_factory=list)
    """Each series by its middle slice, with its values; then single pictures."""
    left_out: list[LeftOut] = field(default_factory=list)
    """Files that are in none of them."""


def _decoded(job: SeriesJob) -> DecodedSeries:
    budget = ReadingBudget(inflated_bytes=_MAX_INFLATED * job.limits.inflated_bytes, elements=_MAX_ELEMENTS)
    job = dataclasses.replace(job, limits=dataclasses.replace(job.limits, budget=budget))
    files = sort_files(_members(job), _NAME, limits=job.limits)
    budget.renew(_READINGS)
    decoded = DecodedSeries(left_out=list(files.left_out))
    remaining = job.limits.inflated_bytes
    for slices in files.series:
        limits = dataclasses.replace(job.limits, inflated_bytes=remaining)
        numbers = sorted({one.file for one in slices})
        if len(decoded.items) >= MAX_ITEMS:
            decoded.left_out += [LeftOut(number, _TOO_MANY) for number in numbers]
            continue
        try:
            if len(slices) == 1:
                raise ImageError("one slice")
            volume, left_out = volume_of(slices, _NAME, limits=limits)
        except TooLargeError as error:
            decoded.left_out += [LeftOut(number, str(error)) for number in numbers]
            continue
        except ImageError:  # colors, or slices that form no volume: each file is a picture
            files.pictures += [(one.file, one.read) for one in {one.file: one for one in slices}.values()]
            continue
        remaining -= _add(decoded, volume, job.spec)
        if job.keep_sources:
            _add_sources(decoded.items[-1], volume, {one.file: one.read for one in slices}, job.limits)
        decoded.left_out += left_out
    for number, data in files.volumes:
        if len(decoded.items) >= MAX_ITEMS:
            decoded.left_out.append(LeftOut(number, _TOO_MANY))
            continue
        try:
            limits = dataclasses.replace(job.limits, inflated_bytes=remaining)
            remaining -= _add(decoded, nifti_volume(data, "the file", limits), job.spec)
        except UnsupportedImageError:  # colors, or one slice
            files.pictures.append((number, _reader(data)))
        except ImageError as error:
            decoded.left_out.append(LeftOut(number, str(error)))
    _add_pictures(decoded, files, job)
    decoded.left_out.sort(key=lambda one: one.file)
    if not decoded.items:
        first = decoded.left_out[0].reason if decoded.left_out else "there is no file"
        too_large = decoded.left_out and all("raise MEDICAL_VQA" in one.reason for one in decoded.left_out)
        kind = TooLargeError if too_large else ImageError
        raise kind(f"{_NAME}: expected pictures or slices, but of {len(decoded.left_out)} files none can be used; "
                   f"the first: {first}")  # fmt: skip
    return decoded


def _add_pictures(decoded: DecodedSeries, files: SortedFiles, job: SeriesJob) -> None:
    """Add the files that are in no series, each as a picture."""
    for number, read in sorted(files.pictures):
        if len(decoded.items) >= MAX_ITEMS:
            decoded.left_out.append(LeftOut(number, _TOO_MANY))
            continue
        try:
            decoded.items.append(
                decode(DecodeJob(read(), job.limits, job.spec, keep_values=True, keep_sources=job.keep_sources))
            )
        except ImageError as error:
            decoded.left_out.append(LeftOut(number, str(error)))


def _members(job: SeriesJob) -> Iterator[Callable[[], bytes]]:
    for data in job.files:
        if is_zip(data):
            yield from zip_members(data, _NAME, job.limits)
        else:
            yield _reader(data)


def _reader(data: bytes) -> Callable[[], bytes]:
    return lambda: data


def _add_sources(
    item: DecodedImage, volume: Volume, files: Mapping[int, Callable[[], bytes]], limits: DecodeLimits
) -> None:
    """Add what a DICOM report about the series must repeat."""
    used = {number: files[number] for number in sorted({number for number, _ in volume.files})}
    item.sources = read_sources(used, volume.files, limits)
    if item.facts is not None:
        item.facts = item.facts.model_copy(update={"dicom_report": bool(item.sources)})


def _add(decoded: DecodedSeries, volume: Volume, spec: PictureSpec | None) -> int:
    """Add a series; returns the bytes of its values."""
    stored = storable(volume)
    frame = stored.view()
    digest = hashlib.sha256(repr((stored.values.shape, stored.spacing, stored.slope, stored.intercept)).encode())
    digest.update(np.ascontiguousarray(stored.values.transpose(2, 1, 0)).data)
    _, picture = prepared_slice(stored, None, None, None, spec)
    decoded.items.append(
        DecodedImage(
            digest.hexdigest(),
            png_of(frame.image),
            picture,
            info_of(frame, frame.header_fields),
            PictureContext.of(frame),
            stored,
            facts_of_volume(stored),
        )
    )
    return int(stored.values.nbytes)

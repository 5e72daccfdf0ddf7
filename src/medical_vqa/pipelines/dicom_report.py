"""Write answers as a DICOM report, and attention maps as a DICOM picture, next to the images that they are about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa.data.imaging.decode import decode_image_file
from medical_vqa.data.imaging.dicom_export.capture import attention_picture, secondary_capture
from medical_vqa.data.imaging.dicom_export.report import ReportedAnswer, structured_report
from medical_vqa.data.imaging.dicom_export.source import dicom_bytes, read_source
from medical_vqa.data.imaging.dicom_export.uids import ObjectUids, device_uid
from medical_vqa.data.imaging.dicomweb import DicomwebAddress, store
from medical_vqa.data.imaging.raster import read_image_file
from medical_vqa.data.imaging.series.files import is_series, series_files
from medical_vqa.errors import ImageError
from medical_vqa.io import atomic_write

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from medical_vqa.pipelines.ask import Answer, AttentionMap
    from medical_vqa.pipelines.ask_series import SeriesAnswer


def report_of(
    answers: Sequence[Answer] | Sequence[SeriesAnswer], source: Path, *, uids: ObjectUids, model: str
) -> Dataset:
    """The answers about an image or a series as a DICOM Comprehensive SR.

    Args:
        answers: Of `ask` or `ask_series`, all about `source`.
        source: The DICOM file, or the series.
        uids: UIDs of the report.
        model: Name of the model.

    Raises:
        ImageError: The source is not DICOM.
        MissingDependencyError: The package highdicom is not installed.
    """
    if source.is_file() and not is_series(source):
        sources = [_source(read_image_file(source))]
        reported = [_about_file(answer, sources[0]) for answer in answers]
    else:
        sources, reported = _about_series(answers, source)  # type: ignore[arg-type]
    return structured_report(
        reported,
        sources,
        model=model,
        device_uid=device_uid(model),
        series_uid=uids.series,
        instance_uid=uids.instance,
    )


def capture_of(attention: AttentionMap, *, uids: ObjectUids, model: str) -> Dataset:
    """An attention map over its picture as a DICOM Secondary Capture; raises like `report_of`."""
    file = attention.seen.file
    window = attention.seen.window if attention.seen.window_source == "option" else None
    decoded = decode_image_file(file, frame=attention.seen.frame, window=window)
    pixels = attention_picture(decoded.image, attention.weights)
    source = _source(read_image_file(file))
    return secondary_capture(pixels, source, model=model, series_uid=uids.series, instance_uid=uids.instance)


def write_dicom(dataset: Dataset, path: Path) -> None:
    """Write a DICOM object, which only its owner may read: it has the patient's elements."""
    atomic_write(path, dicom_bytes(dataset), private=True)


def store_dicom(dataset: Dataset, address: str) -> None:
    """Store a DICOM object at the service of a ``dicomweb://`` address; raises `DicomwebError`."""
    store(DicomwebAddress.parse(address), [dataset])


def _source(data: bytes) -> Dataset:
    return read_source(data, "the report's image")


def _about_file(answer: Answer | SeriesAnswer, source: Dataset) -> ReportedAnswer:
    several = int(source.get("NumberOfFrames") or 1) > 1
    frames = [frame for _, frame in answer.files] if hasattr(answer, "files") else [answer.seen.frame]
    images = tuple((0, frame + 1 if several else None) for frame in frames or [0])
    return _reported(answer, images)


def _about_series(answers: Sequence[SeriesAnswer], source: Path) -> tuple[list[Dataset], list[ReportedAnswer]]:
    """The images that the answers are about; all of the series where slices were resampled."""
    numbers = {file for answer in answers for file, _ in answer.files}
    places: dict[int, int] = {}
    sources: list[Dataset] = []
    for number, read in enumerate(series_files(source)):
        if numbers and number not in numbers:
            continue
        try:
            sources.append(_source(read()))
        except ImageError:
            if numbers:
                raise
            continue  # files that are no DICOM, or have no UIDs
        places[number] = len(sources) - 1
    series = {str(one.SeriesInstanceUID) for one in sources}
    if len(series) > 1:
        raise ImageError(f"{source}: expected one series for a report, got {len(series)}; give the folder of one")
    reported = []
    for answer in answers:
        slices = [(places[file], frame) for file, frame in answer.files] or [(place, 0) for place in places.values()]
        images = tuple(
            (place, frame + 1 if int(sources[place].get("NumberOfFrames") or 1) > 1 else None)
            for place, frame in slices
        )
        reported.append(_reported(answer, images))
    return sources, reported


def _reported(answer: Answer | SeriesAnswer, images: tuple[tuple[int, int | None], ...]) -> ReportedAnswer:
    text = None if answer.abstained else answer.text
    return ReportedAnswer(answer.question, text, answer.confidence, answer.reason, images)

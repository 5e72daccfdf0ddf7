"""The study and the images that an exported object is about: what must be repeated in it, and nothing else.

An exported object belongs to the patient's record, so that it repeats the patient's and the study's elements of its
source. Nothing else of this package writes them.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from medical_vqa.data.imaging.decode import LOCAL_LIMITS
from medical_vqa.data.imaging.decoded_frame import DecodeLimits
from medical_vqa.data.imaging.dicom.dataset import DICOM_ERRORS, read_elements
from medical_vqa.data.imaging.suppress_warnings import suppress_warnings
from medical_vqa.errors import ImageError

_KEYWORDS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "PatientName",
    "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
    "Modality", "Rows", "Columns", "NumberOfFrames", "ImageOrientationPatient", "SpecificCharacterSet",
)  # fmt: skip
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def read_source(data: bytes, name: str = "the file", limits: DecodeLimits = LOCAL_LIMITS) -> Dataset:
    """The elements of a DICOM file that an exported object repeats or refers to; raises `ImageError`."""
    tags = [tag for keyword in _KEYWORDS if (tag := tag_for_keyword(keyword)) is not None]
    try:
        with suppress_warnings("pydicom"):
            dataset = read_elements(data, name, limits, tags)
            return source(**{key: dataset.get(key) for key in _KEYWORDS if dataset.get(key) is not None})
    except DICOM_ERRORS as error:
        raise ImageError(
            f"{name}: expected a DICOM file with its UIDs, but the header cannot be used; export the file again"
        ) from error


def source(**elements: Any) -> Dataset:
    """An image by its UIDs, for callers that have no file; raises `ValueError` where one of the four is missing."""
    if missing := [key for key in _NEEDED if not elements.get(key)]:
        raise ValueError(f"the element {missing[0]} is missing")
    dataset = Dataset()
    for key in _KEYWORDS:
        if key in elements:
            setattr(dataset, key, elements[key])
    for key in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
                "AccessionNumber", "ReferringPhysicianName"):  # fmt: skip
        if key not in dataset:  # type 2: there, and perhaps empty
            setattr(dataset, key, None)
    return dataset


def dicom_bytes(dataset: Dataset) -> bytes:
    """A DICOM object as a file."""
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def check_one_study(sources: Sequence[Dataset]) -> None:
    """Raise `ImageError` unless there are images, all of one study."""
    if len({str(one.StudyInstanceUID) for one in sources}) != 1:
        raise ImageError("expected images of one study for a report; give one")

"""Facts of a DICOM file without its pixels: terms that may be stored, and whose picture it is, which may not."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from medical_vqa.data.imaging.decoded_frame import DecodeLimits
from medical_vqa.data.imaging.dicom.dataset import DICOM_ERRORS, Frame, read_elements
from medical_vqa.data.imaging.dicom.defined_terms import defined_term
from medical_vqa.data.imaging.planes import plane_of
from medical_vqa.data.imaging.suppress_warnings import suppress_warnings
from medical_vqa.errors import ImageError

HEADER_FIELDS = ("Modality", "BodyPartExamined", "ViewPosition")
"""Header fields that are stored where they hold a term that the standard defines."""
_IDENTITIES = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")  # the first that is present identifies the patient
_TAGS = [
    0x00080060, 0x00180015, 0x00185101, 0x00100020, 0x00100021, 0x0020000D, 0x0020000E, 0x00200037, 0x00280008,
    0x52009229, 0x52009230,
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is known of a file apart from its pixels."""

    terms: dict[str, str] = field(default_factory=dict)
    """``modality``, ``body_part``, ``view``, ``plane``, each where the header states it."""
    identity: tuple[str, ...] = field(default=(), repr=False)
    """Identifies the patient: never to be stored, but only its keyed hash; empty where the file does not say."""


def read_facts(data: bytes, limits: DecodeLimits, frame: int | None = None) -> FileFacts:
    """Facts of one frame of a DICOM file; none where its header cannot be read."""
    try:
        with suppress_warnings("pydicom"):
            dataset = read_elements(data, "", limits, _TAGS)
            return FileFacts(_terms(dataset, frame), _identity(dataset))
    except (*DICOM_ERRORS, ImageError):  # reported where the picture is read
        return FileFacts()


def _terms(dataset: Dataset, index: int | None) -> dict[str, str]:
    frames = int(dataset.get("NumberOfFrames") or 1)
    plane = plane_of_frame(Frame(dataset, frames // 2 if index is None else index, ""))
    values = (*(term_of(dataset, keyword) for keyword in HEADER_FIELDS), plane)
    return {key: value for key, value in zip(("modality", "body_part", "view", "plane"), values, strict=True) if value}


def _identity(dataset: Dataset) -> tuple[str, ...]:
    for keyword in _IDENTITIES:
        if value := str(dataset.get(keyword) or "").strip():
            return keyword, str(dataset.get("IssuerOfPatientID") or "") if keyword == "PatientID" else "", value
    return ()


def term_of(dataset: Dataset, keyword: str) -> str | None:
    """The value of a header field where it is a term that the standard defines."""
    try:
        return defined_term(keyword, str(dataset.get(keyword) or ""))
    except DICOM_ERRORS:
        return None


def plane_of_frame(frame: Frame) -> str | None:
    """The plane nearest to a frame, by its orientation."""
    orientation = frame.numbers(frame.group("PlaneOrientationSequence"), "ImageOrientationPatient")
    return plane_of(orientation) if orientation else None

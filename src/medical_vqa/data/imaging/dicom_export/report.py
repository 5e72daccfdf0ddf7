"""Questions with their answers as a DICOM Comprehensive SR that refers to the images.

    CONTAINER (18748-4, LN, Diagnostic Imaging Report)
      language, device observer: the name of the model
      TEXT (121106, DCM, Comment): research software
      CONTAINER (121070, DCM, Findings), for each question
        TEXT (question, 99MVQA), TEXT (121071, DCM, Finding): the answer, or TEXT (abstention, 99MVQA): the reason
        NUM (confidence, 99MVQA)
        IMAGE (121112, DCM, Source of Measurement), for each image that the answer is about

The report is complete, preliminary and unverified: nobody has read it. Source: PS3.3, A.35.3; PS3.16, CID 7021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medical_vqa.data.imaging.dicom_export.source import check_one_study
from medical_vqa.data.imaging.suppress_warnings import suppress_warnings
from medical_vqa.errors import MissingDependencyError
from medical_vqa.runtime.environment import package_version

if TYPE_CHECKING:
    from highdicom import sr
    from pydicom.dataset import Dataset

_SCHEME = "99MVQA"  # a private coding scheme begins with 99: PS3.16, section 8.2
_DISCLAIMER = "Research software: not a medical device and not for diagnosis."
_MANUFACTURER = "Medical-VQA"
_SERIES_NUMBER = 9901
_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class ReportedAnswer:
    """One question with its answer."""

    question: str
    """The question."""
    answer: str | None
    """The answer; None where the model abstains."""
    confidence: float | None = None
    """Probability of the answer; None where the model gives none."""
    reason: str | None = None
    """Why the model abstains."""
    images: tuple[tuple[int, int | None], ...] = ()
    """Place among the sources, and number of the frame from 1 of a file with frames, of each image that it is about."""


def structured_report(
    answers: Sequence[ReportedAnswer],
    sources: Sequence[Dataset],
    *,
    model: str,
    device_uid: str,
    series_uid: str,
    instance_uid: str,
) -> Dataset:
    """A report that refers to its images.

    Args:
        answers: Questions with their answers.
        sources: The images, from `source.read_source`, all of one study.
        model: Name of the model.
        device_uid: UID that stands for the model.
        series_uid: SeriesInstanceUID of the report.
        instance_uid: SOPInstanceUID of the report.

    Returns:
        The report with its file meta information.

    Raises:
        ImageError: The images are of several studies.
        MissingDependencyError: The package highdicom is not installed.
    """
    check_one_study(sources)
    try:
        from highdicom import sr  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"DICOM reports need the package {error.name}; run: pip install 'medical-vqa[dicomweb]'"
        ) from error
    with suppress_warnings("pydicom"):
        root = sr.ContainerContentItem(sr.CodedConcept("18748-4", "LN", "Diagnostic Imaging Report"))
        content = sr.ContentSequence()
        english = sr.CodedConcept("en", "RFC5646", "English")
        content.extend(sr.LanguageOfContentItemAndDescendants(english))
        content.extend(_observer(model, device_uid))
        comment = sr.CodedConcept("121106", "DCM", "Comment")
        content.append(sr.TextContentItem(comment, _DISCLAIMER, relationship_type=sr.RelationshipTypeValues.CONTAINS))
        content.extend(_findings(answer, sources) for answer in answers)
        root.ContentSequence = content
        report: Dataset = sr.ComprehensiveSR(
            evidence=list(sources),
            content=root,
            series_instance_uid=series_uid,
            series_number=_SERIES_NUMBER,
            sop_instance_uid=instance_uid,
            instance_number=1,
            manufacturer=_MANUFACTURER,
            is_complete=True,
            is_final=False,
            manufacturer_model_name=model[:_LONGEST_NAME],
            software_versions=package_version(),
            device_serial_number="0",
            series_description="Answers of a model, not verified",
        )
    report.SpecificCharacterSet = "ISO_IR 192"  # UTF-8: questions may be in Chinese
    return report


def _observer(model: str, device_uid: str) -> sr.ObserverContext:
    from highdicom import sr  # noqa: PLC0415
    from pydicom.sr.codedict import codes  # noqa: PLC0415

    device = sr.DeviceObserverIdentifyingAttributes(
        uid=device_uid, name=model[:_LONGEST_NAME], manufacturer_name=_MANUFACTURER
    )
    return sr.ObserverContext(sr.CodedConcept.from_code(codes.DCM.Device), device)


def _findings(answer: ReportedAnswer, sources: Sequence[Dataset]) -> sr.ContainerContentItem:
    """The container of one question."""
    from highdicom import sr  # noqa: PLC0415

    contains = sr.RelationshipTypeValues.CONTAINS
    container = sr.ContainerContentItem(sr.CodedConcept("121070", "DCM", "Findings"), relationship_type=contains)
    items = sr.ContentSequence()
    question = sr.CodedConcept("question", _SCHEME, "Question")
    items.append(sr.TextContentItem(question, answer.question, relationship_type=contains))
    if answer.answer is None:
        abstention = sr.CodedConcept("abstention", _SCHEME, "Reason for abstaining")
        items.append(sr.TextContentItem(abstention, answer.reason or "The model abstains.", relationship_type=contains))
    else:
        finding = sr.CodedConcept("121071", "DCM", "Finding")
        items.append(sr.TextContentItem(finding, answer.answer or "-", relationship_type=contains))
        if answer.confidence is not None:
            confidence = sr.CodedConcept("confidence", _SCHEME, "Confidence of the model")
            unit = sr.CodedConcept("1", "UCUM", "no units")
            items.append(sr.NumContentItem(confidence, round(answer.confidence, 4), unit, relationship_type=contains))
    for place, frame in answer.images:
        items.append(
            sr.ImageContentItem(
                sr.CodedConcept("121112", "DCM", "Source of Measurement"),
                sources[place].SOPClassUID,
                sources[place].SOPInstanceUID,
                referenced_frame_numbers=frame,
                relationship_type=contains,
            )
        )
    container.ContentSequence = items
    return container

"""Answers about a stored image as a DICOM SR, with UIDs that the client gives or that were stored with the image."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medical_vqa.data.imaging.dicom_export.uids import ObjectUids, device_uid
from medical_vqa.errors import ConfigError, ImageError, MissingDependencyError
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.schema.answers import Answer
from medical_vqa.serving.schema.dicom_reports import DicomReportOptions, DicomReportSource
from medical_vqa.serving.schema.images import ImageFacts
from medical_vqa.serving.series.views import facts_of
from medical_vqa.serving.service.service import Service

if TYPE_CHECKING:
    from medical_vqa.data.imaging.dicom_export.stored_sources import StoredSources


async def dicom_report(
    service: Service, image_id: str, answers: Sequence[Answer], options: DicomReportOptions
) -> bytes:
    """A Comprehensive SR about an image of the client, as a file.

    Args:
        service: Has the image.
        image_id: Of the image.
        answers: About it.
        options: UIDs of the report, and of the images where they were not stored.

    Raises:
        ApiError: 404 for an unknown image or without the package that writes reports; 422 where no UIDs are known.
    """
    image = await service.images.get(image_id)
    stored = "" if options.source is not None else await service.images.sources(image_id)
    if options.source is None and not stored:
        message = (
            "no UIDs are stored with this image, so none can be in a report; send them in the field source, or "
            "upload the image as DICOM to a server with MEDICAL_VQA_DICOM_REPORTS=1"
        )
        raise ApiError(422, "invalid", message)
    report = await asyncio.to_thread(_report, answers, facts_of(image), options, stored)
    await service.record_report(image)
    return report


def _report(answers: Sequence[Answer], facts: ImageFacts, options: DicomReportOptions, stored: str) -> bytes:
    try:
        from medical_vqa.data.imaging.dicom_export.report import ReportedAnswer, structured_report  # noqa: PLC0415
        from medical_vqa.data.imaging.dicom_export.source import dicom_bytes  # noqa: PLC0415 - pydicom: an extra
        from medical_vqa.data.imaging.dicom_export.stored_sources import StoredSources  # noqa: PLC0415

        sources = StoredSources.from_json(stored) if options.source is None else _sources(options.source)
        model = ", ".join(dict.fromkeys(answer.model.name for answer in answers))
        uids = ObjectUids.new()
        if options.series_uid and options.instance_uid:
            uids = ObjectUids(options.series_uid, options.instance_uid)
        reported = [
            ReportedAnswer(
                answer.question,
                None if answer.abstained else answer.answer,
                answer.confidence,
                answer.reason,
                sources.images(_slices(answer, facts)),
            )
            for answer in answers
        ]
        report = structured_report(
            reported,
            sources.datasets(),
            model=model,
            device_uid=device_uid(model),
            series_uid=uids.series,
            instance_uid=uids.instance,
        )
        return dicom_bytes(report)
    except (MissingDependencyError, ModuleNotFoundError) as error:
        message = "this server writes no DICOM reports; install medical-vqa[dicomweb] on it"
        raise ApiError(404, "not_found", message) from error
    except (ConfigError, ImageError) as error:
        raise ApiError(422, "invalid", str(error)) from error


def _sources(request: DicomReportSource) -> StoredSources:
    from medical_vqa.data.imaging.dicom_export.stored_sources import StoredSources  # noqa: PLC0415 - pydicom: an extra

    elements = {
        "StudyInstanceUID": request.study_uid,
        "SeriesInstanceUID": request.series_uid,
        "PatientID": request.patient_id,
        "PatientName": request.patient_name,
        "PatientBirthDate": request.patient_birth_date,
        "PatientSex": request.patient_sex,
    }
    instances = tuple((one.sop_class_uid, one.sop_instance_uid, 1) for one in request.instances)
    return StoredSources({key: value for key, value in elements.items() if value}, instances)


def _slices(answer: Answer, facts: ImageFacts) -> list[int] | None:
    """The stored slices that an answer is about; None: all, as of a plane that was computed from all of them."""
    if answer.slices:
        return [one.frame for one in answer.slices] if answer.slices[0].plane == facts.plane else None
    if answer.frame is not None:
        return [answer.frame] if answer.plane in (None, facts.plane) else None
    return None if facts.series else [facts.frame]

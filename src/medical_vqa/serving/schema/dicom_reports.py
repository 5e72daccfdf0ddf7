"""DICOM reports of answers, and the images that they are about."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medical_vqa.serving.schema.common import (
    BIRTH_DATE,
    MAX_QUESTIONS,
    UID,
    AskedFrame,
    AskedPlane,
    AskedWindow,
    ChosenModel,
    Question,
    Wire,
)

CT_IMAGE_CLASS = "1.2.840.10008.5.1.4.1.1.2"


class DicomInstance(Wire):
    """A DICOM image."""

    sop_class_uid: str = Field(description="SOPClassUID.", pattern=UID, max_length=64, examples=[CT_IMAGE_CLASS])
    sop_instance_uid: str = Field(description="SOPInstanceUID.", pattern=UID, max_length=64, examples=["1.2.3.4.5"])


class DicomReportSource(Wire):
    """The images that a DICOM report is about, and what it must repeat of them."""

    study_uid: str = Field(description="StudyInstanceUID.", pattern=UID, max_length=64, examples=["1.2.3"])
    series_uid: str = Field(description="SeriesInstanceUID.", pattern=UID, max_length=64, examples=["1.2.3.4"])
    instances: list[DicomInstance] = Field(description="The images.", min_length=1, max_length=4096)
    patient_id: str = Field("", description="PatientID: by it an archive knows the patient.", max_length=64)
    patient_name: str = Field("", description="PatientName.", max_length=64)
    patient_birth_date: str = Field("", description="PatientBirthDate, YYYYMMDD.", pattern=BIRTH_DATE)
    patient_sex: Literal["", "M", "F", "O"] = Field("", description="PatientSex.")


class DicomReportOptions(Wire):
    """UIDs of a DICOM report."""

    source: DicomReportSource | None = Field(
        None, description="The images; null: what was stored with the image (MEDICAL_VQA_DICOM_REPORTS)."
    )
    series_uid: str | None = Field(
        None, description="SeriesInstanceUID of the report; null: a new one.", pattern=UID, max_length=64
    )
    instance_uid: str | None = Field(
        None, description="SOPInstanceUID of the report, with series_uid; null: a new one.", pattern=UID, max_length=64
    )


class DicomReportRequest(DicomReportOptions):
    """Questions whose answers are written as a DICOM report."""

    questions: list[Question] = Field(description="In words.", min_length=1, max_length=MAX_QUESTIONS)
    frame: AskedFrame = None
    plane: AskedPlane = None
    window: AskedWindow = None
    model: ChosenModel = None

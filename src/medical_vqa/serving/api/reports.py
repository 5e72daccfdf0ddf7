"""The route of DICOM reports: questions about a stored image, answered and written as an SR that refers to it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from medical_vqa.serving.api.requests import (
    BoundedJsonRoute,
    choose_service,
    count_questions,
    while_connected,
)
from medical_vqa.serving.api.routes import ImageId, errors
from medical_vqa.serving.dicom_reports import dicom_report
from medical_vqa.serving.schema.dicom_reports import DicomReportRequest
from medical_vqa.serving.series.views import Selection
from medical_vqa.serving.service.service import Service

DICOM = "application/dicom"
DICOM_REPORT: dict[int | str, dict[str, Any]] = {
    200: {"content": {DICOM: {"schema": {"type": "string", "format": "binary"}}}, "description": "The SR as a file."}
}
router = APIRouter(tags=["images"], route_class=BoundedJsonRoute)


@router.post(
    "/images/{image_id}/dicom_report",
    response_class=Response,
    responses={**DICOM_REPORT, **errors(400, 401, 403, 404, 408, 413, 415, 422, 429, 503)},
)
async def report(request: Request, image_id: ImageId, body: DicomReportRequest) -> Response:
    """Answer questions about an image, and write the answers as a DICOM Comprehensive SR.

    The report refers to the images by the UIDs in `source`, or by those that were stored with the image. It is marked
    as preliminary and unverified, and is sent to nobody but the client.
    """
    answering = choose_service(request, body.model, image_id)
    await count_questions(request, len(body.questions))
    return report_response(await while_connected(request, _answered(answering, image_id, body)))


async def _answered(service: Service, image_id: str, body: DicomReportRequest) -> bytes:
    selection = Selection(body.frame, body.plane, body.window)
    answers = await service.questions.ask_many(image_id, body.questions, selection=selection)
    return await dicom_report(service, image_id, answers.answers, body)


def report_response(data: bytes) -> Response:
    """A report as a file that no cache keeps."""
    headers = {"Content-Disposition": 'attachment; filename="report.dcm"', "Cache-Control": "no-store"}
    return Response(data, media_type=DICOM, headers=headers)

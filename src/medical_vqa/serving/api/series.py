"""Routes of series and slices: upload several files, show a slice in any window and plane, read its values."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.datastructures import UploadFile

from medical_vqa.serving.api.requests import BoundedJsonRoute, ClientDependency, ServiceDependency, while_connected
from medical_vqa.serving.api.routes import IMAGE_ERRORS, UPLOAD_ERRORS, ImageId, errors
from medical_vqa.serving.errors import ApiError, no_room
from medical_vqa.serving.middleware.outer import PRIVATE_CACHE
from medical_vqa.serving.schema.common import MAX_FRAME, WINDOW, PlaneName
from medical_vqa.serving.schema.images import ImageItem, RetrieveRequest, SeriesUpload
from medical_vqa.serving.series.views import Selection

MAX_FILES = 1000
"""Files in one request; more go into an archive."""
router = APIRouter(tags=["images"])
json_router = APIRouter(tags=["images"], route_class=BoundedJsonRoute)
_CACHED = {PRIVATE_CACHE[0].decode(): PRIVATE_CACHE[1].decode()}
_FILES = {
    "type": "object",
    "required": ["files"],
    "properties": {
        "files": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "minItems": 1,
            "maxItems": MAX_FILES,
            "description": "The files of one or more series, or one zip archive, NIfTI file or DICOM file of frames.",
        }
    },
}


async def read_selection(
    frame: Annotated[
        int | None, Query(ge=0, le=MAX_FRAME, description="The slice, from 0; by default the middle one.")
    ] = None,
    plane: Annotated[PlaneName | None, Query(description="Its plane; by default that of the stored slices.")] = None,
    window: Annotated[
        str | None,
        Query(pattern=WINDOW, description="CENTER,WIDTH or the name of a window of GET /images/ID.", examples=["lung"]),
    ] = None,
) -> Selection:
    """The slice that a request is about."""
    return Selection(frame, plane, window)


SelectionDependency = Annotated[Selection, Depends(read_selection)]


@router.post(
    "/series",
    status_code=201,
    responses=errors(*UPLOAD_ERRORS),
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FILES}}}},
)
async def upload_series(request: Request, service: ServiceDependency, client: ClientDependency) -> SeriesUpload:
    """Upload the slices of a CT or MR to ask about; they are sorted by their position in the patient.

    Each series is stored as one image. Headers are removed, and the files themselves are not stored.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError(415, "unsupported_media_type", "expected a form (multipart/form-data) with the field files")
    service.expect_series()
    try:
        async with request.form(max_files=MAX_FILES, max_fields=0) as form:
            parts = form.getlist("files")
            if not parts or len(parts) < len(form.multi_items()):
                raise ApiError(422, "invalid", "expected the field files with one file or more, and no other field")
            files = [await _content(part) for part in parts if not isinstance(part, str)]
    except OSError as error:
        raise no_room() from error
    return await while_connected(request, service.upload_series(files, client=client))


async def _content(part: UploadFile) -> bytes:
    """The bytes of a part, which is closed; a form may have many, and other requests have their turn between two."""
    await asyncio.sleep(0)
    content = await part.read()
    await part.close()
    return content


@json_router.post("/images/dicomweb", status_code=201, responses=errors(401, 403, 408, 413, 415, 422, 429, 503, 400))
async def retrieve_images(
    request: Request, body: RetrieveRequest, service: ServiceDependency, client: ClientDependency
) -> SeriesUpload:
    """Retrieve a study, a series or one instance from a DICOMweb server; then as POST /series.

    The server must be one of those that a setting names; its token is a setting too.
    """
    return await while_connected(request, service.retrieve_series(body, client=client))


@router.get("/images/{image_id}", responses=errors(*IMAGE_ERRORS))
async def describe_image(image_id: ImageId, service: ServiceDependency) -> ImageItem:
    """What can be shown of an uploaded image or series: planes, windows and values."""
    return await service.describe(image_id)


@router.get(
    "/images/{image_id}/view",
    response_class=Response,
    responses={
        200: {"content": {"image/png": {}}, "description": "PNG."},
        304: {"description": "As the client has it."},
        **errors(*IMAGE_ERRORS),
    },
)
async def view_slice(
    request: Request,
    image_id: ImageId,
    service: ServiceDependency,
    selection: SelectionDependency,
    invert: Annotated[bool, Query(description="Whether black and white change places.")] = False,
) -> Response:
    """A slice of an uploaded image or series as a picture: head or face up, the patient's right at the left."""
    etag = await service.views.etag(image_id, selection, invert=invert)
    headers = {"ETag": etag, **_CACHED}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    png = await service.views.png(image_id, selection, invert=invert)
    return Response(png, media_type="image/png", headers=headers)


@router.get(
    "/images/{image_id}/values",
    response_class=Response,
    responses={
        200: {
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            "description": "Row by row, little endian. The headers X-Rows, X-Columns and X-Type (int16, uint16 or "
            "uint8) say how to read them, X-Slope and X-Intercept turn them into the scanner's units, X-Spacing is the "
            "height and width of a pixel in millimeters, and absent where these are not known.",
        },
        **errors(*IMAGE_ERRORS),
    },
)
async def slice_values(image_id: ImageId, service: ServiceDependency, selection: SelectionDependency) -> Response:
    """The values of a slice, so that a page can change the window by itself; 404 where none are stored."""
    values = await service.views.values(image_id, selection)
    return Response(values.data, media_type="application/octet-stream", headers={**values.headers, **_CACHED})

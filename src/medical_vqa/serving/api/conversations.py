"""The routes of the page's conversations."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Path, Query, Request, Response

from medical_vqa.serving.api.reports import DICOM_REPORT, report_response
from medical_vqa.serving.api.requests import (
    BoundedJsonRoute,
    ClientDependency,
    UploadDependency,
    while_connected,
)
from medical_vqa.serving.api.routes import errors
from medical_vqa.serving.conversations.conversations import Conversations
from medical_vqa.serving.schema.conversations import (
    Conversation,
    ConversationImage,
    ConversationQuestion,
    ConversationTurn,
    Draft,
    RatingRequest,
    StoredImageName,
)
from medical_vqa.serving.schema.dicom_reports import DicomReportOptions

router = APIRouter(prefix="/conversations", tags=["conversations"], route_class=BoundedJsonRoute)
upload_router = APIRouter(prefix="/conversations", tags=["conversations"])
"""The route whose body is no JSON."""
_QUESTION_ERRORS = (400, 401, 404, 408, 413, 415, 422, 429, 503)

ConversationId = Annotated[str, Path(description="As POST /conversations returned it.", max_length=64)]
ImageId = Annotated[str, Path(description="As POST /conversations/{id}/images returned it.", max_length=64)]


async def get_conversations(request: Request) -> Conversations:
    """The conversations of the application that received a request."""
    conversations: Conversations = request.app.state.conversations
    return conversations


ConversationsDependency = Annotated[Conversations, Depends(get_conversations)]


@router.post("", status_code=201, responses=errors(401, 429, 503))
async def create(conversations: ConversationsDependency) -> Conversation:
    """Begin a conversation."""
    return await conversations.create()


@router.get("/{conversation_id}", response_model=Conversation, responses=errors(401, 404, 422, 429, 503))
async def read(
    request: Request,
    conversation_id: ConversationId,
    conversations: ConversationsDependency,
    after: Annotated[int, Query(ge=-1, description="Wait some seconds for a version above this one.")] = -1,
) -> Response:
    """A conversation with all its images, questions and answers."""
    content = await while_connected(request, conversations.read(conversation_id, after=after))
    return Response(content, media_type="application/json")


@upload_router.post("/{conversation_id}/images", status_code=201, responses=errors(*_QUESTION_ERRORS))
async def add_image(
    conversation_id: ConversationId,
    conversations: ConversationsDependency,
    client: ClientDependency,
    upload: UploadDependency,
    name: Annotated[str, Form(max_length=200, description="What the user calls the image.")] = "",
) -> ConversationImage:
    """Upload an image into a conversation."""
    return await conversations.add_image(conversation_id, upload, name, client=client)


@router.post("/{conversation_id}/stored", status_code=201, responses=errors(*_QUESTION_ERRORS))
async def attach(
    conversation_id: ConversationId, body: StoredImageName, conversations: ConversationsDependency
) -> ConversationImage:
    """Take an image that is stored already, such as a series, into a conversation."""
    return await conversations.attach(conversation_id, body.image_id, body.name)


@router.post("/{conversation_id}/questions", status_code=202, responses=errors(*_QUESTION_ERRORS))
async def ask(
    conversation_id: ConversationId, body: ConversationQuestion, conversations: ConversationsDependency
) -> ConversationTurn:
    """Ask a question; the answer arrives with a later version of the conversation, whoever is connected then."""
    return await conversations.ask(conversation_id, body)


@router.delete(
    "/{conversation_id}/images/{image_id}/questions/{key}", status_code=204, responses=errors(401, 404, 422, 429, 503)
)
async def cancel(
    conversation_id: ConversationId,
    image_id: ImageId,
    key: Annotated[str, Path(description="Of the question.", max_length=64)],
    conversations: ConversationsDependency,
) -> Response:
    """Cancel a question that is being answered."""
    await conversations.cancel(conversation_id, image_id, key)
    return Response(status_code=204)


@router.post("/{conversation_id}/ratings", status_code=204, responses=errors(*_QUESTION_ERRORS))
async def rate(
    conversation_id: ConversationId, body: RatingRequest, conversations: ConversationsDependency
) -> Response:
    """Rate an answer, where the server keeps ratings."""
    await conversations.rate(conversation_id, body)
    return Response(status_code=204)


@router.put("/{conversation_id}/draft", status_code=204, responses=errors(*_QUESTION_ERRORS))
async def draft(conversation_id: ConversationId, body: Draft, conversations: ConversationsDependency) -> Response:
    """Keep a question that was typed and not sent."""
    await conversations.draft(conversation_id, body.image_id, body.draft)
    return Response(status_code=204)


@router.post(
    "/{conversation_id}/images/{image_id}/dicom_report",
    response_class=Response,
    responses={**DICOM_REPORT, **errors(*_QUESTION_ERRORS)},
)
async def dicom_report(
    request: Request,
    conversation_id: ConversationId,
    image_id: ImageId,
    body: DicomReportOptions,
    conversations: ConversationsDependency,
) -> Response:
    """The answers about an image of a conversation as a DICOM Comprehensive SR, which refers to the image."""
    work = conversations.dicom_report(conversation_id, image_id, body)
    return report_response(await while_connected(request, work))


@router.delete("/{conversation_id}/images/{image_id}", status_code=204, responses=errors(401, 404, 422, 429, 503))
async def delete_image(
    conversation_id: ConversationId, image_id: ImageId, conversations: ConversationsDependency
) -> Response:
    """Delete an image of a conversation with its questions and answers."""
    await conversations.delete_image(conversation_id, image_id)
    return Response(status_code=204)

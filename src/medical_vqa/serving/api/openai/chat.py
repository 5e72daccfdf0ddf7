"""The engine behind OpenAI's chat protocol, so that its clients and chat front ends work unchanged.

The question is the last user message, about the newest image of the conversation, or as many as the model takes, each
at its place. Earlier turns and the system message are read by remote models and by chat models of this process;
`ignored` names what is not read. The field `medical_vqa`, an extension, has what the protocol cannot express.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse

from medical_vqa.serving.api.openai.answering import answer_conversation
from medical_vqa.serving.api.openai.chat_replies import chat_reply, live_events, stream_events
from medical_vqa.serving.api.openai.chat_types import ChatReply, ChatRequest, ModelEntry, ModelList
from medical_vqa.serving.api.openai.conversation import Received, no_tools, prepare
from medical_vqa.serving.api.openai.errors import DESCRIPTIONS, error_replies
from medical_vqa.serving.api.requests import BoundedJsonRoute, ClientDependency, choose_service
from medical_vqa.serving.engine.remote import RemoteEngine
from medical_vqa.serving.models import DEFAULT
from medical_vqa.serving.service.service import Service

_EVENTS = "text/event-stream"
router = APIRouter(prefix="/v1", tags=["openai"], route_class=BoundedJsonRoute)


@router.get("/models", responses=error_replies(401, 429))
async def models(request: Request) -> ModelList:
    """The models that can be asked."""
    return ModelList(data=[_entry(model.name, model.service) for model in request.app.state.models])


@router.get("/models/{name:path}", responses=error_replies(401, 404, 422, 429))
async def model(request: Request, name: str) -> ModelEntry:
    """One model."""
    service = choose_service(request, name)
    return _entry(service.model.name if name == DEFAULT else name, service)


def _entry(name: str, service: Service) -> ModelEntry:
    created = service.engine.card.created
    timestamp = int(datetime.fromisoformat(created).timestamp()) if created else 0
    return ModelEntry(id=name, created=timestamp)


@router.post(
    "/chat/completions",
    response_model=ChatReply,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "The answer, or a stream of it."},
        **error_replies(*DESCRIPTIONS),
    },
)
async def chat(request: Request, body: ChatRequest, client: ClientDependency) -> Any:
    """Ask about the image in a conversation, as OpenAI's clients do."""
    service = choose_service(request, body.model)
    schema = body.output_schema
    if body.functions:
        raise no_tools("functions")
    received = Received(body.messages, "messages", body.tools, body.medical_vqa, body.unread)
    if body.stream and isinstance(service.engine, RemoteEngine) and schema is None:
        prepared = await prepare(received, service)
        if prepared.uploads:
            events = live_events(service, body, prepared, client)
            return StreamingResponse(events, media_type=_EVENTS)
    result = await answer_conversation(request, service, client, received, schema, body.end)
    reply = chat_reply(body, result, service.model.name)
    if body.stream:
        return StreamingResponse(stream_events(reply, body), media_type=_EVENTS)
    return JSONResponse(reply.model_dump())

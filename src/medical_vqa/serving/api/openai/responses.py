"""OpenAI's responses protocol, a thin layer over the same answers: the default of its agents' SDK.

Nothing is stored: `previous_response_id` is refused, and a conversation is sent whole.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field, WithJsonSchema

from medical_vqa.serving.api.openai.answering import answer_conversation
from medical_vqa.serving.api.openai.chat_types import (
    MAX_MESSAGES,
    MAX_PARTS,
    ChatMessage,
    ImageOptions,
    ImagePart,
    ImageUrl,
    Message,
    Part,
    RefusedList,
    RequestPart,
    TextPart,
)
from medical_vqa.serving.api.openai.conversation import Received
from medical_vqa.serving.api.openai.errors import DESCRIPTIONS, error_replies
from medical_vqa.serving.api.openai.parameters import End, Parameters
from medical_vqa.serving.api.openai.structured import OutputSchema, requested_schema
from medical_vqa.serving.api.requests import BoundedJsonRoute, ClientDependency, choose_service
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.schema.answers import Answer

router = APIRouter(prefix="/v1", tags=["openai"], route_class=BoundedJsonRoute)


class InputText(RequestPart):
    """Text of a message, of the client's or of an earlier answer."""

    type: Literal["input_text", "output_text"]
    text: str


class InputRefusal(RequestPart):
    """An earlier abstention."""

    type: Literal["refusal"]
    refusal: str


class InputImage(RequestPart):
    """An image of a message."""

    type: Literal["input_image"]
    image_url: str = Field(description="A data URL; http(s) only where the server allows it.")


InputPart = Annotated[InputText | InputRefusal | InputImage, Field(discriminator="type")]
"""A piece of an item."""


class InputItem(RequestPart):
    """One turn."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"] = "user"
    content: str | Annotated[list[InputPart], Field(max_length=MAX_PARTS, fail_fast=True)]

    @property
    def message(self) -> Message:
        """The turn in the chat protocol's form."""
        if isinstance(self.content, str):
            return Message(role=self.role, content=self.content)
        parts: list[Part] = []
        for part in self.content:
            if isinstance(part, InputImage):
                parts.append(ImagePart(type="image_url", image_url=ImageUrl(url=part.image_url)))
            else:
                text = part.refusal if isinstance(part, InputRefusal) else part.text
                parts.append(TextPart(type="text", text=text))
        return Message(role=self.role, content=parts)


class TextOptions(RequestPart):
    """How the answer is written."""

    format: dict[str, Any] | None = None


class ResponseRequest(Parameters):
    """A conversation to continue; `ignored` in the reply names the parameters that are not read."""

    model: str = Field(description="As GET /v1/models lists it.", max_length=200)
    input: str | Annotated[list[InputItem], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    instructions: str | None = Field(
        None, description="A system message; reported as ignored by a model that reads none."
    )
    stream: bool | None = False
    text: TextOptions | None = None
    max_output_tokens: int | None = Field(None, ge=1, description="Most words of the answer; the rest is cut off.")
    tools: RefusedList | None = Field(None, description="Refused unless empty.", max_length=128)
    previous_response_id: Annotated[str | None, WithJsonSchema({"type": "null"})] = Field(
        None, description="Refused: nothing is stored."
    )
    conversation: Annotated[Any, WithJsonSchema({"type": "null"})] = Field(
        None, description="Refused: nothing is stored."
    )
    background: bool | None = Field(False, description="True is refused: nothing is stored.")
    medical_vqa: ImageOptions | None = Field(None, description="Frame and window of the image.")

    @property
    def messages(self) -> list[Message]:
        """The conversation in the chat protocol's form."""
        instructions = [Message(role="system", content=self.instructions)] if self.instructions else []
        if isinstance(self.input, str):
            return [*instructions, Message(role="user", content=self.input)]
        return [*instructions, *(item.message for item in self.input)]

    @property
    def output_schema(self) -> OutputSchema | None:
        """The schema of the answer; raises `ApiError` (400) where no answer fits it."""
        form = self.text.format if self.text else None
        return requested_schema(form, form.get("schema") if form else None, "text.format")


class ResponseReply(BaseModel):
    """The answer."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["completed", "incomplete", "in_progress"] = "completed"
    error: None = None
    incomplete_details: dict[str, str] | None = Field(None, description="Why the answer was cut off.")
    instructions: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    model: str
    output: list[dict[str, Any]]
    parallel_tool_calls: bool = False
    previous_response_id: None = None
    temperature: float | None = None
    tool_choice: Literal["none"] = "none"
    tools: list[Any] = Field(default_factory=list)
    top_p: float | None = None
    usage: dict[str, Any] | None = None
    medical_vqa: Answer | None = Field(None, description="The full answer; null where no image was sent.")
    ignored: list[str] = Field(default_factory=list, description="Parts of the request that the model does not read.")


@router.post(
    "/responses",
    response_model=ResponseReply,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "The answer, or a stream of it."},
        **error_replies(*DESCRIPTIONS),
    },
)
async def respond(request: Request, body: ResponseRequest, client: ClientDependency) -> Any:
    """Ask about the image in a conversation, as OpenAI's agents do."""
    service = choose_service(request, body.model)
    for param in ("previous_response_id", "conversation", "background"):
        if getattr(body, param):
            message = "this server stores no conversations; send the earlier turns in input, and await the answer"
            raise ApiError(400, "invalid", message, param=param)
    schema = body.output_schema
    received = Received(body.messages, "input", body.tools, body.medical_vqa, body.unread)
    result = await answer_conversation(request, service, client, received, schema, End(body.max_output_tokens))
    is_cut = result.finish_reason == "length"
    item = _message_item(result.message, "incomplete" if is_cut else "completed")
    usage = result.usage
    reply = ResponseReply(
        id=f"resp_{secrets.token_hex(16)}",
        created_at=int(time.time()),
        status=item["status"],
        incomplete_details={"reason": "max_output_tokens"} if is_cut else None,
        instructions=body.instructions,
        model=service.model.name,
        output=[item],
        usage={
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.total_tokens,
        },
        medical_vqa=result.answer,
        ignored=result.ignored,
    )
    if body.stream:
        return StreamingResponse(_events(reply, item), media_type="text/event-stream")
    return JSONResponse(reply.model_dump())


def _message_item(message: ChatMessage, status: Literal["completed", "incomplete"]) -> dict[str, Any]:
    content: dict[str, Any]
    if message.content is None:
        content = {"type": "refusal", "refusal": message.refusal}
    else:
        content = {"type": "output_text", "text": message.content, "annotations": []}
    return {
        "id": f"msg_{secrets.token_hex(16)}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [content],
    }


def _events(reply: ResponseReply, item: dict[str, Any]) -> Iterator[str]:
    """The answer as the protocol's events; the model has produced it at once."""
    (part,) = item["content"]
    kind = "refusal" if part["type"] == "refusal" else "text"
    name = "response.refusal" if kind == "refusal" else "response.output_text"
    initial = reply.model_dump() | {
        "status": "in_progress", "incomplete_details": None, "output": [], "usage": None, "medical_vqa": None
    }  # fmt: skip
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    logprobs: dict[str, Any] = {} if kind == "refusal" else {"logprobs": []}
    events: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": initial}),
        ("response.in_progress", {"response": initial}),
        ("response.output_item.added", {"output_index": 0, "item": item | {"status": "in_progress", "content": []}}),
        ("response.content_part.added", {**place, "part": part | {kind: ""}}),
        (f"{name}.delta", {**place, "delta": part[kind], **logprobs}),
        (f"{name}.done", {**place, kind: part[kind], **logprobs}),
        ("response.content_part.done", {**place, "part": part}),
        ("response.output_item.done", {"output_index": 0, "item": item}),
        (f"response.{reply.status}", {"response": reply.model_dump()}),
    ]
    for number, (event, fields) in enumerate(events):
        data = json.dumps({"type": event, "sequence_number": number, **fields}, ensure_ascii=False)
        yield f"event: {event}\ndata: {data}\n\n"

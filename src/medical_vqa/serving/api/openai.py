"""The engine behind OpenAI's chat protocol, so that its clients and chat front ends work unchanged.

The question is the last user message, about the newest image of the conversation, or as many as the model takes.
Earlier turns are read by models that remember: remote ones. The field `medical_vqa`, an extension, has what the
protocol cannot express.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import math
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, FailFast, Field

from medical_vqa.serving.api.requests import (
    BoundedJsonRoute,
    ClientDependency,
    ServiceDependency,
    while_connected,
)
from medical_vqa.serving.api.streams import OnText, texts_then_answer
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.remote_engine import RemoteEngine
from medical_vqa.serving.remote_images import fetch_image
from medical_vqa.serving.schema import MAX_QUESTION, QUESTION_EXAMPLE, Answer
from medical_vqa.serving.service import Conversation, Service, Upload

_EVENTS = "text/event-stream"
_DATA_URL_EXAMPLE = "data:image/png;base64,iVBORw0KGgo..."
_BASE64_PIECE = 4 * 256 * 1024  # characters: a multiple of 4, so that every piece decodes by itself
_DESCRIPTIONS = {
    400: "a request that cannot be answered",
    401: "no key, or an unknown one",
    404: "no such model",
    408: "the body arrived too slowly",
    413: "too large",
    415: "a format that is not supported",
    422: "a field is missing or of the wrong type",
    429: "too many requests, or no answer in time",
    503: "the server is shutting down",
}
MAX_MESSAGES = 200
"""Messages of a conversation."""
MAX_PARTS = 64
"""Texts and images of a message."""
router = APIRouter(prefix="/v1", tags=["openai"], route_class=BoundedJsonRoute)


# --- requests ---------------------------------------------------------------------------------------------------------


class _RequestPart(BaseModel):
    """Clients send many fields that mean nothing here; they are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ImageUrl(_RequestPart):
    """The address of an image."""

    url: str = Field(description="A data URL; http(s) only where the server allows it.", examples=[_DATA_URL_EXAMPLE])


class ImagePart(_RequestPart):
    """An image in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


class TextPart(_RequestPart):
    """Text in a message."""

    type: Literal["text"]
    text: str = Field(examples=[QUESTION_EXAMPLE])


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]
"""A piece of a message."""


class Message(_RequestPart):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[Part], Field(max_length=MAX_PARTS, fail_fast=True)] | None = None

    @property
    def parts(self) -> Sequence[TextPart | ImagePart]:
        """The content as a list."""
        return [TextPart(type="text", text=self.content)] if isinstance(self.content, str) else self.content or []


class StreamOptions(_RequestPart):
    """Options of a stream."""

    include_usage: bool | None = False


class ChatRequest(_RequestPart):
    """A conversation to continue."""

    model: str = Field(description="As GET /v1/models lists it.", max_length=200)
    messages: Annotated[list[Message], FailFast()] = Field(min_length=1, max_length=MAX_MESSAGES)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = Field(1, ge=1, le=1, description="One answer only.")
    logprobs: bool | None = Field(False, description="Adds the answer's confidence as a log-probability.")
    top_logprobs: int | None = Field(None, ge=0, le=20, description="How many alternatives to add.")


# --- responses --------------------------------------------------------------------------------------------------------


class ErrorBody(BaseModel):
    """One error."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorReply(BaseModel):
    """The body of every error under /v1."""

    error: ErrorBody


class ModelEntry(BaseModel):
    """One model of the list."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "medical-vqa"


class ModelList(BaseModel):
    """The list of models: one."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


class ChatMessage(BaseModel):
    """The answer's turn."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: str | None = Field(None, description="Why the model abstains; null when it answers.")


class Choice(BaseModel):
    """The one answer."""

    index: int = 0
    message: ChatMessage
    logprobs: dict[str, Any] | None = None
    finish_reason: Literal["stop"] = "stop"


class Usage(BaseModel):
    """Counted in words: the model families have different tokens, or none."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatReply(BaseModel):
    """The continued conversation."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    medical_vqa: Answer = Field(
        description="The full answer: confidence, alternatives, abstention, source, side, evidence, timings."
    )


# --- routes -----------------------------------------------------------------------------------------------------------


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorReply, "description": _DESCRIPTIONS[status]} for status in statuses}


@router.get("/models", responses=_errors(401, 429))
async def models(service: ServiceDependency) -> ModelList:
    """The models that can be asked."""
    created = service.engine.card.created
    timestamp = int(datetime.fromisoformat(created).timestamp()) if created else 0
    return ModelList(data=[ModelEntry(id=service.model.name, created=timestamp)])


@router.post(
    "/chat/completions",
    response_model=ChatReply,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "The answer, or a stream of it."},
        **_errors(*_DESCRIPTIONS),
    },
)
async def chat(request: Request, body: ChatRequest, service: ServiceDependency, client: ClientDependency) -> Any:
    """Ask about the image in a conversation, as OpenAI's clients do."""
    if body.model not in (service.model.name, "medical-vqa"):
        raise ApiError(404, "not_found", f"this server serves {service.model.name} and no other model")
    image_urls, question, turns = read_messages(body.messages, most_pictures=service.engine.model.max_pictures)
    uploads = [Upload(await read_image_url(url, service)) for url in image_urls]
    conversation = Conversation(turns=turns if service.engine.model.max_turns else ())
    if body.stream and isinstance(service.engine, RemoteEngine):
        events = live_events(service, body, uploads, question, conversation, client)
        return StreamingResponse(events, media_type=_EVENTS)
    work = service.ask_once(uploads, question, conversation=conversation, client=client)
    answer = await while_connected(request, work)
    reply = chat_reply(body, answer)
    if body.stream:
        return StreamingResponse(stream_events(reply, body), media_type="text/event-stream")
    return JSONResponse(reply.model_dump())


def read_messages(
    messages: Sequence[Message], *, most_pictures: int = 1
) -> tuple[list[str], str, list[tuple[str, str]]]:
    """What a conversation asks.

    Args:
        messages: The conversation.
        most_pictures: Pictures that the model takes; the newest are used.

    Returns:
        URLs of the newest images, the text of the last user message, and the turns before it.

    Raises:
        ApiError: There is no image or no question (400).
    """
    user_messages = [message for message in messages if message.role == "user"]
    image_urls = [
        part.image_url.url for message in user_messages for part in message.parts if isinstance(part, ImagePart)
    ]
    last_parts = user_messages[-1].parts if user_messages else []
    question = " ".join(" ".join(part.text for part in last_parts if isinstance(part, TextPart)).split())
    if not image_urls:
        raise ApiError(400, "invalid", "no message has an image; add a part of type image_url with a data URL")
    if not question or not question.isprintable():
        raise ApiError(400, "invalid", "the last user message has no words, or control characters; ask a question")
    if len(question) > MAX_QUESTION:
        raise ApiError(400, "invalid", f"the question has more than {MAX_QUESTION:,} characters; shorten it")
    return image_urls[-most_pictures:], question, _turns(messages)


def _turns(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Each user message that has an answer, with it."""
    turns, question = list[tuple[str, str]](), ""
    for message in messages:
        text = " ".join(" ".join(part.text for part in message.parts if isinstance(part, TextPart)).split())
        if message.role == "user":
            question = text
        elif message.role == "assistant" and question and text:
            turns.append((question, text))
            question = ""
    return turns


async def read_image_url(url: str, service: Service) -> bytes:
    """The bytes of a data URL or, where the settings allow it, of an http(s) URL; raises `ApiError`."""
    if url.startswith("data:"):
        header, comma, content = url.partition(",")
        if not comma or not header.endswith(";base64"):
            raise ApiError(400, "not_an_image", "expected an image as data:image/...;base64,...")
        try:
            return await asyncio.to_thread(decode_base64, content)
        except ValueError:
            raise ApiError(400, "not_an_image", "the image's base64 is damaged; encode it again") from None
    if not service.settings.remote_images:
        raise ApiError(400, "not_an_image", "this server fetches no remote images; send a data URL")
    return await fetch_image(url, max_bytes=service.settings.max_upload_bytes, timeout=service.settings.deadline)


def decode_base64(text: str) -> bytes:
    """The bytes of base64 with or without line breaks; raises `ValueError`.

    Decoded in pieces, between which other threads run.
    """
    text = "".join(text.split())
    pieces = range(0, len(text), _BASE64_PIECE)
    return b"".join(base64.b64decode(text[start : start + _BASE64_PIECE], validate=True) for start in pieces)


def chat_reply(request: ChatRequest, answer: Answer) -> ChatReply:
    """The answer in the protocol's format."""
    content = f"{answer.reason} My best guess: {answer.answer}." if answer.abstained else answer.answer
    prompt_words, answer_words = len(answer.question.split()), len(content.split())
    message = ChatMessage(content=content, refusal=answer.reason if answer.abstained else None)
    logprobs = _logprobs(answer, request.top_logprobs or 0) if request.logprobs else None
    return ChatReply(
        id=f"chatcmpl-{secrets.token_hex(12)}",
        created=int(time.time()),
        model=answer.model.name,
        choices=[Choice(message=message, logprobs=logprobs)],
        usage=Usage(
            prompt_tokens=prompt_words, completion_tokens=answer_words, total_tokens=prompt_words + answer_words
        ),
        medical_vqa=answer,
    )


def _logprobs(answer: Answer, top: int) -> dict[str, Any]:
    """The answer as one token, whose probability is its confidence."""
    ranked = [(answer.answer, answer.confidence)]
    ranked += [(alternative.answer, alternative.confidence) for alternative in answer.alternatives]
    tokens = [
        {"token": text, "logprob": math.log(max(confidence, 1e-9)), "bytes": list(text.encode())}
        for text, confidence in ranked
        if confidence is not None
    ]
    return {"content": [{**tokens[0], "top_logprobs": tokens[:top]}] if tokens else [], "refusal": None}


async def live_events(
    service: Service,
    request: ChatRequest,
    uploads: Sequence[Upload],
    question: str,
    conversation: Conversation,
    client: str,
) -> AsyncIterator[str]:
    """The answer as server-sent events while it is written; an error within the stream is its last event.

    Args:
        service: Asks.
        request: As the client sent it.
        uploads: The images.
        question: In words.
        conversation: Earlier turns.
        client: Who asks.
    """
    header = {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": service.model.name,
    }
    yield _event(header, [_delta({"role": "assistant", "content": ""})])

    def ask_with(on_text: OnText) -> Awaitable[Answer]:
        around = dataclasses.replace(conversation, on_text=on_text)
        return service.ask_once(uploads, question, conversation=around, client=client)

    written = ""
    try:
        async for part in texts_then_answer(ask_with):
            text = part if isinstance(part, str) else chat_reply(request, part).choices[0].message.content
            if (
                text.startswith(written) and text != written
            ):  # the final text may differ by its Markdown: it is in medical_vqa
                yield _event(header, [_delta({"content": text[len(written) :]})])
                written = text
            if isinstance(part, Answer):
                yield _event(header | {"medical_vqa": part.model_dump()}, [_delta({}) | {"finish_reason": "stop"}])
                if request.stream_options and request.stream_options.include_usage:
                    yield _event(header | {"usage": chat_reply(request, part).usage.model_dump()}, [])
    except ApiError as error:
        yield f"data: {json.dumps({'error': {'message': error.message, 'code': error.code}}, ensure_ascii=False)}\n\n"
    yield "data: [DONE]\n\n"


def _delta(delta: dict[str, Any]) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}


async def stream_events(reply: ChatReply, request: ChatRequest) -> AsyncIterator[str]:
    """The answer as server-sent events, word by word, although the model has produced it at once."""
    header = {"id": reply.id, "object": "chat.completion.chunk", "created": reply.created, "model": reply.model}
    choice = reply.choices[0]
    first, *others = choice.message.content.split(" ")
    texts = [first, *(f" {word}" for word in others)]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": text} for text in texts)]
    for delta in deltas:
        yield _event(header, [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}])
    last = {"index": 0, "delta": {}, "logprobs": choice.logprobs, "finish_reason": choice.finish_reason}
    yield _event(header | {"medical_vqa": reply.medical_vqa.model_dump()}, [last])
    if request.stream_options and request.stream_options.include_usage:
        yield _event(header | {"usage": reply.usage.model_dump()}, [])
    yield "data: [DONE]\n\n"


def _event(header: dict[str, Any], choices: list[dict[str, Any]]) -> str:
    return f"data: {json.dumps(header | {'choices': choices}, ensure_ascii=False)}\n\n"

"""The engine behind OpenAI's chat protocol, so that its clients and chat front ends work unchanged.

The newest image of the conversation is the one asked about and the last user message is the question; earlier turns are
not read, for these models have no memory. What the protocol has no place for is in the extra field `medical_vqa`.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from medical_vqa.serving.api.schema import MAX_QUESTION, QUESTION_EXAMPLE, Answer
from medical_vqa.serving.errors import RefusedError
from medical_vqa.serving.middleware.body_limits import while_connected
from medical_vqa.serving.remote_images import fetch_image
from medical_vqa.serving.service import Service, Upload

_PIXEL = "data:image/png;base64,iVBORw0KGgo..."
_STATUSES = {
    400: "a request that cannot be answered",
    401: "no key, or an unknown one",
    404: "no such model",
    408: "the body came too slowly",
    413: "too large",
    415: "a format that is not read",
    422: "a field is missing or of the wrong kind",
    429: "too many requests, or no answer in time",
    503: "the server is stopping",
}


class _Loose(BaseModel):
    """Clients send much that means nothing here; it is not read."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ImageUrl(_Loose):
    """Where an image is."""

    url: str = Field(description="A data URL; http(s) only where the server allows it.", examples=[_PIXEL])


class ImagePart(_Loose):
    """An image in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


class TextPart(_Loose):
    """Words in a message."""

    type: Literal["text"]
    text: str = Field(examples=[QUESTION_EXAMPLE])


class Message(_Loose):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]] | None = None


class StreamOptions(_Loose):
    """What a stream ends with."""

    include_usage: bool | None = False


class ChatRequest(_Loose):
    """What a client asks."""

    model: str = Field(description="As GET /v1/models names it.", max_length=200)
    messages: list[Message] = Field(min_length=1, max_length=200)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = Field(1, ge=1, le=1, description="One answer only.")
    logprobs: bool | None = Field(False, description="Adds the answer's confidence as a log-probability.")
    top_logprobs: int | None = Field(None, ge=0, le=20, description="How many alternatives to add.")


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorReply(BaseModel):
    """The body of every error under /v1."""

    error: ErrorBody


class ModelEntry(BaseModel):
    """A model that can be asked."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "medical-vqa"


class ModelList(BaseModel):
    """The models that can be asked: one."""

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
    """Counted in words: the models behind this have different tokens, or none."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatReply(BaseModel):
    """What a client gets."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    medical_vqa: Answer = Field(description="The whole answer: confidence, alternatives, abstention, timings.")


def add_openai(app: FastAPI, service: Service) -> None:
    """Add the routes under /v1."""
    errors: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorReply, "description": what} for status, what in _STATUSES.items()
    }

    @app.get("/v1/models", tags=["openai"], responses={s: errors[s] for s in (401, 429)})
    async def models() -> ModelList:
        """The models that can be asked."""
        return ModelList(data=[ModelEntry(id=service.model.name, created=_since(service))])

    @app.post(
        "/v1/chat/completions",
        tags=["openai"],
        response_model=ChatReply,
        responses={
            200: {"content": {"text/event-stream": {}}, "description": "The answer, or a stream of it."},
            **errors,
        },
    )
    async def chat(request: Request, asked: ChatRequest) -> Any:
        """Ask about the image in a conversation, as OpenAI's clients do."""
        if asked.model not in (service.model.name, "medical-vqa"):
            raise RefusedError(404, "not_found", f"this server serves {service.model.name} and no other model")
        image, question = read_messages(asked.messages)
        data = await open_url(image, service)
        answer = await while_connected(request, service.ask_once(Upload(data), question))
        reply = make_reply(asked, answer)
        if asked.stream:
            return StreamingResponse(events(reply, asked), media_type="text/event-stream")
        return JSONResponse(reply.model_dump())


def read_messages(messages: Sequence[Message]) -> tuple[str, str]:
    """The newest image's URL and the last user message's words; raises `RefusedError` where one is missing."""
    asked = [message for message in messages if message.role == "user"]
    images = [p.image_url.url for m in asked for p in _parts(m) if isinstance(p, ImagePart)]
    words = " ".join(p.text for p in _parts(asked[-1]) if isinstance(p, TextPart)) if asked else ""
    question = " ".join(words.split())
    if not images:
        raise RefusedError(400, "invalid", "no message has an image; add a part of type image_url with a data URL")
    if not question or not question.isprintable():
        raise RefusedError(400, "invalid", "the last user message has no words, or control characters; ask something")
    if len(question) > MAX_QUESTION:
        raise RefusedError(400, "invalid", f"the question has more than {MAX_QUESTION:,} characters; shorten it")
    return images[-1], question


def _parts(message: Message) -> Sequence[TextPart | ImagePart]:
    if isinstance(message.content, str):
        return [TextPart(type="text", text=message.content)]
    return message.content or []


async def open_url(url: str, service: Service) -> bytes:
    """The bytes behind a data URL, or, where the settings allow it, behind an http(s) one; raises `RefusedError`."""
    if url.startswith("data:"):
        head, comma, content = url.partition(",")
        if not comma or not head.endswith(";base64"):
            raise RefusedError(400, "not_an_image", "expected an image as data:image/...;base64,...")
        try:
            return base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError):
            raise RefusedError(400, "not_an_image", "the image's base64 is damaged; encode it again") from None
    if not service.settings.remote_images:
        raise RefusedError(400, "not_an_image", "this server fetches nothing from outside; send a data URL")
    return await fetch_image(url, limit=service.settings.max_upload_bytes, seconds=service.settings.deadline)


def make_reply(asked: ChatRequest, answer: Answer) -> ChatReply:
    """The answer in the protocol's shape."""
    content = answer.answer if not answer.abstained else f"{answer.reason} My best guess: {answer.answer}."
    spent = len(answer.question.split()), len(content.split())
    return ChatReply(
        id=f"chatcmpl-{secrets.token_hex(12)}",
        created=int(time.time()),
        model=answer.model.name,
        choices=[
            Choice(
                message=ChatMessage(content=content, refusal=answer.reason if answer.abstained else None),
                logprobs=_logprobs(answer, asked.top_logprobs or 0) if asked.logprobs else None,
            )
        ],
        usage=Usage(prompt_tokens=spent[0], completion_tokens=spent[1], total_tokens=sum(spent)),
        medical_vqa=answer,
    )


def _logprobs(answer: Answer, top: int) -> dict[str, Any]:
    """The answer as one token, whose probability is its confidence."""
    ranked = [(answer.answer, answer.confidence), *((a.answer, a.confidence) for a in answer.alternatives)]
    tokens = [
        {"token": text, "logprob": math.log(max(sure, 1e-9)), "bytes": list(text.encode())}
        for text, sure in ranked
        if sure is not None
    ]
    return {"content": [{**tokens[0], "top_logprobs": tokens[:top]}] if tokens else [], "refusal": None}


async def events(reply: ChatReply, asked: ChatRequest) -> AsyncIterator[str]:
    """The answer as server-sent events, word by word: the model has said it all at once."""
    head = {"id": reply.id, "object": "chat.completion.chunk", "created": reply.created, "model": reply.model}
    choice = reply.choices[0]
    words = choice.message.content.split(" ")
    texts = [word if n == 0 else f" {word}" for n, word in enumerate(words)]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": text} for text in texts)]
    for delta in deltas:
        yield _event(head, [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}])
    last = {"index": 0, "delta": {}, "logprobs": choice.logprobs, "finish_reason": choice.finish_reason}
    yield _event(head | {"medical_vqa": reply.medical_vqa.model_dump()}, [last])
    if asked.stream_options and asked.stream_options.include_usage:
        yield _event(head | {"usage": reply.usage.model_dump()}, [])
    yield "data: [DONE]\n\n"


def _event(head: dict[str, Any], choices: list[dict[str, Any]]) -> str:
    return f"data: {json.dumps(head | {'choices': choices}, ensure_ascii=False)}\n\n"


def _since(service: Service) -> int:
    from datetime import datetime  # noqa: PLC0415

    created = service.engine.card.created
    return int(datetime.fromisoformat(created).timestamp()) if created else 0

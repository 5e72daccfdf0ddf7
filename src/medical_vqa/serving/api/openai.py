"""The engine behind OpenAI's chat protocol, so that its clients and chat front ends work unchanged.

The question is the last user message, about the newest image of the conversation, or as many as the model takes.
Earlier turns are read by models that remember: remote ones; `ignored` names what is not read. The field `medical_vqa`,
an extension, has what the protocol cannot express.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import math
import secrets
import string
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Protocol

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, FailFast, Field, WithJsonSchema

from medical_vqa.serving.api.requests import (
    BoundedJsonRoute,
    ClientDependency,
    choose_service,
    while_connected,
)
from medical_vqa.serving.api.streams import BEAT, OnText, texts_then_answer
from medical_vqa.serving.api.structured import ANY_OBJECT, OutputSchema, output_schema
from medical_vqa.serving.engine.remote import RemoteEngine
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.models import DEFAULT
from medical_vqa.serving.remote_images import fetch_image
from medical_vqa.serving.schema.answers import Answer
from medical_vqa.serving.schema.common import MAX_QUESTION, QUESTION_EXAMPLE
from medical_vqa.serving.service import Conversation, Service, Upload

_EVENTS = "text/event-stream"
_DATA_URL_EXAMPLE = "data:image/png;base64,iVBORw0KGgo..."
_LONGEST_SCHEME = 16  # characters that are searched for the end of an address's scheme
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_PERCENT_ENCODED = {code.encode(): bytes([int(code[1:], 16)]) for code in ("%2B", "%2b", "%2F", "%2f", "%3D", "%3d")}
_PERCENT_ENCODED |= {b"%0A": b"", b"%0a": b"", b"%0D": b"", b"%0d": b"", b"%20": b""}
_BASE64_PIECE = 1024 * 1024  # characters
DESCRIPTIONS: dict[int, str] = {
    400: "a request that cannot be answered",
    401: "no key, or an unknown one",
    403: "the key lacks the role",
    404: "no such model",
    408: "the body arrived too slowly",
    413: "too large",
    415: "a format that is not supported",
    422: "a field is missing or of the wrong type",
    429: "too many requests, or no answer in time",
    503: "the server is shutting down",
}
"""What an error's status means."""
NO_IMAGE = "Attach a medical image and ask about it: this model answers questions about images, and nothing else."
"""The answer to a conversation without an image, which chat front ends start by themselves for titles."""
MAX_MESSAGES = 200
"""Messages of a conversation."""
MAX_PARTS = 64
"""Texts and images of a message."""
MAX_TEXT = 256 * 1024
"""Characters of a conversation's texts together, which are divided into words."""
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
    image_url: ImageUrl | str = Field(description="Its address, alone or in an object.")

    @property
    def url(self) -> str:
        """The address."""
        return self.image_url if isinstance(self.image_url, str) else self.image_url.url


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


class ImageOptions(_RequestPart):
    """How the image is decoded: an extension of the protocol."""

    frame: int | None = Field(None, ge=0, le=1_000_000, description="Which of several frames or slices, from 0.")
    window: tuple[float, float] | None = Field(None, description="Center and width, for DICOM and NIfTI.")


RefusedList = Annotated[list[Any], WithJsonSchema({"type": "array", "maxItems": 0})]
"""Refused unless empty, with the field's name, which a limit of the type would not report so."""


class ChatRequest(_RequestPart):
    """A conversation to continue."""

    model: str = Field(description="As GET /v1/models lists it.", max_length=200)
    messages: Annotated[list[Message], FailFast()] = Field(min_length=1, max_length=MAX_MESSAGES)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = Field(1, ge=1, le=1, description="One answer only.")
    logprobs: bool | None = Field(False, description="Adds the answer's confidence as a log-probability.")
    top_logprobs: int | None = Field(None, ge=0, le=20, description="How many alternatives to add.")
    response_format: dict[str, Any] | None = Field(
        None, description="A JSON schema of an enum, a boolean, a string or an object with an answer."
    )
    tools: RefusedList | None = Field(None, description="Refused unless empty.", max_length=128)
    functions: RefusedList | None = Field(None, description="Refused unless empty.", max_length=128)
    medical_vqa: ImageOptions | None = Field(None, description="Frame and window of the image.")

    @property
    def output_schema(self) -> OutputSchema | None:
        """The schema of the answer; raises `ApiError` (400) where no answer fits it."""
        form = self.response_format or {"type": "text"}
        if form.get("type") == "json_schema":
            wrapped = form.get("json_schema")
            return output_schema(wrapped.get("schema") if isinstance(wrapped, dict) else None, "response_format")
        return output_schema(ANY_OBJECT, "response_format") if form.get("type") == "json_object" else None


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
    content: str | None = Field(description="The answer; an abstention names its reason and the best guess.")
    refusal: str | None = Field(
        None, description="Why the model abstains, in place of JSON whose schema cannot express that; else null."
    )


class Choice(BaseModel):
    """The one answer."""

    index: int = 0
    message: ChatMessage
    logprobs: dict[str, Any] | None = None
    finish_reason: Literal["stop"] = "stop"


class Usage(BaseModel):
    """Counted in words, a picture as one: the model families have different tokens, or none."""

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
    medical_vqa: Answer | None = Field(
        description="The full answer: confidence, alternatives, abstention, source, side, evidence, timings; null "
        "where no image was sent."
    )
    ignored: list[str] = Field(default_factory=list, description="Parts of the request that the model does not read.")


# --- routes -----------------------------------------------------------------------------------------------------------


def error_replies(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for the API's description."""
    return {status: {"model": ErrorReply, "description": DESCRIPTIONS[status]} for status in statuses}


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
        raise _no_tools("functions")
    if body.stream and isinstance(service.engine, RemoteEngine) and schema is None:
        prepared = await prepare(body, service, body.messages, body.medical_vqa, "messages")
        if prepared.uploads:
            events = live_events(service, body, prepared.uploads, prepared.question, prepared.conversation, client)
            return StreamingResponse(events, media_type=_EVENTS)
    result = await answer_messages(
        request,
        body,
        service,
        client,
        messages=body.messages,
        schema=schema,
        options=body.medical_vqa,
        field="messages",
    )
    reply = chat_reply(body, result, service.model.name)
    if body.stream:
        return StreamingResponse(stream_events(reply, body), media_type=_EVENTS)
    return JSONResponse(reply.model_dump())


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """What a conversation asks."""

    uploads: Sequence[Upload]
    """The images; empty: none was sent."""
    question: str
    """In words."""
    conversation: Conversation
    """Earlier turns, for a model that reads them."""
    ignored: list[str]
    """Parts of the conversation that the model does not read."""


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """An answer in the protocol's form."""

    message: ChatMessage
    """The answer's turn."""
    question: str
    """That was asked."""
    ignored: list[str]
    """Parts of the conversation that the model does not read."""
    answer: Answer | None = None
    """The full answer; None where no image was sent."""
    pictures: int = 0
    """Number of images that were read."""


class Asking(Protocol):
    """What the chat and the responses protocol have in common."""

    @property
    def model(self) -> str:
        """The model's name."""

    @property
    def tools(self) -> list[Any] | None:
        """Tools that the model may call."""


async def answer_messages(
    request: Request,
    body: Asking,
    service: Service,
    client: str,
    *,
    messages: Sequence[Message],
    schema: OutputSchema | None,
    options: ImageOptions | None,
    field: str,
) -> Result:
    """Ask what a conversation asks.

    Args:
        request: Watched for a disconnect.
        body: Of the request.
        service: Answers.
        client: Who asks.
        messages: The conversation.
        schema: Of the answer; None: text.
        options: Frame and window of the image.
        field: Name of the field with the conversation, for errors.

    Raises:
        ApiError: The request cannot be answered.
    """
    prepared = await prepare(body, service, messages, options, field)
    if not prepared.uploads:
        if schema is not None:
            raise ApiError(400, "invalid", f"no image in {field}; add one to ask for JSON", param=field)
        return Result(ChatMessage(content=NO_IMAGE), prepared.question, prepared.ignored)
    work = service.ask_once(prepared.uploads, prepared.question, conversation=prepared.conversation, client=client)
    try:
        answer = await while_connected(request, work)
    except ApiError as error:
        if error.code in ("not_an_image", "too_large", "unsupported_media_type"):
            error.param = field
        raise
    return Result(message_of(answer, schema), prepared.question, prepared.ignored, answer, len(prepared.uploads))


async def prepare(
    body: Asking, service: Service, messages: Sequence[Message], options: ImageOptions | None, field: str
) -> Prepared:
    """Read a conversation.

    Args:
        body: Of the request.
        service: Whose model is asked.
        messages: The conversation.
        options: Frame and window of the image.
        field: Name of the field with the conversation, for errors.

    Raises:
        ApiError: 400 for tools, too many images, or no question.
    """
    if body.tools:
        raise _no_tools("tools")
    engine_model = service.engine.model
    image_urls, question, turns = read_messages(messages, most_pictures=engine_model.max_pictures, field=field)
    options = options or ImageOptions()
    uploads = [Upload(await read_image_url(url, service, field), options.frame, options.window) for url in image_urls]
    ignored = ["system prompt"] if any(message.role in ("system", "developer") for message in messages) else []
    if turns and not engine_model.max_turns:
        ignored.append("earlier turns")
    return Prepared(uploads, question, Conversation(turns=turns if engine_model.max_turns else ()), ignored)


def _no_tools(param: str) -> ApiError:
    message = "this model calls no tools; leave them out, and ask for JSON with a schema instead"
    return ApiError(400, "invalid", message, param=param)


def read_messages(
    messages: Sequence[Message], *, most_pictures: int = 1, field: str = "messages"
) -> tuple[list[str], str, list[tuple[str, str]]]:
    """What a conversation asks.

    Args:
        messages: The conversation.
        most_pictures: Pictures that the model takes; the newest are used.
        field: Name of the field with the conversation, for errors.

    Returns:
        URLs of the newest images, the text of the last user message, and the turns before it.

    Raises:
        ApiError: There is no question, or one message has more images than the model takes (400).
    """
    if sum(map(_characters, messages)) > MAX_TEXT:
        message = f"the texts have more than {MAX_TEXT:,} characters; leave the oldest messages out"
        raise ApiError(400, "invalid", message, param=field)
    user_messages = [message for message in messages if message.role == "user"]
    images = [[part.url for part in message.parts if isinstance(part, ImagePart)] for message in user_messages]
    newest = next((urls for urls in reversed(images) if urls), [])
    if len(newest) > most_pictures:
        takes = "one image" if most_pictures == 1 else f"at most {most_pictures} images"
        message = f"this model takes {takes} in one question, got {len(newest)}; ask about one after the other"
        raise ApiError(400, "invalid", message, param=field)
    last_parts = user_messages[-1].parts if user_messages else []
    question = " ".join(" ".join(part.text for part in last_parts if isinstance(part, TextPart)).split())
    image_urls = [url for urls in images for url in urls][-most_pictures:]
    if not image_urls:
        return [], question, []
    if not question or not question.isprintable():
        message = "the last user message has no words, or control characters; ask a question"
        raise ApiError(400, "invalid", message, param=field)
    if len(question) > MAX_QUESTION:
        message = f"the question has more than {MAX_QUESTION:,} characters; shorten it"
        raise ApiError(400, "invalid", message, param=field)
    return image_urls, question, _turns(messages)


def _characters(message: Message) -> int:
    if isinstance(message.content, str):
        return len(message.content)
    return sum(len(part.text) for part in message.parts if isinstance(part, TextPart))


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


async def read_image_url(url: str, service: Service, field: str = "messages") -> bytes:
    """The bytes of a data URL or, where the settings allow it, of an http(s) URL.

    Args:
        url: The image's.
        service: Whose settings count.
        field: Name of the field with the conversation, for errors.

    Raises:
        ApiError: The image cannot be read.
    """
    if not url.isascii():  # before any copy: such a text may take four times its bytes
        raise ApiError(400, "not_an_image", "expected the image's address in ASCII; encode it again", param=field)
    scheme = url[:_LONGEST_SCHEME].partition(":")[0].lower()
    if scheme == "data":
        header, comma, content = url.partition(",")
        if not comma or not header.lower().endswith(";base64"):
            raise ApiError(400, "not_an_image", "expected an image as data:image/...;base64,...", param=field)
        try:
            return await asyncio.to_thread(decode_base64, content)
        except ValueError:
            raise ApiError(400, "not_an_image", "the image's base64 is damaged; encode it again", param=field) from None
    if scheme not in ("http", "https"):
        message = "expected the image as data:image/...;base64,..., got neither that nor an http(s) URL"
        raise ApiError(400, "not_an_image", message, param=field)
    if not service.settings.remote_images:
        raise ApiError(400, "not_an_image", "this server fetches no remote images; send a data URL", param=field)
    return await fetch_image(url, max_bytes=service.settings.max_upload_bytes, timeout=service.settings.deadline)


def decode_base64(text: str) -> bytes:
    """The bytes of base64, in either alphabet, with or without line breaks and padding; raises `ValueError`.

    Decoded in pieces, between which other threads run, and without an object for each of millions of lines.
    """
    decoded, code_begun, rest = [], b"", b""
    for start in range(0, len(text), _BASE64_PIECE):
        data = code_begun + text[start : start + _BASE64_PIECE].encode("ascii")
        last_percent = data.rfind(b"%", -2)  # of a code of three characters, whose end is in the next piece
        end = len(data) if last_percent < 0 or start + _BASE64_PIECE >= len(text) else last_percent
        data, code_begun = data[:end], data[end:]
        if b"%" in data:
            for code, character in _PERCENT_ENCODED.items():
                data = data.replace(code, character)
        piece = rest + data.translate(_URL_SAFE, string.whitespace.encode())
        complete = len(piece) - len(piece) % 4
        decoded.append(base64.b64decode(piece[:complete], validate=True))
        rest = piece[complete:]
    decoded.append(base64.b64decode(rest + b"=" * (-len(rest) % 4), validate=True))
    return b"".join(decoded)


def message_of(answer: Answer, schema: OutputSchema | None) -> ChatMessage:
    """The answer's turn: text or JSON; an abstention that the JSON cannot express is a refusal without content."""
    if schema is None:
        text = f"{answer.reason} My best guess: {answer.answer}." if answer.abstained else answer.answer
        return ChatMessage(content=text)
    if answer.abstained and not schema.reports_abstention:
        return ChatMessage(content=None, refusal=answer.reason)
    return ChatMessage(content=schema.text(answer))


def usage_of(result: Result) -> Usage:
    """The words of question and answer, and the pictures, without which clients conclude that none was read."""
    prompt_words = len(result.question.split()) + result.pictures
    answer_words = len((result.message.content or result.message.refusal or "").split())
    return Usage(prompt_tokens=prompt_words, completion_tokens=answer_words, total_tokens=prompt_words + answer_words)


def chat_reply(request: ChatRequest, result: Result, model_name: str) -> ChatReply:
    """The answer in the protocol's format.

    Args:
        request: As the client sent it.
        result: The answer.
        model_name: Of the model that answered.
    """
    logprobs = None
    if request.logprobs and result.answer is not None:
        logprobs = _logprobs(result.answer, request.top_logprobs or 0)
    return ChatReply(
        id=f"chatcmpl-{secrets.token_hex(12)}",
        created=int(time.time()),
        model=model_name,
        choices=[Choice(message=result.message, logprobs=logprobs)],
        usage=usage_of(result),
        medical_vqa=result.answer,
        ignored=result.ignored,
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
            if part is None:
                yield BEAT
                continue
            text = part if isinstance(part, str) else message_of(part, None).content or ""
            if (
                text.startswith(written) and text != written
            ):  # the final text may differ by its Markdown: it is in medical_vqa
                yield _event(header, [_delta({"content": text[len(written) :]})])
                written = text
            if isinstance(part, Answer):
                yield _event(header | {"medical_vqa": part.model_dump()}, [_delta({}) | {"finish_reason": "stop"}])
                if request.stream_options and request.stream_options.include_usage:
                    yield _event(
                        header
                        | {
                            "usage": usage_of(
                                Result(message_of(part, None), question, [], pictures=len(uploads))
                            ).model_dump()
                        },
                        [],
                    )
    except ApiError as error:
        yield f"data: {json.dumps({'error': {'message': error.message, 'code': error.code}}, ensure_ascii=False)}\n\n"
    yield "data: [DONE]\n\n"


def _delta(delta: dict[str, Any]) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}


async def stream_events(reply: ChatReply, request: ChatRequest) -> AsyncIterator[str]:
    """The answer as server-sent events, word by word, although the model has produced it at once."""
    header = {"id": reply.id, "object": "chat.completion.chunk", "created": reply.created, "model": reply.model}
    choice = reply.choices[0]
    field = "refusal" if choice.message.content is None else "content"
    first, *others = (choice.message.content or choice.message.refusal or "").split(" ")
    texts = [first, *(f" {word}" for word in others)]
    deltas: list[dict[str, Any]] = [{"role": "assistant", field: ""}, *({field: text} for text in texts)]
    for delta in deltas:
        yield _event(header, [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}])
    last = {"index": 0, "delta": {}, "logprobs": choice.logprobs, "finish_reason": choice.finish_reason}
    answer = reply.medical_vqa.model_dump() if reply.medical_vqa else None
    yield _event(header | {"medical_vqa": answer, "ignored": reply.ignored}, [last])
    if request.stream_options and request.stream_options.include_usage:
        yield _event(header | {"usage": reply.usage.model_dump()}, [])
    yield "data: [DONE]\n\n"


def _event(header: dict[str, Any], choices: list[dict[str, Any]]) -> str:
    return f"data: {json.dumps(header | {'choices': choices}, ensure_ascii=False)}\n\n"

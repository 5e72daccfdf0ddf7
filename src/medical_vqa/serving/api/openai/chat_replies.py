"""An answer as the chat protocol's reply, or as its events."""

from __future__ import annotations

import dataclasses
import json
import math
import secrets
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from medical_vqa.serving.api.openai.answering import Result, ended, message_of, usage_of
from medical_vqa.serving.api.openai.chat_types import ChatReply, ChatRequest, Choice
from medical_vqa.serving.api.openai.conversation import Prepared
from medical_vqa.serving.api.streams import BEAT, OnText, texts_then_answer
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.problems import openai_error
from medical_vqa.serving.schema.answers import Answer
from medical_vqa.serving.service.service import Service


def chat_reply(request: ChatRequest, result: Result, model_name: str) -> ChatReply:
    """The answer in the protocol's format.

    Args:
        request: As the client sent it.
        result: The answer.
        model_name: Of the model that answered.
    """
    logprobs = _logprobs(request, result.answer) if result.answer is not None else None
    return ChatReply(
        id=f"chatcmpl-{secrets.token_hex(12)}",
        created=int(time.time()),
        model=model_name,
        choices=[Choice(message=result.message, logprobs=logprobs, finish_reason=result.finish_reason)],
        usage=result.usage,
        medical_vqa=result.answer,
        ignored=result.ignored,
    )


def _logprobs(request: ChatRequest, answer: Answer) -> dict[str, Any] | None:
    """The answer as one token, whose probability is its confidence; None where the client did not ask for it."""
    if not request.logprobs:
        return None
    ranked = [(answer.answer, answer.confidence)]
    ranked += [(alternative.answer, alternative.confidence) for alternative in answer.alternatives]
    tokens = [
        {"token": text, "logprob": math.log(max(confidence, 1e-9)), "bytes": list(text.encode())}
        for text, confidence in ranked
        if confidence is not None
    ]
    return {
        "content": [{**tokens[0], "top_logprobs": tokens[: request.top_logprobs or 0]}] if tokens else [],
        "refusal": None,
    }


async def live_events(service: Service, request: ChatRequest, prepared: Prepared, client: str) -> AsyncIterator[str]:
    """The answer as server-sent events while it is written; an error within the stream is its last event.

    Args:
        service: Asks.
        request: As the client sent it.
        prepared: What it asks.
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
        around = dataclasses.replace(prepared.context, on_text=on_text)
        return service.questions.ask_once(prepared.uploads, prepared.question, context=around, client=client)

    written = ""
    try:
        async for part in texts_then_answer(ask_with):
            if part is None:
                yield BEAT
                continue
            if isinstance(part, Answer):
                text, reason = ended(_whole_text(part, written), request.end, part)
            else:
                text = request.end.cut_unfinished(part)
            if text.startswith(written) and text != written:
                yield _event(header, [_delta({"content": text[len(written) :]})])
                written = text
            if isinstance(part, Answer):
                extension = {"medical_vqa": part.model_dump(), "ignored": prepared.ignored}
                last = _delta({}) | {"logprobs": _logprobs(request, part), "finish_reason": reason}
                yield _event(header | extension, [last])
                if request.stream_options and request.stream_options.include_usage:
                    yield _event(header | {"usage": usage_of(prepared.words, written).model_dump()}, [])
    except ApiError as error:
        if error.is_context_length:
            error.param = "messages"
        yield f"data: {json.dumps({'error': openai_error(error)}, ensure_ascii=False)}\n\n"
    yield "data: [DONE]\n\n"


def _whole_text(answer: Answer, written: str) -> str:
    """The whole text of an answer of which the beginning was sent.

    An abstention follows what it withholds. A text that differs in its Markdown alone is in `medical_vqa`.
    """
    text = message_of(answer, None).content or ""
    if text.startswith(written):
        return text
    return f"{written}\n\n{text}" if answer.abstained else written


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
        yield _event(header, [_delta(delta)])
    last = _delta({}) | {"logprobs": choice.logprobs, "finish_reason": choice.finish_reason}
    answer = reply.medical_vqa.model_dump() if reply.medical_vqa else None
    yield _event(header | {"medical_vqa": answer, "ignored": reply.ignored}, [last])
    if request.stream_options and request.stream_options.include_usage:
        yield _event(header | {"usage": reply.usage.model_dump()}, [])
    yield "data: [DONE]\n\n"


def _event(header: dict[str, Any], choices: list[dict[str, Any]]) -> str:
    return f"data: {json.dumps(header | {'choices': choices}, ensure_ascii=False)}\n\n"

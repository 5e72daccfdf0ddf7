"""The answer to a conversation in the form that the chat and the responses protocol share."""

from __future__ import annotations

import dataclasses

from fastapi import Request

from medical_vqa.serving.api.openai.chat_types import ChatMessage, Usage
from medical_vqa.serving.api.openai.conversation import Received, prepare
from medical_vqa.serving.api.openai.structured import OutputSchema
from medical_vqa.serving.api.requests import while_connected
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.schema.answers import Answer
from medical_vqa.serving.service.service import Service

NO_IMAGE = "Attach a medical image and ask about it: this model answers questions about images, and nothing else."
"""The answer to a conversation without an image, which chat front ends start by themselves for titles."""


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


async def answer_conversation(
    request: Request, service: Service, client: str, received: Received, schema: OutputSchema | None
) -> Result:
    """Ask what a conversation asks.

    Args:
        request: Watched for a disconnect.
        service: Answers.
        client: Who asks.
        received: The conversation.
        schema: Of the answer; None: text.

    Raises:
        ApiError: The request cannot be answered.
    """
    prepared, field = await prepare(received, service), received.field
    if not prepared.uploads:
        if schema is not None:
            raise ApiError(400, "invalid", f"no image in {field}; add one to ask for JSON", param=field)
        return Result(ChatMessage(content=NO_IMAGE), prepared.question, prepared.ignored)
    work = service.questions.ask_once(prepared.uploads, prepared.question, context=prepared.context, client=client)
    try:
        answer = await while_connected(request, work)
    except ApiError as error:
        if error.code in ("not_an_image", "too_large", "unsupported_media_type"):
            error.param = field
        raise
    return Result(message_of(answer, schema), prepared.question, prepared.ignored, answer, len(prepared.uploads))


def message_of(answer: Answer, schema: OutputSchema | None) -> ChatMessage:
    """The answer's turn: text or JSON; an abstention that the JSON cannot express is a refusal without content."""
    if schema is None:
        guess = f" My best guess: {answer.answer}." if answer.answer else ""
        return ChatMessage(content=f"{answer.reason}{guess}" if answer.abstained else answer.answer)
    if answer.abstained and not schema.reports_abstention:
        return ChatMessage(content=None, refusal=answer.reason)
    return ChatMessage(content=schema.text(answer))


def usage_of(result: Result) -> Usage:
    """The words of question and answer, and the pictures, without which clients conclude that none was read."""
    prompt_words = len(result.question.split()) + result.pictures
    answer_words = len((result.message.content or result.message.refusal or "").split())
    return Usage(prompt_tokens=prompt_words, completion_tokens=answer_words, total_tokens=prompt_words + answer_words)

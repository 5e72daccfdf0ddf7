"""The answer to a conversation in the form that the chat and the responses protocol share."""

from __future__ import annotations

import dataclasses

from fastapi import Request

from medical_vqa.serving.api.openai.chat_types import ChatMessage, Usage
from medical_vqa.serving.api.openai.conversation import Prepared, Received, prepare
from medical_vqa.serving.api.openai.parameters import End, FinishReason
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
    prompt_words: int
    """Words that the model read, a picture as one."""
    ignored: list[str]
    """Parts of the request that the model does not read."""
    answer: Answer | None = None
    """The full answer; None where no image was sent."""
    finish_reason: FinishReason = "stop"
    """``length`` where the client's limit or the model's own has cut it off."""

    @property
    def usage(self) -> Usage:
        """What was read and written."""
        return usage_of(self.prompt_words, self.message.content or self.message.refusal or "")


async def answer_conversation(
    request: Request, service: Service, client: str, received: Received, schema: OutputSchema | None, end: End
) -> Result:
    """Ask what a conversation asks.

    Args:
        request: Watched for a disconnect.
        service: Answers.
        client: Who asks.
        received: The conversation.
        schema: Of the answer; None: text.
        end: Where the answer ends.

    Raises:
        ApiError: The request cannot be answered.
    """
    prepared, field = await prepare(received, service), received.field
    if not prepared.uploads:
        if schema is not None:
            raise ApiError(400, "invalid", f"no image in {field}; add one to ask for JSON", param=field)
        return _ended(ChatMessage(content=NO_IMAGE), prepared, end)
    work = service.questions.ask_once(prepared.uploads, prepared.question, context=prepared.context, client=client)
    try:
        answer = await while_connected(request, work)
    except ApiError as error:
        if error.code in ("not_an_image", "too_large", "unsupported_media_type") or error.is_context_length:
            error.param = field
        raise
    return _ended(message_of(answer, schema), prepared, end, answer)


def _ended(message: ChatMessage, prepared: Prepared, end: End, answer: Answer | None = None) -> Result:
    reason: FinishReason = "stop"
    if message.content is not None:
        content, reason = ended(message.content, end, answer)
        message = message.model_copy(update={"content": content})
    return Result(message, prepared.words, prepared.ignored, answer, reason)


def ended(text: str, end: End, answer: Answer | None) -> tuple[str, FinishReason]:
    """A text up to its end, and why it ends there: also ``length`` where the model wrote to its own limit of tokens."""
    content, reason = end.cut(text)
    if content == text and answer is not None and answer.cut_off:
        return content, "length"
    return content, reason


def message_of(answer: Answer, schema: OutputSchema | None) -> ChatMessage:
    """The answer's turn: text or JSON; an abstention that the JSON cannot express is a refusal without content."""
    if schema is None:
        guess = f" My best guess: {answer.answer}." if answer.answer else ""
        return ChatMessage(content=f"{answer.reason}{guess}" if answer.abstained else answer.answer)
    if answer.abstained and not schema.reports_abstention:
        return ChatMessage(content=None, refusal=answer.reason)
    return ChatMessage(content=schema.text(answer))


def usage_of(prompt_words: int, text: str) -> Usage:
    """The words that were read and written; pictures count, or clients would conclude that none was read."""
    words = len(text.split())
    return Usage(prompt_tokens=prompt_words, completion_tokens=words, total_tokens=prompt_words + words)

"""What a conversation asks: the last user message, about the newest images, after earlier turns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from medical_vqa.serving.api.openai.chat_types import ImageOptions, ImagePart, Message, TextPart
from medical_vqa.serving.api.openai.image_urls import read_image_url
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.schema.common import MAX_QUESTION
from medical_vqa.serving.service.inputs import QuestionContext, Upload
from medical_vqa.serving.service.service import Service

MAX_TEXT = 256 * 1024
"""Characters of a conversation's texts together, which are divided into words."""


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """What a conversation asks."""

    uploads: Sequence[Upload]
    """The images; empty: none was sent."""
    question: str
    """In words."""
    context: QuestionContext
    """Earlier turns, for a model that reads them."""
    ignored: list[str]
    """Parts of the conversation that the model does not read."""


@dataclasses.dataclass(frozen=True, slots=True)
class Received:
    """A conversation as a client has sent it, in either protocol."""

    messages: Sequence[Message]
    """The turns, oldest first."""
    field: str
    """Name of the field with the turns, for errors."""
    tools: Sequence[Any] | None = None
    """Tools that the model may call; refused unless empty."""
    options: ImageOptions | None = None
    """Frame and window of the image."""


async def prepare(received: Received, service: Service) -> Prepared:
    """Read a conversation for the model of a service; raises `ApiError` (400): tools, too many images, no question."""
    if received.tools:
        raise no_tools("tools")
    engine_model = service.engine.model
    messages, field = received.messages, received.field
    image_urls, question, turns = read_messages(messages, most_pictures=engine_model.max_pictures, field=field)
    options = received.options or ImageOptions()
    uploads = [Upload(await read_image_url(url, service, field), options.frame, options.window) for url in image_urls]
    ignored = ["system prompt"] if any(message.role in ("system", "developer") for message in messages) else []
    if turns and not engine_model.max_turns:
        ignored.append("earlier turns")
    return Prepared(uploads, question, QuestionContext(turns=turns if engine_model.max_turns else ()), ignored)


def no_tools(param: str) -> ApiError:
    """400: a request with tools; an agent that waits for a call would take the text for its end."""
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
    question = user_messages[-1].text if user_messages else ""
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
        if message.role == "user":
            question = message.text
        elif message.role == "assistant" and question and message.text:
            turns.append((question, message.text))
            question = ""
    return turns

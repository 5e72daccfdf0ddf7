"""What a conversation asks: the last user message about the newest images, after earlier turns and system messages."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from medical_vqa.serving.api.openai.chat_types import ImageOptions, ImagePart, Message
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
    """Parts of the request that the model does not read."""
    words: int
    """That the model reads, a picture as one."""


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
    unread: Sequence[str] = ()
    """Names of parameters that are not read."""


async def prepare(received: Received, service: Service) -> Prepared:
    """Read a conversation for the model of a service; raises `ApiError` (400): tools, too many images, no question."""
    if received.tools:
        raise no_tools("tools")
    model = service.engine.model
    conversation = read_messages(received.messages, most_pictures=model.max_pictures, field=received.field)
    options = received.options or ImageOptions()
    uploads = [
        Upload(await read_image_url(url, service, received.field), options.frame, options.window)
        for url in conversation.image_urls
    ]
    turns_read = service.engine.turns_read(conversation.turns)
    ignored = ["system prompt"] if conversation.system and not model.reads_system else []
    if turns_read < len(conversation.turns):
        ignored.append("oldest turns" if turns_read else "earlier turns")
    if conversation.images_left_out and model.max_turns:
        ignored.append("oldest images")
    if conversation.unanswered and model.max_turns:
        ignored.append("questions without an answer")
    ignored += received.unread
    context = QuestionContext(
        turns=conversation.turns,
        system=conversation.system if model.reads_system else "",
        places=conversation.places if turns_read or len(uploads) > 1 else (),
    )
    newest = conversation.turns[len(conversation.turns) - turns_read :]
    texts = [context.system, *(text for turn in newest for text in turn), conversation.question]
    words = sum(len(text.split()) for text in texts) + len(uploads)
    return Prepared(uploads, conversation.question, context, ignored, words)


def no_tools(param: str) -> ApiError:
    """400: a request with tools; an agent that waits for a call would take the text for its end."""
    message = "this model calls no tools; leave them out, and ask for JSON with a schema instead"
    return ApiError(400, "invalid", message, param=param)


@dataclasses.dataclass(frozen=True, slots=True)
class Conversation:
    """What the messages of a conversation ask."""

    question: str
    """Text of the last user message."""
    image_urls: Sequence[str] = ()
    """URLs of the newest images, the oldest of them first."""
    places: Sequence[tuple[int, int]] = ()
    """Where each stands, as in `Query.image_places`; empty: all before the first question."""
    turns: Sequence[tuple[str, str]] = ()
    """Each earlier user message that has an answer, with it."""
    system: str = ""
    """Texts of the system messages."""
    images_left_out: bool = False
    """Whether there are older images than the model takes."""
    unanswered: bool = False
    """Whether an earlier user message has no answer."""


def read_messages(messages: Sequence[Message], *, most_pictures: int = 1, field: str = "messages") -> Conversation:
    """What a conversation asks.

    Args:
        messages: The conversation.
        most_pictures: Pictures that the model takes; the newest are used.
        field: Name of the field with the conversation, for errors.

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
    image_urls = [url for urls in images for url in urls]
    if not image_urls:
        return Conversation(question)
    if not question or not question.isprintable():
        message = "the last user message has no words, or control characters; ask a question"
        raise ApiError(400, "invalid", message, param=field)
    if len(question) > MAX_QUESTION:
        message = f"the question has more than {MAX_QUESTION:,} characters; shorten it"
        raise ApiError(400, "invalid", message, param=field)
    turns, places = _turns(messages)
    places = places[-most_pictures:]
    return Conversation(
        question,
        image_urls[-most_pictures:],
        places if any(place != (0, 0) for place in places) else (),
        turns,
        "\n".join(message.text for message in messages if message.role in ("system", "developer") and message.text),
        images_left_out=len(image_urls) > most_pictures,
        unanswered=len(turns) < sum(bool(message.text) for message in user_messages) - 1,
    )


def _characters(message: Message) -> int:
    return sum(len(part.text) for part in message.parts if not isinstance(part, ImagePart))


def _turns(messages: Sequence[Message]) -> tuple[list[tuple[str, str]], list[tuple[int, int]]]:
    """Each user message that has an answer, with it, and the place of each image.

    An image of a message without an answer stands before the next question.
    """
    turns, places, question = list[tuple[str, str]](), list[tuple[int, int]](), ""
    last = max(place for place, message in enumerate(messages) if message.role == "user")
    for message in messages[: last + 1]:
        if message.role == "user":
            places = [(turn, 0 if turn == len(turns) else character) for turn, character in places]
            places += [(len(turns), character) for character in _image_places(message)]
            question = message.text
        elif message.role == "assistant" and question and message.text:
            turns.append((question, message.text))
            question = ""
    return turns, places


def _image_places(message: Message) -> list[int]:
    """Characters of the message's text before each image; 0 where all images stand behind the text, as many clients
    send them: the model was trained with the images first."""
    characters, places = 0, list[int]()
    for part in message.parts:
        if isinstance(part, ImagePart):
            places.append(characters)
        elif text := " ".join(part.text.split()):
            characters += bool(characters) + len(text)  # a space stands before it
    return [0] * len(places) if set(places) == {characters} else places

"""The types of the chat protocol: what its clients send and receive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, WithJsonSchema

from medical_vqa.serving.api.openai.parameters import End, FinishReason, Parameters, Stop
from medical_vqa.serving.api.openai.structured import OutputSchema, requested_schema
from medical_vqa.serving.schema.answers import Answer
from medical_vqa.serving.schema.common import QUESTION_EXAMPLE

_DATA_URL_EXAMPLE = "data:image/png;base64,iVBORw0KGgo..."
MAX_MESSAGES = 200
"""Messages of a conversation."""
MAX_PARTS = 64
"""Texts and images of a message."""


class RequestPart(BaseModel):
    """Clients send many fields that mean nothing here; they are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ImageUrl(RequestPart):
    """The address of an image."""

    url: str = Field(description="A data URL; http(s) only where the server allows it.", examples=[_DATA_URL_EXAMPLE])


class ImagePart(RequestPart):
    """An image in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl | str = Field(description="Its address, alone or in an object.")

    @property
    def url(self) -> str:
        """The address."""
        return self.image_url if isinstance(self.image_url, str) else self.image_url.url


class TextPart(RequestPart):
    """Text in a message."""

    type: Literal["text"]
    text: str = Field(examples=[QUESTION_EXAMPLE])


class RefusalPart(RequestPart):
    """An earlier abstention in an answer's message."""

    type: Literal["refusal"]
    refusal: str

    @property
    def text(self) -> str:
        """Its words."""
        return self.refusal


Part = Annotated[TextPart | RefusalPart | ImagePart, Field(discriminator="type")]
"""A piece of a message."""


class Message(RequestPart):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[Part], Field(max_length=MAX_PARTS, fail_fast=True)] | None = None
    refusal: str | None = Field(None, description="Of an earlier answer, in place of its content.")

    @property
    def parts(self) -> Sequence[Part]:
        """The content as a list."""
        if self.content is None or isinstance(self.content, str):
            return [TextPart(type="text", text=self.content or self.refusal or "")]
        return self.content

    @property
    def text(self) -> str:
        """The words of its texts, with one space between two."""
        return " ".join(" ".join(part.text for part in self.parts if not isinstance(part, ImagePart)).split())


class StreamOptions(RequestPart):
    """Options of a stream."""

    include_usage: bool | None = False


class ImageOptions(RequestPart):
    """How the image is decoded: an extension of the protocol, of which a misspelled name is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    frame: int | None = Field(None, ge=0, le=1_000_000, description="Which of several frames or slices, from 0.")
    window: tuple[float, float] | None = Field(None, description="Center and width, for DICOM and NIfTI.")


RefusedList = Annotated[list[Any], WithJsonSchema({"type": "array", "maxItems": 0})]
"""Refused unless empty, with the field's name, which a limit of the type would not report so."""


class ChatRequest(Parameters):
    """A conversation to continue; `ignored` in the reply names the parameters that are not read."""

    model: str = Field(description="As GET /v1/models lists it.", max_length=200)
    messages: Annotated[list[Message], FailFast()] = Field(min_length=1, max_length=MAX_MESSAGES)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = Field(1, ge=1, le=1, description="One answer only.")
    logprobs: bool | None = Field(False, description="Adds the answer's confidence as a log-probability.")
    top_logprobs: int | None = Field(None, ge=0, le=20, description="How many alternatives to add.")
    max_completion_tokens: int | None = Field(None, ge=1, description="Most words of the answer; the rest is cut off.")
    max_tokens: int | None = Field(None, ge=1, description="The former name of max_completion_tokens.")
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = Field(
        None, description="Texts before which the answer ends."
    )
    presence_penalty: float | None = Field(None, ge=-2, le=2, description="Read as 0, as temperature is.")
    frequency_penalty: float | None = Field(None, ge=-2, le=2, description="Read as 0, as temperature is.")
    response_format: dict[str, Any] | None = Field(
        None, description="A JSON schema of an enum, a boolean, a string or an object with an answer."
    )
    tools: RefusedList | None = Field(None, description="Refused unless empty.", max_length=128)
    functions: RefusedList | None = Field(None, description="Refused unless empty.", max_length=128)
    medical_vqa: ImageOptions | None = Field(None, description="Frame and window of the image.")

    @property
    def end(self) -> End:
        """Where the answer ends."""
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return End(self.max_completion_tokens or self.max_tokens, stops)

    @property
    def output_schema(self) -> OutputSchema | None:
        """The schema of the answer; raises `ApiError` (400) where no answer fits it."""
        form = self.response_format
        wrapped = form.get("json_schema") if form else None
        return requested_schema(form, wrapped.get("schema") if isinstance(wrapped, dict) else None, "response_format")


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
    finish_reason: FinishReason = Field(
        "stop",
        description="length: cut off after so many words as were asked for, or at the model's own limit of tokens.",
    )


class Usage(BaseModel):
    """What the model read and wrote, in words, a picture as one: the model families have different tokens, or none."""

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

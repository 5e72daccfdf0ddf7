"""Conversations of the page: images with their questions, answers and ratings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from medical_vqa.serving.schema.answers import Answer
from medical_vqa.serving.schema.common import (
    IMAGE_ID_EXAMPLE,
    MAX_PICTURES,
    MAX_QUESTION,
    QUESTION_EXAMPLE,
    AskedFrame,
    AskedPlane,
    AskedWindow,
    ChosenModel,
    PlaneName,
    Question,
    Wire,
)
from medical_vqa.serving.schema.images import UploadedImage


class Region(Wire):
    """A part of a picture, in its pixels, from the upper left corner."""

    shape: Literal["box", "circle"] = Field(description="What was drawn; a circle is given by the square around it.")
    left: float = Field(ge=0, le=1e6, description="Column where it begins.")
    top: float = Field(ge=0, le=1e6, description="Row where it begins.")
    right: float = Field(gt=0, le=1e6, description="Column where it ends.")
    bottom: float = Field(gt=0, le=1e6, description="Row where it ends.")


class TurnRating(Wire):
    """What a user says about an answer."""

    correct: bool = Field(description="Whether it is right.")
    correction: str = Field("", description="The right answer, where it is wrong.")


class ConversationTurn(Wire):
    """A question of a conversation with its answer."""

    key: str = Field(description="Chosen by the client; a key is asked once.")
    question: str = Field(description="In words.", examples=[QUESTION_EXAMPLE])
    status: Literal["pending", "answered", "failed"] = Field(description="How far it is.")
    answer: Answer | None = Field(None, description="The answer, once there is one.")
    failure: str | None = Field(None, description="The error code, where it failed.")
    failure_message: str | None = Field(None, description="What the server says about the failure, in English.")
    asked_at: int = Field(description="When it was asked, in milliseconds since 1970-01-01 UTC.")
    text: str | None = Field(None, description="The answer while it is written; null before and afterwards.")
    region: Region | None = Field(None, description="The part of the picture that the question is about.")
    region_answer: Answer | None = Field(None, description="The answer about that part alone.")
    frame: int | None = Field(None, description="The slice that was asked about, from 0; null: the stored picture.")
    plane: PlaneName | None = Field(None, description="Its plane.")
    window: str | None = Field(None, description="The window that it was shown in.")
    model: str | None = Field(None, description="Which model was asked; null: the default one.")
    other_image_ids: list[str] = Field(default_factory=list, description="Further images of the question.")
    rating: TurnRating | None = Field(None, description="What the user says about the answer.")


class ConversationImage(Wire):
    """An image of a conversation."""

    image: UploadedImage = Field(description="The image.")
    name: str = Field(description="What the user calls it.")
    turns: list[ConversationTurn] = Field(description="Questions, oldest first.")
    draft: str = Field("", description="A question that was typed and not sent.")
    expires_at: int | None = Field(
        None, description="When the image is deleted, in milliseconds since 1970-01-01 UTC; null: never by itself."
    )


class Conversation(Wire):
    """Images with their questions and answers."""

    id: str = Field(description="Identifies the conversation; it cannot be guessed.")
    version: int = Field(description="Grows with each change.")
    cases: list[ConversationImage] = Field(description="Images, oldest first.")
    expires_in_seconds: float | None = Field(None, description="How long it is stored after its last change.")


class ConversationQuestion(Wire):
    """A question for a conversation."""

    image_id: str = Field(description="One of its images.", max_length=64, examples=[IMAGE_ID_EXAMPLE])
    key: str = Field(description="Chosen by the client; a key is asked once.", min_length=8, max_length=64)
    question: Question = Field(description="In words; no control characters.", examples=[QUESTION_EXAMPLE])
    region: Region | None = Field(None, description="A part of the picture, about which the same is asked too.")
    frame: AskedFrame = None
    plane: AskedPlane = None
    window: AskedWindow = None
    model: ChosenModel = None
    other_image_ids: list[Annotated[str, Field(max_length=64)]] = Field(
        default_factory=list,
        max_length=MAX_PICTURES - 1,
        description="Further images of the conversation, for models that take several.",
    )


class StoredImageName(Wire):
    """An image that is stored already, such as a series, for a conversation."""

    image_id: str = Field(description="As the server returned it.", max_length=64, examples=[IMAGE_ID_EXAMPLE])
    name: str = Field("", description="What the user calls it.", max_length=200)


class RatingRequest(Wire):
    """A rating of an answer of a conversation."""

    image_id: str = Field(description="One of its images.", max_length=64, examples=[IMAGE_ID_EXAMPLE])
    key: str = Field(description="Of the question.", min_length=8, max_length=64)
    correct: bool = Field(description="Whether the answer is right.")
    correction: str = Field("", description="The right answer, where it is wrong.", max_length=MAX_QUESTION)
    keep_picture: bool = Field(False, description="Whether the user agrees that the picture is kept for training.")


class Draft(Wire):
    """A question that was typed and not sent."""

    image_id: str = Field(description="One of the conversation's images.", max_length=64)
    draft: str = Field(description="The text.", max_length=MAX_QUESTION)

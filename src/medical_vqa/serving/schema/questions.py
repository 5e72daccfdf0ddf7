"""Questions about stored images, and questions that the server suggests."""

from __future__ import annotations

from typing import Annotated

from pydantic import FailFast, Field

from medical_vqa.serving.schema.common import (
    IMAGE_ID_EXAMPLE,
    MAX_PICTURES,
    MAX_QUESTIONS,
    QUESTION_EXAMPLE,
    AskedFrame,
    AskedPlane,
    AskedWindow,
    ChosenModel,
    Question,
    Wire,
)

MAX_TURNS = 64
"""Earlier turns in one request; more are answered with 422. The model may read fewer."""
MAX_ANSWER = 4_000
"""Characters of an answer in an earlier turn."""


class Turn(Wire):
    """An earlier question with its answer."""

    question: Question = Field(description="The question.", examples=[QUESTION_EXAMPLE])
    answer: str = Field(description="The answer that was given.", max_length=MAX_ANSWER, examples=["MRI"])


class AskRequest(Wire):
    """One question about an uploaded image."""

    image_id: str = Field(description="As POST /upload_image returned it.", max_length=64, examples=[IMAGE_ID_EXAMPLE])
    question: Question = Field(description="In words; no control characters.", examples=[QUESTION_EXAMPLE])
    attention_map: bool = Field(
        False, description="Whether to add the attention map: where in the image the answer comes from."
    )

    other_image_ids: list[Annotated[str, Field(max_length=64)]] = Field(
        default_factory=list,
        max_length=MAX_PICTURES - 1,
        description="Further uploaded images of the question, such as the prior examination; in JSON only.",
    )
    turns: list[Turn] = Field(
        default_factory=list,
        max_length=MAX_TURNS,
        description="The conversation so far, oldest first; in JSON only. A model that does not remember ignores it.",
    )
    check_image: bool = Field(
        False,
        description="Whether to measure how much the picture moves the answer; a remote model is then asked twice.",
    )
    frame: AskedFrame = None
    plane: AskedPlane = None
    window: AskedWindow = None
    model: ChosenModel = None


class AskManyRequest(Wire):
    """Several questions about one uploaded image, answered together."""

    image_id: str = Field(description="As POST /upload_image returned it.", max_length=64, examples=[IMAGE_ID_EXAMPLE])
    questions: Annotated[list[Question], FailFast()] = Field(
        description="Answered in this order.",
        min_length=1,
        max_length=MAX_QUESTIONS,
        examples=[[QUESTION_EXAMPLE, "Is the liver healthy?"]],
    )
    attention_map: bool = Field(
        False, description="Whether to add attention maps: where in the image the answers come from."
    )
    frame: AskedFrame = None
    plane: AskedPlane = None
    window: AskedWindow = None
    model: ChosenModel = None


class Suggestions(Wire):
    """Suggested questions about an image."""

    questions: list[str] = Field(description="Best first.", examples=[[QUESTION_EXAMPLE]])

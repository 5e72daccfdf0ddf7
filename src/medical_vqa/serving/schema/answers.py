"""Answers: what the model says, how far to rely on it, and where it comes from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medical_vqa.schema.evidence import Evidence
from medical_vqa.serving.schema.common import QUESTION_EXAMPLE, PlaneName, Wire


class SliceAnswer(Wire):
    """The answer about one slice of a series."""

    frame: int = Field(description="The slice, from 0.", examples=[150])
    plane: PlaneName = Field(description="Its plane.")
    answer: str = Field(description="The best answer about it.", examples=["CT"])
    confidence: float | None = Field(None, description="In [0, 1]; null: none.", examples=[0.9])
    abstained: bool = Field(False, description="Whether the model abstains about this slice.")
    reason_code: str | None = Field(None, description="Why it abstains.")
    presence: float | None = Field(
        None,
        description="Probability that the slice shows what the question names; null where slices were spread evenly.",
    )


class Alternative(Wire):
    """One of the next best answers."""

    answer: str = Field(description="The answer.", examples=["CT"])
    confidence: float = Field(description="In [0, 1].", examples=[0.08])


class AttentionMap(Wire):
    """Where in the image an answer comes from: non-negative weights over a grid, summing to 1."""

    rows: int = Field(description="Rows of the grid, from the top of the image.", examples=[2])
    columns: int = Field(description="Columns of the grid, from the left of the image.", examples=[2])
    values: list[list[float]] = Field(
        description="One list of weights per row, over the whole image.", examples=[[[0.1, 0.2], [0.3, 0.4]]]
    )


class Timings(Wire):
    """Where the time went, in milliseconds."""

    queue_ms: float = Field(description="Waiting for the model.", examples=[2.1])
    model_ms: float = Field(description="In the model, together with the other questions of the batch.", examples=[6.3])
    total_ms: float = Field(description="From the request's arrival to its answer.", examples=[9.0])
    batch_size: int = Field(description="Questions that were answered together; 0: a cached answer.", examples=[4])


class ModelRef(Wire):
    """Which model answered."""

    name: str = Field(description="Name of the recipe.", examples=["slake-compact"])
    family: str = Field(description="The model family.", examples=["compact"])
    id: str = Field(description="SHA-256 over the bundle's files, shortened: equal ids give equal answers.")


class Answer(Wire):
    """An answer to one question."""

    image_id: str | None = Field(None, description="The image; null when it was sent with the question.")
    question: str = Field(description="The question that was answered.", examples=[QUESTION_EXAMPLE])
    answer: str = Field(description="The best answer, also where the model abstains.", examples=["MRI"])
    confidence: float | None = Field(
        None, description="In [0, 1], calibrated where the bundle has a temperature; null: none.", examples=[0.91]
    )
    confidence_basis: Literal["probability", "agreement"] | None = Field(
        None,
        description="For a remote model, what the confidence was computed from: the probabilities of its tokens, or "
        "the agreement of several answers.",
    )
    cut_off: bool = Field(
        False,
        description="Whether the answer ended at the model's limit of tokens and not by itself: it may lack its end.",
    )
    alternatives: list[Alternative] = Field(default_factory=list, description="The next best answers, best first.")
    abstained: bool = Field(False, description="Whether the model abstains: the answer should not be relied on.")
    reason: str | None = Field(None, description="One sentence, why the model abstains; null when it answers.")
    suggestions: list[str] = Field(
        default_factory=list,
        description="Where the model abstains: questions near in meaning that it answers about this image, at most 3.",
        examples=[[QUESTION_EXAMPLE]],
    )
    reason_code: str | None = Field(
        None, description="The reason for programs, such as `picture_does_not_matter`; null when it answers."
    )
    reason_arguments: dict[str, str] = Field({}, description="Values that the reason names.")
    image_dependence: float | None = Field(
        None,
        ge=0,
        le=1,
        description="How much this picture moves the answer, compared with other pictures of its type; null where that "
        "was not measured.",
    )
    source: Literal["picture", "usual", "knowledge"] | None = Field(
        None,
        description="Where the answer comes from: this picture, what is usual for pictures of its type, or general "
        "knowledge; null where that was not measured.",
    )
    side: Literal["patient", "picture", "both"] | None = Field(
        None,
        description="Whose left or right the answer names: the patient's, the picture's, or of an organ the patient's "
        "and of a position the picture's; null where it names neither.",
    )
    evidence: list[Evidence] = Field(
        default_factory=list,
        description="Where the model localizes what the question or the answer names, in pixels of the uploaded image "
        "(`width` and `height` of POST /upload_image), the most certain first; empty where it abstains.",
    )
    turns_read: int = Field(0, description="Earlier turns of the conversation that the model read.", examples=[2])
    attention_map: AttentionMap | None = Field(
        None, description="Where the answer comes from; null unless requested, or where the model has no attention map."
    )
    frame: int | None = Field(
        None, description="Of a stored series or frame, the slice that evidence and attention map belong to."
    )
    plane: PlaneName | None = Field(None, description="Plane of that slice.")
    slices: list[SliceAnswer] = Field(
        default_factory=list,
        description="Of a question about a series, the slices that the model received with the answers about them; of "
        "a model that takes several pictures in one question, each has the one answer.",
    )
    model: ModelRef = Field(description="Which model answered.")
    timings: Timings = Field(description="Where the time went.")
    disclaimer: str = Field(
        "Research software: not a medical device and not for diagnosis.", description="To be shown next to the answer."
    )


class Answers(Wire):
    """Answers to several questions about one image, in their order."""

    image_id: str = Field(description="The image.")
    answers: list[Answer] = Field(description="One per question.")

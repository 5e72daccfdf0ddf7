"""The wire types of the backend, and nothing else: what a client sends and what it gets back.

A client needs this module alone (it imports pydantic and nothing heavy). Routes:

    POST   /upload_image           multipart image_file [frame, window_center, window_width] -> UploadedImage
    POST   /ask_question           form or JSON AskRequest                    -> Answer
    POST   /ask_questions          JSON AskManyRequest: one image, a batch    -> Answers
    POST   /ask                    multipart image_file, question, [look]     -> Answer
    GET    /images/{id}/questions                                             -> Suggestions
    GET    /images/{id}/picture                                               -> PNG bytes, as the server reads it
    DELETE /images/{id}                                                       -> 204
    GET    /model                                                             -> ModelInfo
    GET    /examples                                                          -> Examples
    GET    /examples/{id}/image                                               -> JPEG or PNG bytes
    GET    /healthz /readyz /metrics

Every error is a `Problem`: ``{"detail": {"code": "unknown_image", "message": "..."}}``. `message` is a sentence for
people, `code` is for programs (`ErrorCode`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_QUESTION = 1_000
"""Characters of a question; more is refused with 422."""
MAX_QUESTIONS = 32
"""Questions in one batch; more are refused with 422."""
QUESTION = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
"""Anything but control characters, and not only blanks."""
IMAGE_ID = r"^[0-9a-f]{24}-[A-Za-z0-9_-]{22}$"
"""Content hash, and a part that nobody can guess."""

ErrorCode = Literal[
    "not_an_image",  # 400
    "unauthorized",  # 401
    "unknown_image",  # 404
    "not_found",  # 404
    "method_not_allowed",  # 405
    "timeout",  # 408: the body came too slowly
    "too_large",  # 413
    "unsupported_media_type",  # 415
    "invalid",  # 422: a field is missing, too long or of the wrong kind
    "rate_limited",  # 429: this key asks too often
    "overloaded",  # 429: the queue is full; the header Retry-After says when to come back
    "deadline",  # 429: no answer within the deadline
    "internal",  # 500: a defect of ours
    "not_ready",  # 503
]

QUESTION_EXAMPLE = "What modality is used to take this image?"
IMAGE_ID_EXAMPLE = "0f343b0931126a20f133d67c-2nZrYw8q5bYvQm1sT0uXhA"


class Wire(BaseModel):
    """What all wire types share: unknown fields of a request are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Question = Annotated[str, Field(min_length=1, max_length=MAX_QUESTION, pattern=QUESTION)]
"""A question in words."""


# --- requests ---------------------------------------------------------------------------------------------------------


class AskRequest(Wire):
    """One question about an uploaded image."""

    image_id: str = Field(description="What POST /upload_image gave.", max_length=64, examples=[IMAGE_ID_EXAMPLE])
    question: Question = Field(description="In words; no control characters.", examples=[QUESTION_EXAMPLE])
    attention_map: bool = Field(False, description="Whether to say where in the picture the answer comes from.")


class AskManyRequest(Wire):
    """Several questions about one uploaded image, answered in one go."""

    image_id: str = Field(description="What POST /upload_image gave.", max_length=64, examples=[IMAGE_ID_EXAMPLE])
    questions: list[Question] = Field(
        description="Answered in this order.",
        min_length=1,
        max_length=MAX_QUESTIONS,
        examples=[[QUESTION_EXAMPLE, "Is the liver healthy?"]],
    )
    attention_map: bool = Field(False, description="Whether to say where in the picture the answers come from.")


# --- answers ----------------------------------------------------------------------------------------------------------


class UploadedImage(Wire):
    """An image that questions may now be asked about."""

    image_id: str = Field(description="Names the image in questions.", examples=[IMAGE_ID_EXAMPLE])
    width: int = Field(description="Pixels, upright.", examples=[512])
    height: int = Field(description="Pixels, upright.", examples=[512])
    format: str = Field(description="Of the file: JPEG, PNG, BMP, TIFF, WEBP, DICOM or NIFTI.", examples=["JPEG"])
    frames: int = Field(1, description="How many pictures the file holds; one of them was taken.")
    dropped: list[str] = Field(
        default_factory=list, description="What of the file was not kept.", examples=[["EXIF", "ICC profile"]]
    )
    facts: dict[str, str] = Field(
        default_factory=dict,
        description="What was read from an allow-list of header fields (modality, body part, window).",
        examples=[{"Modality": "CT", "WindowCenter": "40", "WindowWidth": "400"}],
    )
    burned_in: bool | None = Field(
        None, description="Whether the header says that annotations are burned into the pixels; null: it does not say."
    )
    expires_in_seconds: float | None = Field(
        None, description="How long the image is kept; null: until it is deleted.", examples=[3600.0]
    )


class Alternative(Wire):
    """A next best answer."""

    answer: str = Field(description="The answer.", examples=["CT"])
    confidence: float = Field(description="In [0, 1].", examples=[0.08])


class AttentionMap(Wire):
    """Where in the picture an answer comes from: non-negative weights over a grid, summing to 1."""

    rows: int = Field(description="Of the grid; the first row is the top of the picture.", examples=[2])
    columns: int = Field(description="Of the grid; the first column is the left of the picture.", examples=[2])
    values: list[list[float]] = Field(
        description="One list of weights per row, over the whole picture.", examples=[[[0.1, 0.2], [0.3, 0.4]]]
    )


class Timings(Wire):
    """Where the time went, in milliseconds."""

    queue_ms: float = Field(description="Waiting for the model.", examples=[2.1])
    model_ms: float = Field(description="In the model, together with the other questions of the batch.", examples=[6.3])
    total_ms: float = Field(description="From the request's arrival to its answer.", examples=[9.0])
    batch: int = Field(description="Questions that were answered together; 0: the answer was remembered.", examples=[4])


class ModelRef(Wire):
    """Which model answered."""

    name: str = Field(description="The recipe's name.", examples=["slake-compact"])
    family: str = Field(description="The model family.", examples=["compact"])
    id: str = Field(description="SHA-256 over the bundle's files, shortened: equal ids answer equally.")


class Answer(Wire):
    """An answer to one question."""

    image_id: str | None = Field(None, description="The image; null when it came with the question.")
    question: str = Field(description="The question that was answered.", examples=[QUESTION_EXAMPLE])
    answer: str = Field(description="The best answer, also where the model abstains.", examples=["MRI"])
    confidence: float | None = Field(
        None, description="In [0, 1], calibrated where the bundle has a temperature; null: none.", examples=[0.91]
    )
    alternatives: list[Alternative] = Field(default_factory=list, description="The next best answers, best first.")
    abstained: bool = Field(False, description="Whether the answer had better not be relied on at all.")
    reason: str | None = Field(None, description="One sentence, why the model abstains; null when it answers.")
    attention_map: AttentionMap | None = Field(
        None, description="Where the answer comes from; null unless asked for, or where the model cannot tell."
    )
    model: ModelRef = Field(description="Which model answered.")
    timings: Timings = Field(description="Where the time went.")
    disclaimer: str = Field(
        "Research software: not a medical device and not for diagnosis.", description="Show it beside the answer."
    )


class Answers(Wire):
    """Answers to several questions about one image, in their order."""

    image_id: str = Field(description="The image.")
    answers: list[Answer] = Field(description="One per question.")


class Suggestions(Wire):
    """Questions that one may ask about an image."""

    questions: list[str] = Field(description="Best first.", examples=[[QUESTION_EXAMPLE]])


class ExampleImage(Wire):
    """An image that ships with the server, with questions to ask."""

    id: str = Field(description="Names the example.", examples=["xmlab112"])
    image: str = Field(description="Path of its picture on this server.", examples=["/examples/xmlab112/image"])
    caption: str = Field(description="What it shows, in the dataset's words.", examples=["CT, abdomen"])
    questions: list[str] = Field(description="Questions to try.", examples=[[QUESTION_EXAMPLE]])
    answers: list[str] = Field(description="The dataset's answers to these questions, in their order.")


class Examples(Wire):
    """The examples, and where they are from."""

    examples: list[ExampleImage] = Field(description="Several modalities and organs.")
    questions: list[str] = Field(description="Questions that suit most images.")
    source: str = Field(description="The dataset and its license.")


class Limits(Wire):
    """What the server takes."""

    max_upload_bytes: int = Field(description="Of a request's body.")
    max_pixels: int = Field(description="Width times height.")
    max_question_characters: int = Field(description="Of one question.")
    max_questions: int = Field(description="In one batch.")
    formats: list[str] = Field(description="File formats that are read.", examples=[["JPEG", "PNG", "DICOM"]])
    image_ttl_seconds: float | None = Field(None, description="How long an upload is kept; null: until deleted.")
    deadline_seconds: float = Field(description="A question is answered within this time or refused.")


class ModelInfo(Wire):
    """The card of the model that answers, and what the server takes."""

    name: str = Field(description="The recipe's name.")
    family: str = Field(description="The model family.")
    id: str = Field(description="SHA-256 over the bundle's files, shortened.")
    data: dict[str, Any] = Field(description="What it learned from: dataset, filter, rows, license, citation.")
    checkpoint_selection: dict[str, Any] = Field(
        description="What chose the checkpoint, on which split, and the scores there."
    )
    facts: dict[str, Any] = Field(description="Parameter counts and sizes.")
    decoding: dict[str, Any] = Field(description="How answers are chosen.")
    calibration: dict[str, Any] = Field(description="Temperature and threshold, with what they were fitted on.")
    prompt: str | None = Field(None, description="Template of the question, where the family uses one.")
    license: str = Field(description="Of the weights.")
    intended_use: str = Field(description="What it is for, and what it is not for.")
    created: str = Field(description="UTC, ISO 8601.")
    version: str = Field(description="Of the package that trained it.")
    has_attention_map: bool = Field(description="Whether answers can say where they come from.")
    limits: Limits = Field(description="What the server takes.")


class Health(Wire):
    """Whether the server lives, or may be sent requests."""

    status: Literal["ok", "ready"] = Field(description="ok: it lives; ready: it answers questions.")


# --- errors -----------------------------------------------------------------------------------------------------------


class ProblemDetail(Wire):
    """What went wrong."""

    code: ErrorCode = Field(description="For programs.", examples=["unknown_image"])
    message: str = Field(
        description="One sentence for people: what was expected, and what to do.",
        examples=["no image has this id; upload it again"],
    )


class Problem(Wire):
    """The body of every error."""

    detail: ProblemDetail = Field(description="What went wrong.")

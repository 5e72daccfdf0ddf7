"""The models of a server, and what one of them is."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from medical_vqa.serving.schema.common import Wire


class LoadModelRequest(Wire):
    """A model to load."""

    model: str = Field(
        description="What `serve --model` may name: a run folder, a bundle, hub:USER/NAME ...",
        min_length=1,
        max_length=500,
        examples=["runs/next"],
    )
    fraction: float = Field(
        0.0, ge=0, lt=1, description="Part of the images that it answers where a request names no model."
    )


class FractionRequest(Wire):
    """A canary's part."""

    fraction: float = Field(
        ge=0, le=1, description="Part of the images; 1 makes it the default model.", examples=[0.05]
    )


class Limits(Wire):
    """The limits of the server."""

    max_upload_bytes: int = Field(description="Size of a request's body.")
    max_series_bytes: int = Field(0, description="Size of a body of POST /series.")
    max_pixels: int = Field(description="Width times height times frames of an image.")
    max_question_characters: int = Field(description="Length of one question.")
    max_questions: int = Field(description="Questions in one request.")
    formats: list[str] = Field(description="Supported file formats.", examples=[["JPEG", "PNG", "DICOM"]])
    image_ttl_seconds: float | None = Field(None, description="How long an upload is stored; null: until deleted.")
    deadline_seconds: float = Field(description="A question is answered within this time or refused.")


class ModelInfo(Wire):
    """The card of the model that answers, and the limits of the server."""

    name: str = Field(description="Name of the recipe.")
    family: str = Field(description="The model family.")
    id: str = Field(description="SHA-256 over the bundle's files, shortened.")
    data: dict[str, Any] = Field(description="Dataset, filter, rows, license and citation of the data.")
    checkpoint_selection: dict[str, Any] = Field(
        description="The metric and split that selected the checkpoint, with its scores there."
    )
    refit_of: dict[str, Any] = Field(
        default_factory=dict,
        description="Of a model that learned from the validation rows too: the model of the same recipe that did not, "
        "with its scores; calibration, reliability and localization are measured with that one.",
    )
    facts: dict[str, Any] = Field(description="Parameter counts and sizes.")
    decoding: dict[str, Any] = Field(description="How answers are chosen.")
    calibration: dict[str, Any] = Field(description="Temperature and abstention threshold, with the data of their fit.")
    prompt: str | None = Field(None, description="Template of the question, where the family uses one.")
    license: str = Field(description="License of the weights.")
    intended_use: str = Field(description="What the model is for, and what it is not for.")
    created: str = Field(description="When the bundle was written: UTC, ISO 8601.")
    version: str = Field(description="Version of the package that trained the model.")
    has_attention_map: bool = Field(description="Whether answers can carry an attention map.")
    max_pictures: int = Field(1, description="Most pictures in one question.")
    max_turns: int = Field(0, description="Earlier turns that the model reads; 0: it does not remember.")
    streams: bool = Field(False, description="Whether an answer arrives while it is written.")
    reliability: list[dict[str, Any]] = Field(
        default_factory=list, description="Accuracy by type of question, next to a baseline that never sees the image."
    )
    localization: dict[str, Any] = Field(
        default_factory=dict, description="How well the evidence was measured to lie on masks and boxes, by entity."
    )
    collects_ratings: bool = Field(False, description="Whether ratings of answers are kept for training.")
    limits: Limits = Field(description="The limits of the server.")


class ServedModelInfo(Wire):
    """One model of the server."""

    name: str = Field(description="By which requests choose it.", examples=["next"])
    family: str = Field(description="The model family.", examples=["compact"])
    id: str = Field(description="SHA-256 over the bundle's files, shortened, as in every answer.")
    version: str = Field(description="Version of the package that trained the model.")
    is_default: bool = Field(description="Whether it answers requests that name no model.")
    fraction: float = Field(description="Part of the images that it answers for such requests.", examples=[0.05])
    ready: bool = Field(description="Whether it answers now.")
    queue: int = Field(description="Questions and pictures that wait for it.")
    memory_bytes: int | None = Field(
        None, description="Memory by which the process grew when it was loaded; null: not measured."
    )
    loaded_at: float = Field(description="Unix time.")


class ServedModels(Wire):
    """The models of the server."""

    models: list[ServedModelInfo] = Field(description="The one that the server was started with comes first.")

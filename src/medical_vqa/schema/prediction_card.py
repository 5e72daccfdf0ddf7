"""The card of a predictions file: which model answered which rows.

``predictions-validation.card.json`` is written next to ``predictions-validation.jsonl``, so that `score` and `report`
need no other input.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from medical_vqa.errors import DataError
from medical_vqa.schema.bundle_card import (
    BundleCard,
    CheckpointSelection,
    ConfidenceCalibration,
    Fraction,
    MeasuredModel,
    ModelFacts,
    TrainingData,
)
from medical_vqa.schema.document import SchemaModel, read_document, write_document
from medical_vqa.schema.records import Split
from medical_vqa.schema.selection import Selection

FORMAT: Final = 1


class AnsweringModel(SchemaModel):
    """The model that answered: an excerpt of its bundle's card, or how a remote one was called."""

    name: str
    """Name of the recipe, or of the remote model."""
    family: str
    """Model family; ``openai`` for a remote model."""
    facts: ModelFacts = ModelFacts()
    """Parameter counts and sizes, or the settings of the remote calls."""
    data: TrainingData | None = None
    """Rows that the model was trained on; null where nothing is known of them."""
    checkpoint_selection: CheckpointSelection | None = None
    """What chose the checkpoint."""
    refit_of: Annotated[MeasuredModel | None, Field(exclude_if=lambda model: model is None)] = None
    """Model of the same recipe that was scored, for one that learned from the validation rows too."""
    license: str = ""
    """License of the weights."""
    created: str = ""
    """Time at which the bundle was written: UTC, ISO 8601."""
    version: str = ""
    """Version of medical-vqa that wrote the bundle."""
    bundle: Path | None = None
    """Folder of the bundle; null for a remote model."""
    files: Mapping[str, str] = {}
    """File name -> SHA-256 of the bundle's files."""

    @classmethod
    def of_bundle(cls, card: BundleCard, folder: Path | None) -> AnsweringModel:
        """The excerpt of a bundle's card; `folder` is None for a remote model."""
        shared = set(cls.model_fields) & set(BundleCard.model_fields)
        return cls(bundle=folder, **{name: getattr(card, name) for name in shared})


class PredictionCard(SchemaModel):
    """The content of ``predictions-….card.json``."""

    format: Literal[1] = FORMAT
    """Version of this layout."""
    model: AnsweringModel
    """Model that answered."""
    selection: Selection
    """Rows that the split was taken from."""
    split: Split
    """Split that was answered."""
    manifest: str
    """SHA-256 of the prepared dataset's rows and images, lower-case hex."""
    answer_coverage: Fraction | None = None
    """Fraction of the rows whose answer a classifier can give; null for generative models."""
    shuffled_images: bool = False
    """Whether every question was asked about the image of another row."""
    guards: bool = False
    """Whether every prediction carries the decision of the guards."""
    calibration: ConfidenceCalibration | None = None
    """Calibration of the bundle; confidences in the predictions file are raw."""


def card_path(predictions: Path) -> Path:
    """Path of the card of a predictions file."""
    return predictions.with_name(predictions.name.removesuffix(".jsonl") + ".card.json")


def read_prediction_card(predictions: Path) -> PredictionCard:
    """The card of a predictions file; raises `DataError` when there is none or it is damaged or of another format."""
    advice = "write predictions with `medical-vqa predict`, or name the rows with --dataset and --split"
    try:
        return read_document(card_path(predictions), PredictionCard, advice=advice, error=DataError)
    except FileNotFoundError:
        if not predictions.exists():
            raise DataError(
                f"no predictions at {predictions}; expected a predictions.jsonl written by `medical-vqa predict`"
            ) from None
        raise DataError(
            f"{predictions} has no card {card_path(predictions).name} next to it, which names the rows that it "
            f"answers; {advice}"
        ) from None


def write_prediction_card(predictions: Path, card: PredictionCard) -> None:
    """Write the card of a predictions file."""
    write_document(card_path(predictions), card)

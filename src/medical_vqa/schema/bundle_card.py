"""The card of a bundle, ``card.json``: what a trained model is, what it learned from, and how it is to be used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import ConfigDict, Field, JsonValue

from medical_vqa.errors import BundleError
from medical_vqa.schema.document import SchemaModel, read_document, write_document
from medical_vqa.schema.records import Split
from medical_vqa.schema.selection import Selection

FORMAT: Final = 2
CARD_NAME: Final = "card.json"
INTENDED_USE: Final = "Research on visual question answering. Not a medical device and not for diagnosis."

Fraction = Annotated[float, Field(ge=0, le=1)]


class Decoding(SchemaModel):
    """How an answer is generated; recorded in the bundle, so that the server answers as validation did."""

    alternatives: Annotated[int, Field(ge=0, le=20)] = 4
    """Number of next best answers that a prediction carries."""
    method: Literal["greedy", "beam", "rank"] = "greedy"
    """How a generative model answers: token by token, by beam search, or by ranking the training answers. Classifiers
    always rank their answers."""
    beams: Annotated[int, Field(ge=2, le=64)] = 4
    """Number of beams of the method ``beam``."""
    max_tokens: Annotated[int, Field(ge=1, le=512)] = 24
    """Longest generated answer, in tokens; SLAKE's longest has 12 words."""


DIGEST_DIGITS: Final = 12
"""Hex digits by which a card names an image: 48 bits, so that none of a million others is taken for one of its own."""
MOST_DIGESTS: Final = 10_000
"""Most images whose digests a card lists."""


class StartingModel(SchemaModel):
    """The model that training started from; its training rows are behind the new model's answers too."""

    name: str
    """Name of its recipe."""
    created: str
    """Time at which it was written: UTC, ISO 8601."""
    title: str
    """Title of the dataset that it was trained on."""
    rows: int
    """Questions that it was trained on."""
    images: int
    """Images that it was trained on."""
    scores: Mapping[str, float] = {}
    """Its validation scores, in [0, 1]."""
    selections: Annotated[tuple[Selection, ...], Field(exclude_if=lambda selections: not selections)] = ()
    """The rows that it learned from, with those of the models that it started from; absent where they are unknown."""


class MeasuredModel(SchemaModel):
    """The model that a recipe was chosen by, trained on the training rows alone, of a model that learned from all rows.

    Nothing is held out for the latter, so what is known of its answers is what the former was measured to do.
    """

    name: str
    """Name of the recipe."""
    created: str
    """Time at which it was written: UTC, ISO 8601."""
    rows: int
    """Questions that it was trained on."""
    images: int
    """Images that it was trained on."""
    split: Split = "validation"
    """Split that it was scored on; the refitted model learned from it."""
    scores: Mapping[str, float] = {}
    """Metric -> its score on that split, in [0, 1]."""
    files: Mapping[str, str] = {}
    """File name -> SHA-256 of the other files of its bundle."""


class DatasetRows(SchemaModel):
    """Rows of one dataset in a training."""

    selection: Selection
    """The rows, and those that chose the checkpoint."""
    title: str
    """Title of the dataset, with its year."""
    manifest: str
    """SHA-256 of the prepared dataset's rows and images, lower-case hex."""
    license: str
    """License of the dataset."""
    citation: str
    """Citation that the dataset's authors ask for."""
    rows: int
    """Number of questions."""
    images: int
    """Number of images."""


class FurtherData(DatasetRows):
    """Rows of a further dataset in a mixture."""

    weight: float = 1.0
    """How often an epoch passed over its rows."""


class TrainingData(DatasetRows):
    """The rows that a model was trained on."""

    validation_answer_coverage: Fraction | None = None
    """Fraction of the validation rows whose answer a classifier can give; null for generative models."""
    started_from: StartingModel | None = None
    """Model that training started from; null where the weights were new or published."""
    weight: Annotated[float, Field(gt=0, exclude_if=lambda weight: weight == 1.0)] = 1.0
    """How often an epoch passed over the rows; absent for once."""
    mixture: Annotated[tuple[FurtherData, ...], Field(exclude_if=lambda further: not further)] = ()
    """Further datasets that were learned from at the same time; absent for none."""
    image_digests: Annotated[tuple[str, ...], Field(exclude_if=lambda digests: not digests)] = ()
    """The first `DIGEST_DIGITS` hex digits of the SHA-256 of each image behind the model's answers, those of the models
    that it started from included, in order; absent in older cards, and for more than `MOST_DIGESTS` images."""

    @property
    def learned(self) -> tuple[Selection, ...]:
        """All rows behind the model's answers: of this training, and of the models that it started from."""
        earlier = self.started_from.selections if self.started_from else ()
        return self.selection, *(part.selection for part in self.mixture), *earlier


class CheckpointSelection(SchemaModel):
    """What chose the checkpoint that became the bundle."""

    metric: Literal["em", "f1", "last"]
    """Validation score that was highest; ``last`` for the final checkpoint."""
    split: Split = "validation"
    """Split that the scores were computed on."""
    epoch: int
    """Complete epochs of the checkpoint."""
    scores: Mapping[str, float]
    """Metric -> score of the checkpoint on that split, in [0, 1]; of a mixture the mean over the datasets, and
    ``em/NAME`` for each of them."""


class ConfidenceCalibration(SchemaModel):
    """How raw confidence becomes calibrated confidence, and below which confidence the model abstains."""

    temperature: Annotated[float, Field(gt=0)]
    """Divisor of the confidence's log-odds."""
    fitted_on: str
    """Rows that both were fitted on: ``slake validation, 1,053 answers``."""
    risk: Fraction
    """Tolerated fraction of wrong answers among those given."""
    threshold: Fraction | None = None
    """Calibrated confidence below which the model abstains; null where no threshold keeps the risk."""
    coverage: Fraction | None = None
    """Fraction of the fitted rows that are answered at this threshold."""
    finding_threshold: Fraction | None = None
    """Threshold of questions for findings, which are wrong more often; null where `threshold` holds for them too."""


class TypeReliability(SchemaModel):
    """How a model compares with its question-only baseline on one type of validation questions."""

    name: str
    """Type: ``X-Ray, Abnormality``, or the name of a finding."""
    kind: str
    """What a type is: ``question type`` or ``finding``."""
    questions: int
    """Number of validation questions of the type."""
    images: int
    """Number of their images (or patients), which the interval resamples."""
    accuracy: Fraction
    """Fraction that the model answers right."""
    baseline_accuracy: Fraction
    """Fraction that the question-only baseline answers right."""
    difference_low: float
    """Lower end of the 95 % interval of their difference."""
    difference_high: float
    """Upper end of it."""
    auc: Fraction | None = None
    """Area under the ROC curve of the probability of yes; null where fewer than 5 answers are yes, or no."""
    above_baseline: bool
    """Whether difference and AUC (where there is one) are above guessing, each with 90 % confidence, one-sided."""


class LocalizationScore(SchemaModel):
    """How well a model localizes one organ or finding, or all of them, where pictures have it."""

    name: str
    """Name of the organ or finding: ``Left Lung``; ``all`` for all of them together."""
    pictures: int
    """Number of pictures whose masks or boxes have it; of ``all`` the number of pairs of picture and entity."""
    localized: Fraction
    """Fraction in which the model localizes it at all."""
    pointing: Fraction
    """Fraction in which the most probable place lies inside the mask, or the box where there is no mask."""
    masks: int
    """Number of masks that outlines were compared with."""
    median_dice: Fraction | None = None
    """Median Dice of outline and mask; what is not localized counts as 0. Null without masks."""
    boxes: int
    """Number of boxes that the outlines' boxes were compared with."""
    median_box_iou: Fraction | None = None
    """Median intersection over union of the boxes; what is not localized counts as 0. Null without boxes."""


class LocalizationScores(SchemaModel):
    """How well a model localizes what it names, against masks and boxes that nothing was learned from."""

    measured_on: str
    """Pictures that it was measured on: ``slake validation, 96 pictures``."""
    all: LocalizationScore
    """All organs and findings together."""
    entities: tuple[LocalizationScore, ...]
    """Each organ and finding in at least five pictures."""
    localized_although_absent: int
    """How often the model outlines what a picture with masks does not have."""


class ExportedFrom(SchemaModel):
    """The bundle that an exported one was made of."""

    family: str
    """Model family of the original."""
    files: Mapping[str, str]
    """File name -> SHA-256 of the original's files."""
    opset: int
    """Version of the ONNX operator set."""


class ModelFacts(SchemaModel):
    """What a model family reports about a model; families may add keys of their own."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)
    __pydantic_extra__: dict[str, JsonValue]

    parameters: int | None = None
    """Number of parameters, frozen ones included."""
    trainable: int | None = None
    """Number of parameters that were trained, where some are frozen."""
    answers: int | None = None
    """Number of answers that a classifier chooses from."""
    checkpoint: str | None = None
    """Published checkpoint whose weights are loaded in addition to the bundle's."""
    revision: str | None = None
    """Commit of that checkpoint."""
    exported_from: ExportedFrom | None = None
    """Bundle that this one was exported from."""

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Self:
        """What a model's `describe` returned, as it is after reading it back from JSON."""
        return cls.model_validate_json(json.dumps(description))


class BundleCard(SchemaModel):
    """The content of ``card.json``."""

    format: Literal[2] = FORMAT
    """Version of this layout."""
    family: str
    """Model family that loads the bundle."""
    name: str
    """Name of the recipe."""
    data: TrainingData | None = None
    """Rows that the model was trained on; null for a model that was not trained here."""
    checkpoint_selection: CheckpointSelection | None = None
    """What chose the checkpoint; null for a model without training steps."""
    facts: ModelFacts = ModelFacts()
    """Parameter counts and sizes."""
    decoding: Decoding = Decoding()
    """How answers are generated."""
    calibration: ConfidenceCalibration | None = None
    """Temperature and abstention threshold; null before `medical-vqa calibrate`."""
    reliability: tuple[TypeReliability, ...] = ()
    """Comparison with the question-only baseline by type of question; empty before `medical-vqa calibrate`."""
    localization: LocalizationScores | None = None
    """How well it localizes what it names; null where that was not measured."""
    refit_of: Annotated[MeasuredModel | None, Field(exclude_if=lambda model: model is None)] = None
    """Model whose scores, calibration, reliability and localization the card gives, for a model that learned from the
    validation rows too; null for every other."""
    prompt: str | None = None
    """Template of the question, for families that use one."""
    license: str = ""
    """License of the weights: what the dataset's license asks for."""
    intended_use: str = INTENDED_USE
    """Intended use of the model, and what it is not for."""
    created: str = ""
    """Time at which the bundle was written: UTC, ISO 8601."""
    version: str = ""
    """Version of medical-vqa that wrote the bundle."""
    files: Mapping[str, str] = {}
    """File name -> SHA-256 of the other files of the bundle."""


def read_bundle_card(folder: Path) -> BundleCard:
    """The card of a bundle; raises `BundleError` when there is none or it is damaged or of another format."""
    try:
        return read_document(
            folder / CARD_NAME,
            BundleCard,
            advice="copy the bundle again, train it again, or install the version of medical-vqa that wrote it",
            error=BundleError,
        )
    except FileNotFoundError:
        raise BundleError(f"no bundle at {folder}: {_advice(folder)}") from None


def _advice(folder: Path) -> str:
    """What to do with something that is no bundle."""
    if folder.suffix.lower() == ".gguf" or (folder.is_dir() and any(folder.glob("*.gguf"))):
        return (
            "GGUF is run by llama.cpp, Ollama and LM Studio; start one, for example `llama-server -m MODEL.gguf "
            "--mmproj PROJECTOR.gguf`, and ask openai:MODEL with the base URL http://localhost:8080/v1"
        )
    if (folder / "config.json").is_file():
        return (
            "it is a published checkpoint; train it (model.checkpoint of a recipe), or serve it, for example "
            f"`vllm serve {folder}`, and ask vllm:{folder}"
        )
    return f"expected a folder with {CARD_NAME}, as `medical-vqa train` writes it"


def write_bundle_card(folder: Path, card: BundleCard) -> None:
    """Write the card into an existing bundle; its other files are left as they are."""
    write_document(folder / CARD_NAME, card)

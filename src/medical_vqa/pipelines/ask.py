"""Answer one question about one image file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa.data.imaging.decode import ingest_file
from medical_vqa.data.imaging.pictures import prepare_picture
from medical_vqa.models.guards.abstention import calibrated
from medical_vqa.pipelines.bundles import find_bundle, load_model
from medical_vqa.schema.records import Prediction

if TYPE_CHECKING:
    from medical_vqa.models.bundle import BundleCard
    from medical_vqa.models.guards.abstention import AbstentionDecision


@dataclass(frozen=True, slots=True)
class AskResult:
    """What came of one question about one image file."""

    answer: Prediction
    """The answer, its confidence calibrated."""
    abstention: AbstentionDecision
    """Whether to give it."""
    card: BundleCard
    """Of the model."""


def ask(
    bundle: Path,
    image: Path,
    question: str,
    *,
    device: str = "auto",
    frame: int | None = None,
    window: tuple[float, float] | None = None,
) -> tuple[Prediction, BundleCard]:
    """One answer to one question about one image file. Raises `ImageError`, `ModelError` or `BundleError`.

    `frame` is a frame of a DICOM file, a slice of a NIfTI volume or a page of a TIFF, from 0; `window` is the center
    and width of the values of a DICOM or NIfTI file to show.
    """
    found = consult(bundle, image, question, device=device, frame=frame, window=window)
    return found.answer, found.card


def consult(
    bundle: Path,
    image: Path,
    question: str,
    *,
    device: str = "auto",
    frame: int | None = None,
    window: tuple[float, float] | None = None,
) -> AskResult:
    """One answer, and whether the model had better not have given it; takes and raises what `ask` does."""
    from medical_vqa.models.base import Query, check_question
    from medical_vqa.models.guards.abstention import abstention_decision
    from medical_vqa.models.queries import NO_PICTURE

    asked = check_question(question)
    picture = ingest_file(image, frame=frame, window=window).image
    model, card = load_model(find_bundle(bundle), device)
    visual = prepare_picture(picture, model.picture) if model.picture is not None else NO_PICTURE
    query = Query("ask", asked, "ask", visual)
    answer = calibrated(model.answer([query], card.decoding)[0], card)
    return AskResult(answer, abstention_decision(model, card, query, answer), card)

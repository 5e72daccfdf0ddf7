"""Build the guards of a bundle: the reference set from its training rows, reliability rows from validation answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from medical_vqa.io import sha256_file
from medical_vqa.models.guards.picture import FEWEST_PICTURES, ReferenceFeatures, picture_features
from medical_vqa.models.guards.reference import ARRAYS_FILE, NAMES_FILE, ReferenceSet, reference_pictures
from medical_vqa.models.guards.reliability import reliability_rows
from medical_vqa.pipelines.queries import queries
from medical_vqa.text import squad_normalize

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from medical_vqa.data.prepared.selected import SelectedDataset
    from medical_vqa.models.base import Visual, VqaModel
    from medical_vqa.schema.bundle_card import BundleCard, TypeReliability
    from medical_vqa.schema.records import Example, Prediction


def build_reference_set(model: VqaModel, data: SelectedDataset, findings: Sequence[str] = ()) -> ReferenceSet:
    """The reference set of a model's training rows.

    Args:
        model: The model; its pictures are prepared as it receives them.
        data: Dataset and rows that it was trained on.
        findings: Names of findings, in addition to the answers of rows that ask for abnormalities.
    """
    rows = data.rows("train")
    by_image = {row.image_id: row for row in rows}
    loader = queries(data, list(by_image.values()), model)
    visuals = [query.visual for query in loader]
    points = _features(model, visuals)
    types: list[int] = []
    pictures: dict[str, list[NDArray[np.uint8]]] = {}
    names = sorted({_image_type(row) for row in by_image.values()})
    for row, visual in zip(by_image.values(), visuals, strict=True):
        types.append(names.index(_image_type(row)))
        if isinstance(visual, np.ndarray):
            pictures.setdefault(_image_type(row), []).append(visual)
    return ReferenceSet(
        features=ReferenceFeatures.fit(points) if points is not None and len(points) >= FEWEST_PICTURES else None,
        point_types=np.array(types, np.int16),
        image_types=tuple(names),
        pictures={name: reference_pictures(images) for name, images in pictures.items()},
        modalities=tuple(sorted({row.facts["modality"] for row in rows if row.facts.get("modality")})),
        question_types=_question_types(rows),
        findings=tuple(sorted(_findings(rows) | {name.lower() for name in findings})),
    )


def write_guards(
    bundle: Path, card: BundleCard, reference: ReferenceSet, rows: Sequence[TypeReliability]
) -> BundleCard:
    """Write the reference set into a bundle, and the reliability rows and digests into its card; returns the card."""
    from medical_vqa.schema.bundle_card import write_bundle_card

    reference.save(bundle)
    files = {**card.files, **{name: sha256_file(bundle / name) for name in (ARRAYS_FILE, NAMES_FILE)}}
    changed = card.model_copy(update={"files": dict(sorted(files.items())), "reliability": tuple(rows)})
    write_bundle_card(bundle, changed)
    return changed


def reliability(
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    baseline: Sequence[Prediction],
    reference: ReferenceSet,
) -> list[TypeReliability]:
    """Reliability rows by modality and question type, and by modality and finding."""
    answered = [example for example in examples if example.answers]
    by_type, by_finding = {}, {}
    for example in answered:
        modality = example.facts.get("modality", "")
        if question_type := example.facts.get("content_type", "") or reference.question_type(example.question):
            by_type[example.id] = f"{modality}, {question_type}"
        if finding := reference.finding(example.question):
            by_finding[example.id] = f"{modality}, {finding}"
    given: Mapping[str, Prediction] = {prediction.id: prediction for prediction in predictions}
    without_picture = {prediction.id: prediction for prediction in baseline}
    return [
        *reliability_rows(answered, given, without_picture, by_type, kind="question type"),
        *reliability_rows(answered, given, without_picture, by_finding, kind="finding"),
    ]


def _image_type(row: Example) -> str:
    return ", ".join(value for value in (row.facts.get("modality", ""), row.facts.get("location", "")) if value)


def _question_types(rows: Sequence[Example]) -> dict[str, str]:
    return {squad_normalize(row.question): row.facts["content_type"] for row in rows if row.facts.get("content_type")}


def _findings(rows: Sequence[Example]) -> set[str]:
    """Diseases that answers to questions for abnormalities name."""
    names = set()
    for row in rows:
        if row.answers and "disease" in row.question.lower() and row.facts.get("content_type") == "Abnormality":
            names |= {part.strip().lower() for part in row.answers[0].split(",")}
    return {name for name in names if name.isascii() and name not in ("yes", "no", "none") and not name.isdigit()}


def _features(model: VqaModel, visuals: Sequence[Visual]) -> NDArray[np.float32] | None:
    """Feature vectors (N, D) of the pictures; None for a family whose vision part gives no tokens."""
    if model.vision is None:
        return None
    vectors = []
    for start in range(0, len(visuals), 32):
        part = visuals[start : start + 32]
        encoded = [v if not isinstance(v, np.ndarray) else None for v in part]
        fresh = iter(model.vision.encode([v for v in part if isinstance(v, np.ndarray)]))
        for known in encoded:
            features = known if known is not None else next(fresh)
            if "tokens" not in features:
                return None
            vectors.append(picture_features(np.asarray(features["tokens"])))
    return np.stack(vectors) if vectors else None

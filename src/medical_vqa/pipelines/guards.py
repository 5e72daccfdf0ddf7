"""Build the guards of a bundle: the reference set from its training rows, reliability rows from validation answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.evaluation.statistics.abstention import choose_threshold, stored_threshold
from medical_vqa.io import sha256_file
from medical_vqa.models.baselines import QuestionLookup
from medical_vqa.models.guards.guard import Guards
from medical_vqa.models.guards.guarded_answer import GuardedAnswer
from medical_vqa.models.guards.pictures.picture import FEWEST_PICTURES, ReferenceFeatures, visual_features
from medical_vqa.models.guards.pictures.reference import (
    ARRAYS_FILE,
    NAMES_FILE,
    ReferenceSet,
    modality_of,
    reference_pictures,
)
from medical_vqa.models.guards.reliability import is_right, reliability_rows
from medical_vqa.pipelines.bundles import load_model
from medical_vqa.pipelines.queries import learnable, queries
from medical_vqa.schema.bundle_card import write_bundle_card
from medical_vqa.text import squad_normalize

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from medical_vqa.models.base import Query, Visual, VqaModel
    from medical_vqa.pipelines.inputs import AnsweredRows
    from medical_vqa.schema.bundle_card import BundleCard, ConfidenceCalibration, TypeReliability
    from medical_vqa.schema.records import Example, Prediction

_BATCH = 32


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
        features=_reference_features(points, np.array(types), names),
        point_types=np.array(types, np.int16),
        image_types=tuple(names),
        pictures={name: reference_pictures(images) for name, images in pictures.items()},
        modalities=tuple(sorted({row.facts["modality"] for row in rows if row.facts.get("modality")})),
        question_types=_question_types(rows),
        findings=tuple(sorted(_findings(rows) | {name.lower() for name in findings})),
    )


def fit_guards(bundle: Path, rows: AnsweredRows, *, risk: float) -> None:
    """Build a bundle's guards and store them in it: reference set, reliability rows, thresholds of what they let pass.

    A model without a picture has none. The bundle's card holds a temperature already.

    Args:
        bundle: The bundle.
        rows: The validation rows that its predictions answer.
        risk: Tolerated fraction of wrong answers among those that are answered.
    """
    model, card = load_model(bundle, "cpu")
    calibration = card.calibration
    if model.picture is None or calibration is None or card.data is None:
        return
    data = rows.data.reselect(card.data.selection.model_copy(update={"root": rows.data.selection.root}))
    reference = build_reference_set(model, data)
    held_out = [row for row in rows.examples() if row.answers]
    held_out_queries = list(queries(rows.data, held_out, model))
    baseline = QuestionLookup.fit(learnable(data.rows("train"))).answer(held_out_queries, card.decoding)
    guarded = _answers(model, card, reference, held_out_queries)
    table = reliability(held_out, guarded, baseline, reference)
    card = card.model_copy(update={"reliability": tuple(table)})
    passed = _answers(model, card, reference, held_out_queries)
    changes = {
        "calibration": _thresholds(calibration, held_out, passed, reference, risk),
        "files": _saved(reference, bundle, card),
    }
    write_bundle_card(bundle, card.model_copy(update=changes))


def store_reference_set(bundle: Path, root: Path | None) -> BundleCard:
    """Build the reference set of a bundle from its training rows and store it; the card's thresholds stay as they are.

    Args:
        bundle: The bundle; a model without a picture has no reference set.
        root: Folder of prepared datasets; None for the default one.

    Returns:
        The card as it is then stored.
    """
    model, card = load_model(bundle, "cpu")
    if model.picture is None or card.data is None:
        return card
    data = SelectedDataset.open(card.data.selection.model_copy(update={"root": root}))
    changed = card.model_copy(update={"files": _saved(build_reference_set(model, data), bundle, card)})
    write_bundle_card(bundle, changed)
    return changed


def _saved(reference: ReferenceSet, bundle: Path, card: BundleCard) -> dict[str, str]:
    """Write the reference set into its bundle; returns the digests of all files for the card."""
    reference.save(bundle)
    digests = {name: sha256_file(bundle / name) for name in (ARRAYS_FILE, NAMES_FILE)}
    return dict(sorted({**card.files, **digests}.items()))


def _answers(
    model: VqaModel, card: BundleCard, reference: ReferenceSet, held_out_queries: Sequence[Query]
) -> list[GuardedAnswer]:
    """Guarded answers without any threshold of the confidence."""
    calibration = card.calibration and card.calibration.model_copy(
        update={"threshold": None, "finding_threshold": None}
    )
    guards = Guards(model, card.model_copy(update={"calibration": calibration}), reference)
    answers: list[GuardedAnswer] = []
    for start in range(0, len(held_out_queries), _BATCH):
        answers += guards.answer(
            [held_out_queries[number] for number in range(start, min(start + _BATCH, len(held_out_queries)))],
            suggest=False,
        )
    return answers


def _thresholds(
    calibration: ConfidenceCalibration,
    examples: Sequence[Example],
    answers: Sequence[GuardedAnswer],
    reference: ReferenceSet,
    risk: float,
) -> ConfidenceCalibration:
    """The calibration with thresholds for the answers that pass the guards; findings have one of their own.

    Both keep the risk with 95 % confidence (`choose_threshold`); where no threshold of findings does, none is answered.
    """
    findings: list[tuple[float, bool, str]] = []
    others: list[tuple[float, bool, str]] = []
    for example, answer in zip(examples, answers, strict=True):
        confidence = answer.prediction.confidence
        if confidence is not None and not answer.abstention.abstained:
            group = findings if reference.asks_for_finding(example.question) else others
            group.append((confidence, is_right(answer.prediction, example), example.group))
    rule, rule_of_findings = choose_threshold(others, risk), choose_threshold(findings, risk)
    finding = rule_of_findings.threshold if rule_of_findings else 1.0
    answered = sum(c >= rule.threshold for c, *_ in others) if rule else 0
    answered += sum(c >= finding for c, *_ in findings)
    return calibration.model_copy(
        update={
            "threshold": stored_threshold(rule.threshold) if rule else None,
            "coverage": round(answered / len(examples), 4),
            "finding_threshold": stored_threshold(finding),
        }
    )


def reliability(
    examples: Sequence[Example],
    answers: Sequence[GuardedAnswer],
    baseline: Sequence[Prediction],
    reference: ReferenceSet,
) -> list[TypeReliability]:
    """Reliability rows by modality and question type, and by modality and finding.

    Questions for findings count where the picture moves the answer: the others are withheld in any case.
    """
    by_type, by_finding = {}, {}
    for example, answer in zip(examples, answers, strict=True):
        modality = example.facts.get("modality", "")
        if reference.asks_for_finding(example.question) and answer.dependence and not answer.dependence.changes_answer:
            continue
        if question_type := reference.question_type(example.question):
            by_type[example.id] = f"{modality}, {question_type}"
        if finding := reference.finding(example.question):
            by_finding[example.id] = f"{modality}, {finding}"
    predictions: Mapping[str, Prediction] = {answer.prediction.id: answer.prediction for answer in answers}
    without_picture = {prediction.id: prediction for prediction in baseline}
    return [
        *reliability_rows(examples, predictions, without_picture, by_type, kind="question type"),
        *reliability_rows(examples, predictions, without_picture, by_finding, kind="finding"),
    ]


def _reference_features(
    points: NDArray[np.float32] | None, types: NDArray[np.int64], names: Sequence[str]
) -> ReferenceFeatures | None:
    """What pictures are compared by; None for too few pictures, or those of a family without features.

    Args:
        points: Features of the training pictures (N, D).
        types: (N,) index into `names` of each picture.
        names: Names of the image types.
    """
    if points is None or len(points) < FEWEST_PICTURES:
        return None
    modalities = Counter(modality_of(name) for name in names)
    unseen = [np.flatnonzero(types == n) for n, name in enumerate(names) if modalities[modality_of(name)] > 1]
    few_enough = [group for group in unseen if len(points) - len(group) >= FEWEST_PICTURES]
    return ReferenceFeatures.fit(points, unseen_types=few_enough)


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
    """Feature vectors (N, D) of the pictures; None for a family of whose pictures there are none."""
    vectors = []
    for start in range(0, len(visuals), _BATCH):
        part = visuals[start : start + _BATCH]
        if model.vision is not None:
            fresh = iter(model.vision.encode([v for v in part if isinstance(v, np.ndarray)]))
            part = [next(fresh) if isinstance(v, np.ndarray) else v for v in part]
        vectors += [visual_features(visual) for visual in part]
    known = [vector for vector in vectors if vector is not None]
    return np.stack(known) if known and len(known) == len(vectors) else None

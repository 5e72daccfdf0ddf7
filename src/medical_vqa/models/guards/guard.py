"""The guards together: every answer of every family passes through `Guards.answer` before it is shown.

In this order: the picture, the question's scope (the family's own), contradictions, the reliability of the question's
type, image dependence, and the confidence threshold. What a bundle lacks (reference set, reliability rows) is skipped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from medical_vqa.data.imaging.picture_statistics import PictureStatistics
from medical_vqa.models.base import Query, VqaModel
from medical_vqa.models.guards.abstention import AbstentionDecision, abstention_decision, calibrated
from medical_vqa.models.guards.contradiction import contradict, opposite
from medical_vqa.models.guards.image_dependence import ImageDependence, Source, answer_source, image_dependence
from medical_vqa.models.guards.picture import (
    MODALITY_NAMES,
    PictureReason,
    header_reason,
    picture_features,
    statistics_reason,
)
from medical_vqa.models.guards.reasons import sentence
from medical_vqa.models.guards.reference import KNOWLEDGE_TYPES, ReferenceSet
from medical_vqa.models.guards.sides import Side, meant_side
from medical_vqa.schema.bundle_card import BundleCard, TypeReliability
from medical_vqa.schema.records import Prediction

if TYPE_CHECKING:
    from medical_vqa.models.base import Visual

_ALTERNATIVES = 20
"""Alternatives that a distribution over answers is read from."""
_MODALITY_QUESTION = "What modality is used to take this image?"


@dataclass(frozen=True, slots=True)
class PictureContext:
    """What is known of a picture apart from its pixels."""

    statistics: PictureStatistics | None = None
    """Statistics of the decoded picture; None where it was not measured."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Header facts: Modality, BodyPartExamined ..."""


@dataclass(frozen=True, slots=True)
class GuardedAnswer:
    """An answer, whether to show it, and what it rests on."""

    prediction: Prediction
    """The answer, its confidence calibrated."""
    abstention: AbstentionDecision
    """Whether to show it."""
    dependence: ImageDependence | None = None
    """How much the picture moved it; None where that was not measured."""
    source: Source | None = None
    """Where it comes from; None where that was not measured."""
    side: Side | None = None
    """Whose left or right it names."""


class Guards:
    """Answers questions with a model, and withholds what the picture does not support."""

    def __init__(self, model: VqaModel, card: BundleCard, reference: ReferenceSet | None = None) -> None:
        self.model = model
        self.card = card
        self.reference = reference
        self._reference_visuals: dict[str, list[Visual]] = {}

    @classmethod
    def load(cls, model: VqaModel, card: BundleCard, bundle: Path | None) -> Self:
        """The guards of a bundle; None for a model without one. Raises `BundleError` when its files are damaged."""
        return cls(model, card, ReferenceSet.load(bundle) if bundle is not None else None)

    def answer(
        self, queries: Sequence[Query], contexts: Mapping[str, PictureContext] | None = None
    ) -> list[GuardedAnswer]:
        """Answer queries; `contexts` maps a query's ``image`` to what is known of that picture."""
        queries = self._encoded(queries)
        images = {query.image: query.visual for query in queries}
        types = {image: self._image_type(visual) for image, visual in images.items()}
        opposites = [opposite(query.question) for query in queries]
        asked = [dataclasses.replace(q, question=o) if o else None for q, o in zip(queries, opposites, strict=True)]
        references = [self._reference_queries(query, types[query.image]) for query in queries]
        batch = [*queries, *(q for q in asked if q), *(q for group in references for q in group)]
        decoding = self.card.decoding.model_copy(update={"alternatives": _ALTERNATIVES})
        answers = iter(self.model.answer(batch, decoding))
        own = [next(answers) for _ in queries]
        opposite_answers = [next(answers) if q else None for q in asked]
        reference_answers = [[next(answers) for _ in group] for group in references]
        reasons = {
            image: self._picture_reason(visual, (contexts or {}).get(image, PictureContext()), own_query)
            for own_query in queries
            for image, visual in [(own_query.image, own_query.visual)]
        }
        return [
            self._guarded(query, prediction, others, (text, other), reasons[query.image], types[query.image])
            for query, prediction, others, text, other in zip(
                queries, own, reference_answers, opposites, opposite_answers, strict=True
            )
        ]

    def _guarded(
        self,
        query: Query,
        prediction: Prediction,
        reference_answers: Sequence[Prediction],
        opposite_of: tuple[str | None, Prediction | None],
        picture_reason: PictureReason | None,
        image_type: str,
    ) -> GuardedAnswer:
        answer = calibrated(prediction, self.card)
        answer = dataclasses.replace(answer, alternatives=answer.alternatives[: self.card.decoding.alternatives])
        dependence = image_dependence(prediction, reference_answers)
        source = answer_source(dependence, about_image=self._question_type(query).lower() not in KNOWLEDGE_TYPES)
        decision = abstention_decision(self.model, self.card, query, answer)
        low_confidence = decision.code == "low_confidence"
        if picture_reason is not None:
            decision = _abstain(picture_reason.code, picture_reason.arguments)
        elif not decision.abstained or low_confidence:
            decision = self._finding_decision(query, answer, dependence, opposite_of, image_type) or decision
        return GuardedAnswer(answer, decision, dependence, source, meant_side(answer.answer))

    def _finding_decision(
        self,
        query: Query,
        answer: Prediction,
        dependence: ImageDependence | None,
        opposite_of: tuple[str | None, Prediction | None],
        image_type: str,
    ) -> AbstentionDecision | None:
        text, other = opposite_of
        if text is not None and other is not None and contradict(answer.answer, other.answer):
            return _abstain("contradiction", {"opposite": text, "answer": answer.answer})
        if self.reference is None or not self.reference.asks_for_finding(query.question):
            return None
        if (row := self._unreliable(query, image_type)) is not None:
            return _abstain("type_not_reliable", _reliability_arguments(row))
        if dependence is not None and not dependence.moved:
            return _abstain("picture_does_not_matter", {})
        return None

    def _unreliable(self, query: Query, image_type: str) -> TypeReliability | None:
        """The row of the question's finding or type on this modality that is not above its baseline."""
        if self.reference is None:
            return None
        modality = image_type.partition(", ")[0]
        names = {
            "finding": f"{modality}, {self.reference.finding(query.question)}",
            "question type": f"{modality}, {self.reference.question_type(query.question)}",
        }
        rows = [row for row in self.card.reliability if names.get(row.kind) == row.name]
        return next((row for row in rows if not row.above_baseline), None)

    def _picture_reason(self, visual: Visual, context: PictureContext, query: Query) -> PictureReason | None:
        """Why the picture cannot be asked about; None where nothing speaks against it."""
        if self.model.picture is None:
            return None
        trained = self.reference.modalities if self.reference else ()
        if context.statistics is not None and (reason := statistics_reason(context.statistics)) is not None:
            return dataclasses.replace(reason, arguments={"trained": ", ".join(trained) or "radiology pictures"})
        if (reason := header_reason(context.facts, trained)) is not None:
            return reason
        feature = _feature(visual)
        features = self.reference.features if self.reference else None
        if features is not None and feature is not None and features.distances(feature[None])[0] > features.threshold:
            return PictureReason("not_radiology_features")
        return self._contradicts_header(context, query)

    def _contradicts_header(self, context: PictureContext, query: Query) -> PictureReason | None:
        modality = context.facts.get("Modality", "").strip().upper()
        named = MODALITY_NAMES.get(modality)
        if named is None or self.reference is None or len(self.reference.modalities) < 2:
            return None
        probe = dataclasses.replace(query, question=_MODALITY_QUESTION)
        answer = self.model.answer([probe], self.card.decoding)[0].answer
        known = {name.lower() for name in self.reference.modalities}
        if answer.lower() in known and answer.lower() != named:
            return PictureReason("modality_contradicts_header", {"modality": modality, "answer": answer})
        return None

    def _question_type(self, query: Query) -> str:
        return self.reference.question_type(query.question) if self.reference else ""

    def _image_type(self, visual: Visual) -> str:
        feature = _feature(visual)
        return self.reference.image_type(feature) if self.reference is not None and feature is not None else ""

    def _reference_queries(self, query: Query, image_type: str) -> list[Query]:
        visuals = self._visuals_of(image_type)
        return [
            dataclasses.replace(query, image=f"reference/{image_type}/{number}", visual=visual)
            for number, visual in enumerate(visuals)
        ]

    def _visuals_of(self, image_type: str) -> list[Visual]:
        """The reference pictures of a type as the model receives them, encoded once."""
        if image_type not in self._reference_visuals:
            pictures = self.reference.pictures.get(image_type, ()) if self.reference else ()
            visuals: list[Visual] = list(pictures)
            if visuals and self.model.vision is not None:
                visuals = list(self.model.vision.encode(list(pictures)))
            self._reference_visuals[image_type] = visuals
        return self._reference_visuals[image_type]

    def _encoded(self, queries: Sequence[Query]) -> list[Query]:
        """The queries with features in place of pictures, where the model encodes an image once for all questions."""
        if self.model.vision is None:
            return list(queries)
        pictures = {q.image: q.visual for q in queries if isinstance(q.visual, np.ndarray)}
        features = dict(zip(pictures, self.model.vision.encode(list(pictures.values())), strict=True))
        return [dataclasses.replace(q, visual=features.get(q.image, q.visual)) for q in queries]


def _abstain(code: str, arguments: Mapping[str, str]) -> AbstentionDecision:
    return AbstentionDecision(True, sentence(code, arguments), code, dict(arguments))


def _feature(visual: Visual) -> Any:
    """The vector that the picture guard compares; None where the visual is a picture or has no tokens."""
    tokens = None if isinstance(visual, np.ndarray) else visual.get("tokens")
    return None if tokens is None else picture_features(np.asarray(tokens))


def _reliability_arguments(row: TypeReliability) -> dict[str, str]:
    return {
        "type": row.name,
        "accuracy": f"{row.accuracy:.0%}",
        "baseline": f"{row.baseline_accuracy:.0%}",
        "questions": str(row.questions),
        "auc": "" if row.auc is None else f", AUC {row.auc:.2f}",
    }

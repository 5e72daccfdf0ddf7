"""What a picture is: its type, modality and body part, and whether it is one that the model was trained on."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

import numpy as np
from cachetools import LRUCache

from medical_vqa.data.imaging.picture_statistics import PictureContext
from medical_vqa.errors import BundleError
from medical_vqa.models.base import Query, VqaModel
from medical_vqa.models.guards.pictures.picture import (
    GRAY_MODALITIES,
    MODALITY_NAMES,
    PictureReason,
    header_reason,
    statistics_reason,
    visual_features,
)
from medical_vqa.models.guards.pictures.reference import ReferenceSet
from medical_vqa.models.guards.steps import Steps
from medical_vqa.models.questions.image_kind import BODY_PART_QUESTION
from medical_vqa.schema.bundle_card import BundleCard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from medical_vqa.models.base import Visual
    from medical_vqa.schema.records import Prediction

_CACHED_PICTURES = 1024
"""Pictures whose image type and distance to the training pictures are kept."""
_MODALITY_QUESTION = "What modality is used to take this image?"


class PictureComparison:
    """Compares pictures with the training pictures of a bundle."""

    def __init__(self, model: VqaModel, card: BundleCard, reference: ReferenceSet | None) -> None:
        """Set what is compared with.

        Args:
            model: Is asked what a picture shows.
            card: Card of its bundle.
            reference: Training pictures; None for a bundle without them.
        """
        self._model = model
        self._card = card
        self._reference = reference
        self.steps = Steps()
        self._compared: LRUCache[bytes, tuple[str, bool]] = LRUCache(_CACHED_PICTURES)
        self._body_parts: LRUCache[bytes, dict[str, Prediction]] = LRUCache(_CACHED_PICTURES)

    def image_type(self, visual: Visual) -> str:
        """The type of the nearest training pictures; empty without features."""
        return self._compare(visual)[0]

    def reason(self, visual: Visual, context: PictureContext) -> PictureReason | None:
        """Why a picture cannot be asked about; None where nothing speaks against it."""
        if self._model.picture is None or self._reference is None:
            return None
        trained = self._reference.modalities
        if context.statistics is not None:
            gray_only = {name.lower() for name in trained} <= GRAY_MODALITIES
            if (reason := statistics_reason(context.statistics, gray_only=gray_only)) is not None:
                return dataclasses.replace(reason, arguments={"trained": ", ".join(trained) or "other pictures"})
        if (reason := header_reason(context.facts, trained)) is not None:
            return reason
        if self._compare(visual)[1]:
            return PictureReason("not_radiology_features")
        return self._contradicts_header(context, visual)

    def _contradicts_header(self, context: PictureContext, visual: Visual) -> PictureReason | None:
        modality = context.facts.get("Modality", "").strip().upper()
        named = MODALITY_NAMES.get(modality)
        if named is None or self._reference is None or len(self._reference.modalities) < 2:
            return None
        answer = self._modality(visual)
        known = {name.lower() for name in self._reference.modalities}
        if answer.lower() in known and answer.lower() != named:
            return PictureReason("modality_contradicts_header", {"modality": modality, "answer": answer})
        return None

    def _compare(self, visual: Visual) -> tuple[str, bool]:
        """Image type of a picture, and whether it is unlike all training pictures; empty and False without features."""
        if self._reference is None or self._reference.features is None:
            return "", False
        feature = visual_features(visual)
        if feature is None:
            return "", False
        features = self._reference.features
        if len(feature) != len(features.mean):
            raise BundleError(
                f"the reference set of {self._card.name} compares {len(features.mean)} features and the "
                f"model has {len(feature)}, so that it is of another model; run `medical-vqa calibrate` for this one"
            )
        key = feature.tobytes()
        if key not in self._compared:
            unlike = bool(features.distances(feature[None])[0] > features.threshold)
            compared = self._reference.image_type(feature, self._modality(visual)), unlike
            self._compared[key] = compared
            return compared
        return self._compared[key]

    def _modality(self, visual: Visual) -> str:
        """What the model takes the picture's modality for; empty where it was trained on one, or a question costs."""
        if self._reference is None or len(self._reference.modalities) < 2 or self._model.usage is not None:
            return ""
        probe = Query("modality", _MODALITY_QUESTION, "modality", visual)
        (answer,) = self.steps.run(lambda part: self._model.answer(part, self._card.decoding), [probe])
        return answer.answer

    def body_part(self, query: Query) -> str:
        """What the model takes the picture of a query for, in its own words; empty where it sees none."""
        answers = self.body_part_answers(query, [BODY_PART_QUESTION])
        return answers[BODY_PART_QUESTION].answer if answers else ""

    def body_part_answers(self, query: Query, questions: Sequence[str]) -> Mapping[str, Prediction]:
        """What the model answers to questions for the body part of the picture of a query; nothing where it sees none.

        Args:
            query: Any question about the picture.
            questions: The questions for its body part, each of which is asked once of a picture.
        """
        if self._model.picture is None:
            return {}
        if not isinstance(query.visual, np.ndarray) and visual_features(query.visual) is None:
            return {}
        answers = self._body_parts.setdefault(_visual_key(query.visual), {})
        missing = [query.alone(text) for text in questions if text not in answers]
        fresh = self.steps.run(lambda part: self._model.answer(part, self._card.decoding), missing)
        answers |= {probe.question: answer for probe, answer in zip(missing, fresh, strict=True)}
        return {text: answers[text] for text in questions}


def _visual_key(visual: Visual) -> bytes:
    """Equal for equal pictures."""
    if isinstance(visual, np.ndarray):
        return hashlib.sha256(visual.tobytes()).digest()
    features = visual_features(visual)
    return b"" if features is None else features.tobytes()

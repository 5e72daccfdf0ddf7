"""An answer as the guards let it through."""

from __future__ import annotations

from dataclasses import dataclass

from medical_vqa.models.guards.abstention import AbstentionDecision
from medical_vqa.models.guards.pictures.image_dependence import ImageDependence, Source
from medical_vqa.models.guards.sides import Side
from medical_vqa.schema.evidence import Evidence
from medical_vqa.schema.records import Prediction


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
    evidence: tuple[Evidence, ...] = ()
    """Where the model localizes what the question or the answer names; nothing where it abstains."""
    raw: Prediction | None = None
    """The model's own answer, with the confidence and alternatives that it gave."""

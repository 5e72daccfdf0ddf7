"""When a model abstains: below its confidence threshold, or of a question that it does not understand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from medical_vqa.models.base import Query, VqaModel
from medical_vqa.models.calibration import temperature_scaled
from medical_vqa.models.guards.reasons import sentence
from medical_vqa.models.questions.reasons import Reason
from medical_vqa.schema.bundle_card import BundleCard
from medical_vqa.schema.records import Prediction


@dataclass(frozen=True, slots=True)
class AbstentionDecision:
    """Whether an answer should be given at all."""

    abstained: bool
    """Whether the model abstains."""
    reason: str | None = None
    """One sentence for the person who asked; None when it answers."""
    code: str | None = None
    """The reason for programs: a code of `guards.reasons`, or ``question_scope`` for a sentence of a family's own; None
    likewise."""
    arguments: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Values that the sentence names."""
    suggestions: tuple[str, ...] = ()
    """Questions near in meaning that the model answers about the same picture, at most three; none when it answers."""


def abstain(code: str, arguments: Mapping[str, str]) -> AbstentionDecision:
    """Abstain for a reason of `guards.reasons` with the values that its sentence names."""
    return AbstentionDecision(True, sentence(code, arguments), code, dict(arguments))


def calibrated(answer: Prediction, card: BundleCard) -> Prediction:
    """The answer with the confidence that the bundle's temperature makes of the model's own."""
    if answer.confidence is None or card.calibration is None:
        return answer
    return dataclasses.replace(answer, confidence=temperature_scaled(answer.confidence, card.calibration.temperature))


def abstention_decision(
    model: VqaModel, card: BundleCard, query: Query, prediction: Prediction, *, finding: bool = False
) -> AbstentionDecision:
    """Abstain where the question is out of scope, or its calibrated confidence is below the bundle's threshold.

    `prediction.confidence` is the calibrated one (`calibrated`).
    """
    reason = model.abstention_reason(query, prediction)
    if reason is not None:
        if isinstance(reason, Reason):
            return AbstentionDecision(True, str(reason), reason.code, dict(reason.arguments))
        return AbstentionDecision(True, reason, "question_scope")
    calibration, confidence = card.calibration, prediction.confidence
    if calibration is None or confidence is None:
        return AbstentionDecision(False)
    threshold = calibration.threshold
    if finding and calibration.finding_threshold is not None:
        threshold = calibration.finding_threshold
    if threshold is None or confidence >= threshold:
        return AbstentionDecision(False)
    arguments = {"confidence": f"{confidence:.0%}", "threshold": f"{threshold:.0%}", "risk": f"{calibration.risk:.0%}"}
    code = "low_confidence" if threshold < 1 else "never_sure_enough"
    return abstain(code, arguments)

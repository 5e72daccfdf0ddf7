"""Yes or no about the kind of a picture, as it follows from what kind the model says that it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from medical_vqa.models.questions.image_kind import follows, kind_claims, yes_or_no
from medical_vqa.schema.records import Prediction


def following_kind(question: str, prediction: Prediction, related: Mapping[str, Prediction]) -> Prediction:
    """The answer to whether a picture is of some kind, as it follows from what kind the model says that it is.

    Args:
        question: The question; another than of `kind_claims` keeps its answer.
        prediction: The model's answer to it.
        related: Its answers to related questions.
    """
    claims = kind_claims(question)
    open_answers = {
        claim.open_question: related[claim.open_question] for claim in claims if claim.open_question in related
    }
    yes = follows(claims, {text: one.answer for text, one in open_answers.items()})
    if yes is None or (answer := yes_or_no(yes, prediction.answer)) is None:
        return prediction
    known = [one.confidence for one in open_answers.values() if one.confidence is not None]
    confidence = min(known) if known else None
    other = yes_or_no(not yes, prediction.answer)
    alternatives = () if confidence is None or other is None else ((other, 1 - confidence),)
    return dataclasses.replace(prediction, answer=answer, confidence=confidence, alternatives=alternatives)

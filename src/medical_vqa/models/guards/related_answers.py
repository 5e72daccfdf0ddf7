"""Yes or no where another wording of the question decides: what kind a picture is, and whether it shows an organ."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from medical_vqa.models.questions.claims import is_no, is_yes
from medical_vqa.models.questions.image_kind import follows, kind_claims, yes_or_no
from medical_vqa.models.questions.presence import presence_wording
from medical_vqa.schema.records import Prediction


def decisive_questions(question: str) -> tuple[str, ...]:
    """The related questions from whose answers that to a question follows (`following_related`)."""
    wording = presence_wording(question)
    return (*(claim.open_question for claim in kind_claims(question)), *((wording,) if wording is not None else ()))


def following_related(question: str, prediction: Prediction, related: Mapping[str, Prediction]) -> Prediction:
    """The answer to a question, as it follows from those to related ones that the model answers better.

    Whether a picture is of some kind follows from what kind the model says that it is, and whether an organ is in the
    picture from the wording that training asks most, where the model is surer of that.

    Args:
        question: The question; any other than these keeps its answer.
        prediction: The model's answer to it.
        related: Its answers to related questions.
    """
    claims = kind_claims(question)
    deciding = {claim.open_question: related[claim.open_question] for claim in claims if claim.open_question in related}
    yes = follows(claims, {text: one.answer for text, one in deciding.items()})
    if yes is not None:
        return _with_answer(prediction, yes, [one.confidence for one in deciding.values()])
    same = related.get(presence_wording(question) or "")
    if (
        same is None
        or (same.confidence or 0) <= (prediction.confidence or 0)
        or not (is_yes(same.answer) or is_no(same.answer))
    ):
        return prediction
    return _with_answer(prediction, is_yes(same.answer), [same.confidence])


def disagrees(answer: str, other_answer: str) -> bool:
    """Whether one of two answers is yes and the other no."""
    return (is_yes(answer) and is_no(other_answer)) or (is_no(answer) and is_yes(other_answer))


def _with_answer(prediction: Prediction, yes: bool, confidences: Sequence[float | None]) -> Prediction:
    """A prediction with another yes or no, in its own words; the same one where it is neither."""
    answer, other = (yes_or_no(one, prediction.answer) for one in (yes, not yes))
    if answer is None or other is None:
        return prediction
    known = [confidence for confidence in confidences if confidence is not None]
    alternatives = ((other, 1 - min(known)),) if known else ()
    return dataclasses.replace(
        prediction, answer=answer, confidence=min(known) if known else None, alternatives=alternatives
    )

"""Answers where another question decides: what kind a picture is, and whether it shows an organ."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

from medical_vqa.models.questions.claims import is_no, is_yes
from medical_vqa.models.questions.form import asks_yes_or_no
from medical_vqa.models.questions.image_kind import (
    BODY_PART_QUESTION,
    KindClaim,
    closed_questions,
    follows,
    kind_attributes,
    kind_choice,
    kind_claims,
    kind_named,
    kind_question,
    presupposed_kind,
    yes_or_no,
)
from medical_vqa.models.questions.presence import (
    PresenceClaim,
    largest_organ_question,
    names_as_largest,
    names_organ,
    presence_claims,
    presence_wording,
)
from medical_vqa.models.questions.value_claims import ValueClaim, value_claims
from medical_vqa.schema.records import Prediction

_SURE_OF_KIND = 0.85
"""Calibrated confidence from which the kind of a picture needs no confirmation. Below it are 9 of the kinds of 162
pictures that the measured model never saw, and most of those that it gets wrong on pictures of another source."""


def claims_of(question: str) -> Sequence[KindClaim | ValueClaim | PresenceClaim]:
    """What a yes or no question says that the answer to other questions is; empty for others."""
    return kind_claims(question) or value_claims(question) or presence_claims(question)


def decisive_questions(question: str) -> tuple[str, ...]:
    """The related questions from whose answers that to a question follows (`following_related`)."""
    wording, choice = presence_wording(question), kind_choice(question)
    return (
        *(claim.open_question for claim in claims_of(question)),
        *((choice.open_question,) if choice is not None else ()),
        *((wording,) if wording is not None else ()),
    )


def free_wording_questions(question: str) -> tuple[str, ...]:
    """Further related questions of a wording that training has not: its answer follows from theirs, or agrees."""
    kind, largest = kind_question(question), largest_organ_question(question)
    return (*((kind.open_question,) if kind is not None else ()), *((largest,) if largest is not None else ()))


def confirming_questions(question: str) -> tuple[str, ...]:
    """Further related questions, whose answers confirm what kind of picture an answer is about (`unconfirmed`)."""
    return tuple(text for attribute in kind_attributes(question) for text in closed_questions(attribute))


def following_related(question: str, prediction: Prediction, related: Mapping[str, Prediction]) -> Prediction:
    """The answer to a question, as it follows from those to related ones that the model answers better.

    Whether a picture is of some kind, or of which of several, follows from what kind the model says that it is, and
    whether an organ is in the picture from the wording that training asks most, where the model is surer of that.

    Args:
        question: The question; any other than these keeps its answer.
        prediction: The model's answer to it.
        related: Its answers to related questions.
    """
    claims = claims_of(question)
    deciding = {claim.open_question: related[claim.open_question] for claim in claims if claim.open_question in related}
    yes = follows(claims, {text: one.answer for text, one in deciding.items()})
    if yes is not None:
        known = [one.confidence for one in deciding.values() if one.confidence is not None]
        confidence = min(known) if known else None
        other = yes_or_no(not yes, question)
        alternatives = ((other, 1 - confidence),) if confidence is not None and confidence > 0.5 else ()
        answer = yes_or_no(yes, question)
        return dataclasses.replace(prediction, answer=answer, confidence=confidence, alternatives=alternatives)
    choice, kind = kind_choice(question), kind_question(question)
    open_question = choice.open_question if choice is not None else kind.open_question if kind is not None else None
    same = related.get(open_question or presence_wording(question) or "")
    largest = related.get(largest_organ_question(question) or "")
    if largest is not None and names_as_largest(question, largest.answer):
        answer = yes_or_no(True, question)
        return dataclasses.replace(prediction, answer=answer, confidence=largest.confidence, alternatives=())
    if same is None:
        return prediction
    if choice is not None:
        decides = kind_named(same.answer, choice.attribute) in choice.values
    elif kind is not None:
        decides = kind_named(same.answer, kind.attribute) is not None
    else:
        surer = names_organ(question) is not None or (same.confidence or 0) > (prediction.confidence or 0)
        decides = surer and (is_yes(same.answer) or is_no(same.answer))
    if not decides:
        return prediction
    text, others = same.answer, same.alternatives
    if choice is None and kind is None and asks_yes_or_no(question):  # ``这是肝吗?`` is answered by 是的, not by 包含
        text = yes_or_no(is_yes(same.answer), question)
        others = others if text == same.answer else ()
    return dataclasses.replace(prediction, answer=text, confidence=same.confidence, alternatives=others)


def leaves_no_answer(question: str, text: str, answer: str) -> bool:
    """Whether the answer to a related question leaves none to a question.

    The question takes the picture to be of another kind than the model says that it is (``What plane is this MRI?`` of
    a CT), offers other kinds to choose from, or names a value where the model gives none.

    Args:
        question: The question.
        text: One of its related questions.
        answer: The answer to that.
    """
    claims = [claim for claim in value_claims(question) if claim.open_question == text]
    if claims:
        return any(claim.yes(answer) is None for claim in claims)
    choice = kind_choice(question)
    if choice is not None and text == choice.open_question:
        return kind_named(answer, choice.attribute) not in choice.values
    attribute, values = presupposed_kind(question).get(text, (None, frozenset()))
    named = kind_named(answer, attribute) if attribute is not None else None
    return named is not None and named not in values


def unconfirmed(question: str, answer: Prediction, related: Mapping[str, Prediction]) -> tuple[str, str] | None:
    """The question for a kind, and its answer, that speak against the kind of an answer's picture; None for none.

    Of a picture unlike those of training, the open question for its modality or body part gets an answer too, which is
    less sure than of a picture like them. Then the picture must be of that kind alone when each is asked for by itself;
    for a no to one kind (``Is this the chest?`` of a head) that one must get a no, and any other modality a yes, of
    which training asks more than of body parts.

    Args:
        question: The question.
        answer: Its answer.
        related: Answers to its related questions, with calibrated confidence as that of `answer`.
    """
    claimed = {claim.attribute: claim.value for claim in kind_claims(question)}
    for attribute, open_question in kind_attributes(question).items():
        open_answer = related.get(open_question, answer)
        named = kind_named(open_answer.answer, attribute)
        if named is None or open_answer.confidence is None or open_answer.confidence >= _SURE_OF_KIND:
            continue
        denied = claimed.get(attribute, named)
        closed = {text: value for text, value in closed_questions(attribute).items() if text in related}
        none_confirmed = attribute == "modality" and not any(is_yes(related[text].answer) for text in closed)
        for text, value in closed.items():
            compared = denied in (named, value) or (none_confirmed and value == named)
            if compared and is_yes(related[text].answer) != (value == named):
                return text, related[text].answer
    return None


class StatedBodyPart(NamedTuple):
    """The body part that a picture is of by a model's own answers."""

    value: str
    """The body part: ``head``."""
    question: str
    """Question whose answer says so."""
    answer: str
    """The answer."""


def body_part_questions(bank: Container[str]) -> tuple[str, ...]:
    """The open question for the body part of a picture and those for each by itself, of those that training asks."""
    return tuple(text for text in (BODY_PART_QUESTION, *closed_questions("body part")) if text in bank)


def stated_body_part(answers: Mapping[str, Prediction]) -> StatedBodyPart | None:
    """The body part that a picture is of by the surest of a model's answers; None where none names one.

    Of heads unlike those of training the open answer mostly names another body part, and is then less sure than the yes
    to the question for the head alone.

    Args:
        answers: Answers to the `body_part_questions`, with calibrated confidence.
    """
    named: dict[str, str] = {}
    open_answer = answers.get(BODY_PART_QUESTION)
    if open_answer is not None and (value := kind_named(open_answer.answer, "body part")) is not None:
        named[BODY_PART_QUESTION] = value  # the first, which decides where another is as sure
    closed = closed_questions("body part")
    named |= {text: part for text, part in closed.items() if text in answers and is_yes(answers[text].answer)}
    if not named:
        return None
    surest = max(named, key=lambda text: answers[text].confidence or 0.0)
    return StatedBodyPart(named[surest], surest, answers[surest].answer)


def disagrees(answer: str, other_answer: str) -> bool:
    """Whether one of two answers is yes and the other no."""
    return (is_yes(answer) and is_no(other_answer)) or (is_no(answer) and is_yes(other_answer))

"""Which alternatives of an answer may be listed: those of the type of answer that the question asks for."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from medical_vqa.models.questions.aspects import asked_aspect
from medical_vqa.models.questions.form import asks_openly
from medical_vqa.models.questions.presence import takes_yes_or_no
from medical_vqa.text import squad_normalize

if TYPE_CHECKING:
    from medical_vqa.models.questions.bank import QuestionBank
    from medical_vqa.schema.records import Prediction

LEAST_PROBABILITY = 0.02
"""Alternatives that are less probable are not listed."""
_YES_NO_TEXT = """
yes no 是 否 是的 不是 有 没有 无 存在 不存在 包含 不包含 包括 不包括 可以 不可以 健康 不健康 正常 不正常
"""
YES_NO = frozenset(_YES_NO_TEXT.split())
"""Answers to a question for yes or no, normalized, in English and in SLAKE's Chinese."""


_YES_OR_NO_ALONE = frozenset(("yes", "no", "是", "否", "是的", "不是", "可以", "不可以"))
"""Those that answer nothing else: ``无`` is an answer to which diseases a picture shows."""


def of_asked_form(question: str, prediction: Prediction, bank: QuestionBank | None = None) -> Prediction:
    """The prediction, or the best alternative where it has not the form that is asked for.

    A question for yes or no has no other answer, one for what, which or where is not answered by yes or no, and one for
    a plane, a place, a number ... by nothing but an answer that training gave to such a question. Where no alternative
    fits, the prediction is the same with no confidence.

    Args:
        question: The question, as typed.
        prediction: The answer and all alternatives, best first.
        bank: The training questions; None for a model that carries none.
    """
    closed = takes_yes_or_no(question)
    open_ = asks_openly(question) or asked_aspect(question) is not None
    of_aspect = bank.aspect_answers(question) if bank is not None else None

    def fits(answer: str) -> bool:
        text = squad_normalize(answer)
        if closed:
            return text in YES_NO
        return not (open_ and text in _YES_OR_NO_ALONE) and (of_aspect is None or text in of_aspect)

    if fits(prediction.answer):
        return prediction
    rest = [(answer, probability) for answer, probability in prediction.alternatives if fits(answer)]
    if not rest:
        return dataclasses.replace(prediction, confidence=0.0)
    (answer, probability), *others = rest
    return dataclasses.replace(prediction, answer=answer, confidence=probability, alternatives=tuple(others))


def listed_alternatives(question: str, prediction: Prediction, bank: QuestionBank | None = None) -> Prediction:
    """The prediction with those alternatives only that may be listed.

    They are above `LEAST_PROBABILITY`, and: yes or no to a question for that; otherwise an answer to training questions
    of the same type and form, or where no training question is like this one, of a type that has the given answer too.
    What a question offers to choose from is the model's own business, because it restricts the answer as well.

    Args:
        question: The question, as typed.
        prediction: The answer and all alternatives, best first.
        bank: The training questions; None for a model that carries none.
    """
    allowed: frozenset[str] | None = None
    if takes_yes_or_no(question):
        allowed = YES_NO
    elif bank is not None:
        allowed = bank.answers_like(question) or bank.answers_with(prediction.answer)
    listed = tuple(
        (answer, probability)
        for answer, probability in prediction.alternatives
        if probability >= LEAST_PROBABILITY and (allowed is None or squad_normalize(answer) in allowed)
    )
    return dataclasses.replace(prediction, alternatives=listed)

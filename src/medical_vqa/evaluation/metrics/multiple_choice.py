"""Multiple choice: the letter or the text of the right choice, also within a sentence.

A question with choices carries them in two facts: ``options``, a JSON object of letter -> text, and ``choice``, the
letter of the right one.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache

from medical_vqa.evaluation.metrics.base import Mean
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.text import squad_normalize

OPTIONS, CHOICE = "options", "choice"
"""Names of the two facts."""
_LETTER_ALONE = re.compile(r"^\W*\(?([A-Za-z])\)?\s*(?:[.):,\]-]|$)")
_LEAD_IN = re.compile(
    r"(?:(?:final |correct )?answer|(?:correct )?option|(?:correct )?choice)\s*(?:is|:|=)*\s*(?:option|choice)?\s*"
    r"[*\"'(\[]*([A-Z])(?![A-Za-z])",
    re.IGNORECASE,
)


def has_choices(example: Example) -> bool:
    """Whether the question is multiple choice."""
    return OPTIONS in example.facts


def choices_of(example: Example) -> dict[str, str]:
    """Letter -> text of the choices, in order; empty without choices."""
    return _parsed(example.facts.get(OPTIONS, "{}"))


def choice_of(example: Example) -> str:
    """The letter of the right choice; empty where it is not known."""
    return example.facts.get(CHOICE, "")


def multiple_choice(name: str = "choice") -> Mean:
    """The fraction of multiple-choice questions whose right choice, and no other, the answer names."""

    def score(prediction: Prediction, example: Example) -> float | None:
        if not has_choices(example) or not choice_of(example):
            return None
        return float(chosen(prediction.answer, choices_of(example)) == choice_of(example))

    rule = "rows:with choices|letter:alone or after 'answer is'|text:the only choice named|else:wrong|v:1"
    return Mean(name, "multiple choice", rule, score, by_text=True)


def chosen(answer: str, choices: dict[str, str]) -> str | None:
    """The letter that an answer chooses; None where it names none, or several.

    Args:
        answer: ``"B"``, ``"(B) Pneumonia"``, ``"The answer is B."`` or ``"pneumonia"``.
        choices: Letter -> text.
    """
    text = answer.strip()
    normalized = squad_normalize(text)
    equal = [letter for letter, choice in choices.items() if squad_normalize(choice) == normalized]
    if len(equal) == 1:
        return equal[0]
    led: list[str] = [letter.upper() for letter in _LEAD_IN.findall(text) if letter.upper() in choices]
    if led:
        return led[-1]
    alone = _LETTER_ALONE.match(text)
    if alone and alone[1].upper() in choices and (alone[1].isupper() or len(text) <= len(alone[0]) + 1):
        return str(alone[1].upper())
    named = [
        letter
        for letter, choice in choices.items()
        if squad_normalize(choice) and f" {squad_normalize(choice)} " in f" {normalized} "
    ]
    longest = [
        letter
        for letter in named
        if not any(
            letter != other and f" {squad_normalize(choices[letter])} " in f" {squad_normalize(choices[other])} "
            for other in named
        )
    ]
    return longest[0] if len(longest) == 1 else None


@lru_cache(maxsize=1 << 14)
def _parsed(options: str) -> dict[str, str]:
    choices: dict[str, str] = json.loads(options)
    return choices

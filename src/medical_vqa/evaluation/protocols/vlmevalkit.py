"""VLMEvalKit's exact matching of multiple choice: one letter near the end of the text, or the text of one choice."""

from __future__ import annotations

import re
from collections.abc import Mapping

from medical_vqa.evaluation.protocols.base import Context, Protocol, ProtocolMetric
from medical_vqa.evaluation.protocols.choice_rule import choice_metric

_PUNCTUATION = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_LAST_WORDS = 5
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_NO_ANSWER = "Failed to obtain answer via API"
_STATED = re.compile(r"(?:correct\s+)?answer\s+is\s+\**([ABCD])\**", re.IGNORECASE)


def vlmevalkit_choice(text: str, choices: Mapping[str, str]) -> str:
    """The letter that VLMEvalKit infers without a judge; empty where it infers none, or refuses."""
    if _NO_ANSWER not in text:
        letter = _by_letter(text, choices)
        if letter is not None:
            return letter
    return _by_text(text.lower(), choices)


def _by_letter(text: str, choices: Mapping[str, str]) -> str | None:
    """By the only letter among the last words, or "answer is X"; empty for a refusal, None where neither decides."""
    if any(refusal in text for refusal in _REFUSALS):
        return ""
    words = text.translate(_PUNCTUATION).split()
    named = [letter for letter in choices if letter in words]
    if len(named) == 1 and words.index(named[0]) > len(words) - _LAST_WORDS:
        return named[0]
    if not named and "Z" in words:
        return ""
    stated = _STATED.search(text)
    return stated[1].upper() if stated and stated[1].upper() in choices else None


def _by_text(text: str, choices: Mapping[str, str]) -> str:
    """By the only choice whose text is a part of an answer that is not much longer than the choices."""
    if len(text) > 2 * sum(map(len, choices.values())):
        return ""
    contained = [letter for letter, choice in choices.items() if choice.lower() in text]
    return contained[0] if len(contained) == 1 else ""


def _metrics(_: Context) -> tuple[ProtocolMetric, ...]:
    defect = (
        "A choice that is a part of another (no in nodule) makes two, and a letter before the last words is ignored."
    )
    return (choice_metric(vlmevalkit_choice, defect),)


PROTOCOL = Protocol(
    name="vlmevalkit",
    rule="The only letter among the last words, or the only choice whose text occurs; otherwise the answer is wrong.",
    citation="open-compass/VLMEvalKit, vlmeval/utils/matching_util.py (judge: exact_matching)",
    build=_metrics,
    caveat="Numbers with a judge model count what that model read from the texts that this rule leaves open.",
    datasets=("vlmevalkit", "medxpertqa-mm", "omnimedvqa"),
)

"""OmniMedVQA's question-answering score: the choice most similar to the text."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from medical_vqa.evaluation.protocols.base import Context, Protocol, ProtocolMetric
from medical_vqa.evaluation.protocols.choice_rule import choice_metric


def most_similar_choice(text: str, choices: Mapping[str, str]) -> str:
    """The letter of the choice with the highest difflib ratio, the first of equals; empty where none has."""
    best, highest = "", 0.0
    for letter, choice in choices.items():
        ratio = difflib.SequenceMatcher(None, choice, text).ratio()
        if ratio > highest:
            best, highest = letter, ratio
    return best


def omnimedvqa_choice(text: str, choices: Mapping[str, str]) -> str:
    """The most similar choice; of choices with equal texts the first."""
    similar = choices.get(most_similar_choice(text, choices))
    return next((letter for letter, choice in choices.items() if choice == similar), "")


def _metrics(_: Context) -> tuple[ProtocolMetric, ...]:
    defect = "A letter alone, or a text that names no choice, counts as the choice most similar to it, in letters."
    return (choice_metric(omnimedvqa_choice, defect),)


PROTOCOL = Protocol(
    name="omnimedvqa",
    rule="The choice most similar to the text (difflib ratio, case-sensitive) is the answer.",
    citation="OpenGVLab/Multi-Modality-Arena, MedicalEval/Question-answering_Score/utils/medicalqa.py",
    build=_metrics,
    caveat="Its prefix-based score needs the model's likelihood of each choice, which a predictions file lacks.",
    datasets=("omnimedvqa",),
)

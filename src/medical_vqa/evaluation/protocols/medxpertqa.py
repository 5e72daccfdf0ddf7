"""MedXpertQA: the first letter of a choice after the words with which its prompts end."""

from __future__ import annotations

import re
from collections.abc import Mapping

from medical_vqa.evaluation.protocols.base import Context, Protocol, ProtocolMetric
from medical_vqa.evaluation.protocols.choice_rule import choice_metric

_REMOVED = ("I understand", "A through J", "A through E", "A through D")


def medxpertqa_cot(text: str, choices: Mapping[str, str]) -> str:
    """The rule after "Therefore, among A through E, the answer is", the prompt with reasoning."""
    return _first_letter(text, choices, "Therefore, among A through {last}, the answer is")


def medxpertqa_direct(text: str, choices: Mapping[str, str]) -> str:
    """The rule after "Among A through E, the answer is", the prompt without reasoning."""
    return _first_letter(text, choices, "Among A through {last}, the answer is")


def _first_letter(text: str, choices: Mapping[str, str], trigger: str) -> str:
    """The first letter of a choice that is a word, after the trigger, else after " answer is ", else anywhere."""
    text = text.strip()
    last = chr(ord("A") + len(choices) - 1)
    parts = text.split(trigger.format(last=last))
    if len(parts) == 1:
        parts = text.split(" answer is ")
    rest = parts[1].strip() if len(parts) > 1 else text
    for phrase in _REMOVED:
        rest = rest.replace(phrase, "")
    letters = "|".join(chr(ord("A") + number) for number in range(len(choices)))
    first_letter = re.search(rf"\b({letters})\b", rest) if choices else None
    return first_letter[1] if first_letter else ""


def _metrics(_: Context) -> tuple[ProtocolMetric, ...]:
    defect = "The first capital letter that is a word counts, such as the article A; the text of a choice is wrong."
    return (
        choice_metric(medxpertqa_cot, defect),
        choice_metric(medxpertqa_direct, defect, name="choice_direct", label="multiple choice (without reasoning)"),
    )


PROTOCOL = Protocol(
    name="medxpertqa",
    rule="The first letter of a choice after the words of the prompt, or after 'answer is', is the answer.",
    citation="TsinghuaC3I/MedXpertQA, eval/utils.py and eval/main.py (zero-shot)",
    build=_metrics,
    caveat="Its leaderboard reads the letters of two models (QvQ, DeepSeek-R1) in another way.",
    datasets=("medxpertqa-mm",),
)

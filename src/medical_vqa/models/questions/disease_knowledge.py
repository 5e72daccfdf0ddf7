"""Questions about the disease that a picture shows: how it is treated or prevented, its cause, its symptoms.

"How to treat the disease on the left of the lung in this image?" asks for knowledge, but of what the picture shows: it
takes a disease for granted, and its organ too. "What are the symptoms of pneumonia?" is about no picture.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from medical_vqa.models.questions.anatomy import anatomy
from medical_vqa.models.questions.claims import CHINESE_FINDING, FINDING
from medical_vqa.models.questions.form import asks_yes_or_no

Aspect = Literal["treatment", "prevention", "symptoms", "cause"]

_ASPECTS: tuple[tuple[Aspect, re.Pattern[str]], ...] = (
    ("prevention", re.compile(r"\b(?:prevent\w*|avoid(?:ed)?)\b|预防|避免", re.IGNORECASE)),
    ("treatment", re.compile(r"\b(?:treat(?:ed|ment|ments|ing)?|cure[ds]?|therap(?:y|ies))\b|治", re.IGNORECASE)),
    ("symptoms", re.compile(r"\b(?:symptoms?|complaints?)\b|症状", re.IGNORECASE)),
    ("cause", re.compile(r"\b(?:causes?|caused|reasons?)\b|原因|导致|引起|病因", re.IGNORECASE)),
)
_DISEASE = re.compile(rf"{FINDING.pattern}|{CHINESE_FINDING}|疾病", re.IGNORECASE)
_IN_PICTURE = re.compile(
    r"\b(?:this|that|these|those|here|image|picture|scan|photo|radiograph|x-ray|slice|the patient)\b"
    rf"|\bthe (?:(?!of\b)[\w-]+ ){{0,2}}?{FINDING.pattern}"
    r"|图|这|该|患者|病人|片|[左右上下顶底前后中](?:侧|叶|部|方|边|下|上|角)*的?(?:疾病|病变|病灶)",
    re.IGNORECASE,
)
"""The picture, or a disease with the definite article or a place: it is that of the picture."""


_KNOWLEDGE = re.compile(
    r"\b(?:functions?|effects?|roles?|systems?|prevent\w*|treat\w*|cures?|caused?|causes|symptoms?)\b"
    r"|功能|作用|效果|影响|系统|属于|预防|治疗|导致|引起|症状|原因"
)
"""Questions with these words are about an organ or finding in general, whatever the picture shows."""


class DiseaseQuestion(NamedTuple):
    """What a question wants to know of the disease that a picture shows."""

    aspect: Aspect
    """What of the disease."""
    organ: str
    """The first organ or body part that the question names, as in the table of anatomy; empty where it names none."""


def names_picture(question: str) -> bool:
    """Whether a question names the picture, the patient, or a disease that must be that of the picture."""
    return _IN_PICTURE.search(question) is not None


def disease_aspect(question: str) -> Aspect | None:
    """What a question wants to know of a disease, whatever the disease; None for any other question."""
    return next((name for name, pattern in _ASPECTS if pattern.search(question)), None)


def disease_question(question: str) -> DiseaseQuestion | None:
    """What an open question wants to know of the disease in the picture; None for any other question."""
    if _DISEASE.search(question) is None or not names_picture(question) or asks_yes_or_no(question):
        return None
    aspect = disease_aspect(question)
    if aspect is None:
        return None
    organs = [one.name for one in anatomy().structures_in(question) if one.kind in ("organ", "part")]
    return DiseaseQuestion(aspect, organs[0] if organs else "")


def is_knowledge(question: str) -> bool:
    """Whether a question is about an organ or finding in general, whatever the picture shows.

    The treatment of the disease that the picture shows is not (`disease_question`).
    """
    return _KNOWLEDGE.search(question.lower()) is not None and disease_question(question) is None

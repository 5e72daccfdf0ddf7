"""Yes or no questions whether an organ, or one of a system, is in the picture, and the wording that training asks most.

``Is the lung visible?``, ``Can you see a lung?`` and ``There is a lung here, right?`` have the answer to ``Does the
picture contain lung?``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from medical_vqa.models.questions.anatomy import anatomy
from medical_vqa.models.questions.claims import is_no, is_yes
from medical_vqa.models.questions.form import asks_yes_or_no
from medical_vqa.models.questions.plain_words import rest_of
from medical_vqa.text import is_chinese

_PRESENCE = re.compile(
    r"\b(?:visible|visuali[sz]ed|shown?|shows|showing|seen?|present|there|displayed|displays?|includes?|included|"
    r"depict(?:s|ed)?|observed?|contains?|exists?|appears?|find|found|identif(?:y|ied)|detect(?:ed)?|any|imaged|belongs?|"
    r"(?:in|on|within) (?:the |this |that )?(?:images?|pictures?|scans?|slices?|photos?|films?|field))\b"
    r"|包含|包括|含有|看到|看见|可见|有|存在|显示|出现|观察到|在"
)

_IDENTITY = re.compile(
    r"^\W*(?:is|was) (?:this|it|that)\b"
    r"|^\W*(?:请问)?(?:(?:这|该|此)?[张幅个]?(?:图片?|图像|影像|片子)?(?:显示的)?)(?:是不是|是否是|是否为|是)"
)
_IN_ORDER = re.compile(r"\b(?:ok|okay|well|correct|true|right)\b|[好对]吗")
LARGEST_ORGAN = ("What is the largest organ in the picture?", "图片中最大的器官是什么?")
"""The question for the largest organ, in English and in Chinese: what it names is in the picture."""


_BOTH = re.compile(r"\b(?:and|both|as well as)\b|[,\uff0c、和与及]")
_CHOICE = re.compile(r"\bor\b|还是|或")


@dataclass(frozen=True, slots=True)
class PresenceClaim:
    """What a question says of one of several organs: that the picture shows it."""

    open_question: str
    """Question whose answer decides."""

    def yes(self, open_answer: str) -> bool | None:
        """Whether the answer to `open_question` agrees; None where it decides nothing."""
        return is_yes(open_answer) if is_yes(open_answer) or is_no(open_answer) else None


def presence_question(name: str) -> str:
    """Whether the picture contains a structure, in the words that training asks most.

    Of a Chinese question too: to the Chinese wording training has few answers of no, and it is answered worse (of 131
    such answers about validation pictures that a model was sure of 112 were right, of 135 to this one 127).
    """
    return f"Does the picture contain {name}?"


@lru_cache(maxsize=4096)
def presence_claims(question: str) -> tuple[PresenceClaim, ...]:
    """The organs that a yes or no question names together (``Are the liver and spleen visible?``); empty for others."""
    lower = question.lower()
    mentions = anatomy().mentions_in(question)
    if len(mentions) < 2 or any(anatomy().structures[name].kind != "organ" for _, name in mentions):
        return ()
    if not asks_yes_or_no(question) or _CHOICE.search(lower) or not _BOTH.search(lower) or not _PRESENCE.search(lower):
        return ()
    rest = _BOTH.sub(" ", lower)
    for word, _ in mentions:
        rest = rest.replace(word, " ", 1)
    if rest_of(rest):
        return ()
    forms = [presence_question(name) for _, name in mentions]
    return tuple(PresenceClaim(form) for form in dict.fromkeys(forms))


@lru_cache(maxsize=4096)
def presence_wording(question: str) -> str | None:
    """The same question in the words that training asks most; None for any other question.

    Only for an organ by its bare name: ``Is the left kidney visible?`` asks for more. ``Lungs?`` and ``Is this the
    brain?`` ask for one too.
    """
    mentions = anatomy().mentions_in(question)
    if len(mentions) != 1 or not (_PRESENCE.search(question.lower()) or names_organ(question)):
        return None
    ((word, name),) = mentions
    others = question.replace(word, " ")
    kind, chinese = anatomy().structures[name].kind, is_chinese(others if re.search(r"\w", others) else word)
    if kind not in ("organ", "system") or rest_of(question.lower().replace(word, " ")):
        return None
    if kind == "system":
        english = f"Do any of the organs in the picture belong to the {name}?"
        return f"图片中有属于{word}的器官吗?" if chinese else english
    return presence_question(name)


@lru_cache(maxsize=4096)
def names_organ(question: str) -> str | None:
    """The organ that is all that a question names (``Lungs?``, ``Is this the brain?``); None for any other question."""
    lower = question.lower()
    mentions = anatomy().mentions_in(question)
    if len(mentions) != 1 or anatomy().structures[mentions[0][1]].kind != "organ":
        return None
    ((word, name),) = mentions
    alone = re.fullmatch(rf"\W*(?:the |an? )?{re.escape(word)}\W*", lower) is not None
    is_this = _IDENTITY.search(lower) is not None and _IN_ORDER.search(lower) is None
    return name if alone or (is_this and not rest_of(lower.replace(word, " "))) else None


def takes_yes_or_no(question: str) -> bool:
    """Whether yes or no answers a question: one that asks for it, or the bare name of an organ (``Lungs?``)."""
    return asks_yes_or_no(question) or names_organ(question) is not None


def largest_organ_question(question: str) -> str | None:
    """The question for the largest organ, which says too that an organ is there that a question asks for, or None."""
    return LARGEST_ORGAN[is_chinese(question)] if asked_organ(question) is not None else None


def asked_organ(question: str) -> str | None:
    """The organ of which a question asks whether it is in the picture (`presence_wording`); None for others."""
    if presence_wording(question) is None:
        return None
    ((_, name),) = anatomy().mentions_in(question)
    return name if anatomy().structures[name].kind == "organ" else None


def names_as_largest(question: str, largest: str) -> bool:
    """Whether the answer to `largest_organ_question` names the one organ that a question asks for."""
    return [one.name for one in anatomy().structures_in(largest)] == [asked_organ(question)]

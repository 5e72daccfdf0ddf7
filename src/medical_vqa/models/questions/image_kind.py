"""Questions about what kind of picture it is: made by which technique, with which weighting, in which plane, of what.

``Is this an MRI?`` has the answer that follows from the one to ``What modality is used to take this image?``, and
``CT or MRI?`` has that one itself. Training asks the open question of nearly every picture and the others of few, so
that the open one is answered better.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

from medical_vqa.models.questions.aspects import asked_aspect
from medical_vqa.models.questions.disease_knowledge import is_knowledge
from medical_vqa.models.questions.plain_words import rest_of, statement_of
from medical_vqa.text import is_chinese

BODY_PART_QUESTION = "Which part of the body does this image belong to?"
"""Asked of a model about a picture whose body part nothing else says."""
Attribute = Literal["modality", "weighting", "plane", "body part"]

_NAMES: dict[Attribute, dict[str, str]] = {
    "modality": {
        "ct": r"ct|cat scans?|computed tomograph(?:y|ic)|计算机断层(?:扫描|成像)?",
        "mri": r"mri|mr|nmr|magnetic resonance|核磁共振|磁共振|核磁",
        "x-ray": r"x-? ?rays?|radiographs?|cxr|plain films?|roentgenograms?|x ?光|x ?射线|x ?线",
        "ultrasound": r"ultrasounds?|ultrasonograph(?:y|ic)|sonogra(?:ms?|phy|phic)|超声|b超",
        "pet": r"pet(?=[- ](?:scan|image|ct))|positron emission tomography",
    },
    "weighting": {"t1": r"t1w?", "t2": r"t2w?"},
    "plane": {
        "transverse": r"transverse|transversal|axial|transaxial|cross-? ?sectional|横断[面位]?|横切面|轴[位面]",
        "coronal": r"coronal|冠状[面位]?",
        "sagittal": r"sagittal|矢状[面位]?",
    },
    "body part": {
        "chest": r"chest|thorax|thoracic(?: cavity)?|胸[腔部]?",
        "abdomen": r"abdomen|abdominal(?: cavity)?|belly|腹[腔部]",
        "head": r"head|brain|skull|cranium|头部?|大?脑部?",
        "neck": r"neck|cervical region|颈部?",
        "pelvis": r"pelvis|pelvic(?: cavity| region)?|盆腔",
    },
}
_OPEN_QUESTIONS: dict[Attribute, tuple[str, str]] = {
    "modality": ("What modality is used to take this image?", "这张图片的成像方式是什么?"),
    "weighting": ("What is the mr weighting in this image?", "这张MRI图片用的什么加权方式?"),
    "plane": ("What is the scanning plane of this image?", "这个图像的扫描平面是什么?"),
    "body part": (BODY_PART_QUESTION, "这个图像属于身体的哪个部位?"),
}
_CLOSED_QUESTIONS: dict[Attribute, dict[str, str]] = {
    "modality": {"Is this a CT?": "ct", "Is this an MRI?": "mri", "Is this a X-Ray?": "x-ray"},
    "weighting": {
        "Is this an MRI image with T1 weighted?": "t1",
        "Is this an MRI image with T2 weighted?": "t2",
        "这是T1加权的核磁共振图像吗?": "t1",
        "这是T2加权的核磁共振图像吗?": "t2",
    },
    "body part": {
        "Is this a study of the chest?": "chest",
        "Is this a study of the abdomen?": "abdomen",
        "Is this a study of the head?": "head",
        "Is this a study of the neck?": "neck",
        "Is this a study of the pelvic cavity?": "pelvis",
    },
}
"""Yes or no questions for one kind, as training asks them; of weightings in both languages, for it asks few."""
_ONE_OF = {
    attribute: re.compile(
        "|".join(rf"(?P<v{n}>(?<![a-z0-9])(?:{name})(?![a-z0-9]))" for n, name in enumerate(names.values()))
    )
    for attribute, names in _NAMES.items()
}
_WEIGHTED = re.compile(r"(?<![a-z0-9])t[12]w?(?![a-z0-9])|\bflair\b|\bweight(?:ed|ing)\b|\bsequences?\b|加权|权重|序列")
"""Words that only magnetic resonance imaging has."""
_TAIL = r"(?:[ -](?:images?|imaging|scans?|planes?|sections?|views?|weight(?:ed|ing)))*"
_CHINESE_TAIL = "(?:图像|图片|影像|扫描|检查|成像|加权|的)*"
_CHOICE = re.compile(r"\bor\b|还是|或者?")
_OF_CHOICE = frozenset(("which", "what", "either", "between"))
_CHINESE_OF_CHOICE = re.compile("哪一?[个种类]?|什么")
_OF_OPEN = frozenset(("what", "which", "how", "name", "state", "specify", "give", "list", "system"))
_CHINESE_OF_OPEN = re.compile("哪一?[个种类]?|什么|怎么样?|怎|样|序列|权重")
_ENGLISH_VERB = re.compile(r"\W*(?:is|are|was|were|do|does|did|can|could|has|have)\b", re.IGNORECASE)
_CHINESE_VERB = re.compile("包含|包括|存在(?!于)|有|可以|能")
_CHINESE_ANSWERS = {
    "包含": ("包含", "不包含"), "包括": ("包括", "不包括"), "存在": ("存在", "不存在"), "有": ("有", "没有"),
    "可以": ("可以", "不可以"), "能": ("可以", "不可以"),
}  # fmt: skip
"""Verb of a Chinese question -> yes and no to it, as training answers; ``是的`` and ``不是`` to any other."""
_PART = re.compile("brain|skull|cranium|大?脑部?")


@dataclass(frozen=True, slots=True)
class KindClaim:
    """What a yes or no question says that a picture is."""

    attribute: Attribute
    """What it is about."""
    value: str
    """What the picture is said to be: ``mri``, ``coronal``."""
    part: bool
    """Whether it names a part only: a picture of the head need not show the brain."""
    open_question: str
    """Question whose answer decides."""

    def yes(self, open_answer: str) -> bool | None:
        """Whether the answer to `open_question` agrees; None where it decides nothing."""
        named = kind_named(open_answer, self.attribute)
        return None if named is None or (named == self.value and self.part) else named == self.value


@dataclass(frozen=True, slots=True)
class KindQuestion:
    """What kind of picture an open question asks for, in whatever words."""

    attribute: Attribute
    """What it is about."""
    open_question: str
    """The same question in the words that training asks most."""


@dataclass(frozen=True, slots=True)
class KindChoice:
    """The kinds between which a question lets one choose."""

    attribute: Attribute
    """What it is about."""
    values: frozenset[str]
    """At least two."""
    open_question: str
    """Question whose answer decides."""


@lru_cache(maxsize=4096)
def kind_claims(question: str) -> tuple[KindClaim, ...]:
    """The kinds of picture that a yes or no question names, one for each attribute; empty for every other question.

    A question whose other words say nothing more (``rest_of``) is one, whatever its form (``This is a CT, right?``).
    """
    text = statement_of(question)
    if _CHOICE.search(text) or asked_aspect(question) is not None:
        return ()
    words, rest = _names_in(text)
    if not words or any(len(of_attribute) > 1 for of_attribute in words.values()) or rest_of(rest):
        return ()
    if "weighting" in words:
        words.setdefault("modality", {"mri": ""})
    claims = []
    for attribute, of_attribute in words.items():
        ((value, word),) = of_attribute.items()
        part = _PART.fullmatch(word) is not None
        claims.append(KindClaim(attribute, value, part, _OPEN_QUESTIONS[attribute][is_chinese(question)]))
    return tuple(claims)


@lru_cache(maxsize=4096)
def kind_choice(question: str) -> KindChoice | None:
    """The choice between kinds of picture that is all that a question is about (``CT or MRI?``); None for others."""
    text = statement_of(question)
    if _CHOICE.search(text) is None:
        return None
    words, rest = _names_in(text)
    several = [attribute for attribute, of_attribute in words.items() if len(of_attribute) > 1]
    if len(several) != 1 or rest_of(_CHINESE_OF_CHOICE.sub(" ", _CHOICE.sub(" ", rest)), _OF_CHOICE):
        return None
    attribute = several[0]
    return KindChoice(attribute, frozenset(words[attribute]), _OPEN_QUESTIONS[attribute][is_chinese(question)])


@lru_cache(maxsize=4096)
def kind_question(question: str) -> KindQuestion | None:
    """What kind of picture is all that an open question asks for (``Which sequence is this?``); None for others."""
    aspect = asked_aspect(question)
    attribute = next((one for one in _OPEN_QUESTIONS if one == aspect), None)
    _, rest = _names_in(statement_of(question))
    if attribute is None or rest_of(_CHINESE_OF_OPEN.sub(" ", rest), _OF_OPEN):
        return None
    return KindQuestion(attribute, _OPEN_QUESTIONS[attribute][is_chinese(question)])


@lru_cache(maxsize=4096)
def presupposed_kind(question: str) -> Mapping[str, tuple[Attribute, frozenset[str]]]:
    """What a question takes the picture to be (``What plane is this MRI?``), by the open question that asks for it.

    The body part is not among it (`premises`), and nothing is of a question that is answered by what it names.
    """
    if is_knowledge(question) or kind_claims(question):
        return {}
    text = statement_of(question)
    words, _ = _names_in(text)
    if _WEIGHTED.search(text):
        words.setdefault("modality", {}).setdefault("mri", "")
    attributes: tuple[Attribute, ...] = ("modality", "plane")
    return {
        _OPEN_QUESTIONS[attribute][is_chinese(question)]: (attribute, frozenset(words[attribute]))
        for attribute in attributes
        if attribute in words
    }


@lru_cache(maxsize=4096)
def kind_attributes(question: str) -> Mapping[Attribute, str]:
    """The attributes of a picture that the answer to a question states or follows from, with the open question of each.

    A question takes some of them for granted (``What weighting has this MRI?``: the modality).
    """
    choice, kind = kind_choice(question), kind_question(question)
    stated = {claim.attribute: claim.open_question for claim in kind_claims(question)}
    stated |= {one.attribute: one.open_question for one in (choice, kind) if one is not None}
    if not stated:
        return {}
    return {attribute: text for text, (attribute, _) in presupposed_kind(question).items()} | stated


def closed_questions(attribute: Attribute) -> Mapping[str, str]:
    """Yes or no questions for one kind each, with the kind; a picture is of one kind where one of them has a yes."""
    return _CLOSED_QUESTIONS.get(attribute, {})


class Claim(Protocol):
    """What a question says that the answer to an open one is."""

    @property
    def open_question(self) -> str:
        """Question whose answer decides."""

    def yes(self, open_answer: str) -> bool | None:
        """Whether the answer to it agrees; None where it decides nothing."""


def follows(claims: Sequence[Claim], open_answers: Mapping[str, str]) -> bool | None:
    """Whether the answer to a question with these claims is yes, which all of them must allow; None if undecided.

    Args:
        claims: What the question says.
        open_answers: Open question -> the answer to it.
    """
    decided = [claim.yes(open_answers.get(claim.open_question, "")) for claim in claims]
    if False in decided:
        return False
    return None if None in decided or not decided else True


def kind_named(answer: str, attribute: Attribute) -> str | None:
    """The kind that an answer names (``Transverse Plane``: ``transverse``); None where it names none or several."""
    text = re.sub(r"\s+", " ", answer.strip().lower())
    tail = _CHINESE_TAIL if is_chinese(answer) else _TAIL
    return next((value for value, name in _NAMES[attribute].items() if re.fullmatch(f"(?:{name}){tail}", text)), None)


def yes_or_no(yes: bool, question: str) -> str:
    """Yes or no in the language of a question, in Chinese with its verb (``包含`` to ``图片中包含肝脏吗?``).

    A question that begins with an English verb is English, also where it names the organ in Chinese.
    """
    if not is_chinese(question) or _ENGLISH_VERB.match(question) is not None:
        return "Yes" if yes else "No"
    verb = _CHINESE_VERB.search(question)
    forms = _CHINESE_ANSWERS.get(verb.group() if verb is not None else "", ("是的", "不是"))
    return forms[not yes]


def _names_in(text: str) -> tuple[dict[Attribute, dict[str, str]], str]:
    """The kinds that a text names (attribute -> value -> its word there), and what is left of it."""
    names: dict[Attribute, dict[str, str]] = {}
    for attribute, pattern in _ONE_OF.items():
        values = list(_NAMES[attribute])
        for match in pattern.finditer(text):
            names.setdefault(attribute, {})[values[int((match.lastgroup or "v0")[1:])]] = match.group()
        text = pattern.sub(" ", text)
    return names, text

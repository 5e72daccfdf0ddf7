"""What an open question asks for: a plane, a place, a number ..., by the word that asks or by the noun after it.

``Which sequence is this?`` and ``MR weighting?`` ask for a weighting, so that neither a modality nor a yes answers
them, and ``How many?`` asks for the number of something that it does not name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, get_args

from medical_vqa.models.questions.anatomy import anatomy
from medical_vqa.models.questions.claims import FINDING
from medical_vqa.models.questions.disease_knowledge import disease_aspect
from medical_vqa.models.questions.form import asks_yes_or_no
from medical_vqa.models.questions.plain_words import rest_of, statement_of
from medical_vqa.text import is_chinese

Aspect = Literal[
    "modality", "weighting", "plane", "body part", "organ", "side", "place", "number", "color", "density", "shape",
    "function", "prevention", "treatment", "symptoms", "cause",
]  # fmt: skip

_SIDES = "left|right|upper|lower|top|bottom|cent(?:er|re)|middle"
_PARTS = "parts?|regions?|areas?"
_NOUNS: Mapping[Aspect, str] = {
    "weighting": "weight(?:ing|ed)?|sequences?",
    "plane": "planes?",
    "modality": "modality|imaging technique|(?:scan|image|imaging|study) (?:type|kind)",
    "body part": f"body (?:{_PARTS})|{_PARTS}|(?:organ |body )?systems?",
    "organ": "organs?",
    "side": "sides?|lobes?|hemispheres?",
    "place": "places?|locations?|positions?|quadrants?",
    "number": "numbers?",
    "color": "colou?rs?",
    "density": "densit(?:y|ies)|intensit(?:y|ies)|attenuation",
    "shape": "shapes?",
    "function": "functions?|effects?|roles?|purposes?",
}
_NOUN = re.compile("|".join(rf"(?P<{name.replace(' ', '_')}>\b(?:{nouns})\b)" for name, nouns in _NOUNS.items()))
_VALUES: Mapping[Aspect, str] = {
    "weighting": r"\bt[12]",
    "plane": r"\b(?:transvers|axial|transaxial|coronal|sagittal|cross)",
    "modality": r"\b(?:ct|cat|mri?|x-? ?rays?|ultrasound|pet)\b",
    "side": rf"\b(?:{_SIDES})\b",
    "place": rf"\b(?:{_SIDES})\b",
    "color": r"\b(?:black|white|gr[ae]y|dark|bright)\b",
    "shape": r"\b(?:oval|round|irregular|circular)\b",
    "number": r"\d",
}
"""A keyword with one of these says what something is, and does not ask (``T2 weighting?``)."""
_ASKS = re.compile(
    r"\b(?:what|which)\b(?:['\u2019]?s\b)?"
    r"|^\W*(?:please )?(?:name|identify|state|give(?: me)?|list|specify|determine|tell me)\b(?! (?:if|whether)\b)"
)
_LEADING = re.compile(r"^(?:\W*\b(?:is|are|was|were|the|an?|this|that|his|her|(?:kind|type|sort|name) of)\b)*\W*")
_END_OF_NOUNS = re.compile(
    r"\b(?:of|in|on|at|for|from|by|with|is|are|was|were|do|does|did|can|could|has|have|you|we|i|this|that|to|used|shown|"
    r"seen|using|through|via|and|or|show|shows|please)\b|[,.;:?]"
)
_OF_BODY = re.compile(r"\s*of (?:the |a )?(?:human |patient'?s? )?body\b")
_KIND = r"(?:kind|type|sort) of (?:an? )?"
_FORMS: tuple[tuple[Aspect, re.Pattern[str]], ...] = (
    ("number", re.compile(r"\bhow many\b|^\W*count\b")),
    ("place", re.compile(r"\bwhere\b|^\W*locate\b")),
    ("side", re.compile(r"\b(?:which|what) (?:lung|kidney|eye|ear|parotid)s?\b")),
    ("weighting", re.compile(rf"\b{_KIND}(?:mri?|magnetic resonance)\b(?! or\b)")),
    (
        "modality",
        re.compile(
            rf"\b{_KIND}(?:(?:medical|radiological|radiology) )?(?:image|scan|picture|imaging|study|photo)\b"
            r"|\bhow (?:was|is|were|did)\b.*"
            r"\b(?:taken|made|acquired|obtained|produced|generated|imaged|scanned|captured|created)\b"
        ),
    ),
)
_USED = re.compile(r"\b(?:modality|technique|sequence|weighting|plane)s? used\b")
"""Keywords with these ask what it was, whatever value they name (``MRI sequence used?``)."""
_MOST_KEYWORDS = 6
"""Words of a text without a verb that is read as keywords."""
_SIDE_CHOICE = re.compile(rf"\b(?:{_SIDES})\b.*\bor\b.*\b(?:{_SIDES})\b|[左右上下].*还是.*[左右上下]")
_CHOICE = re.compile(r"\bor\b|还是|或")
_DESCRIBED = re.compile(r"\b(?:black|white|gr[ae]y|dark|bright|(?:hyper|hypo|iso)dense)\b|[黑白灰]色?|[高低等]密度")
_DENSE = re.compile(r"\b(?:hyper|hypo|iso)dense\b|[高低等]密度")
_CHINESE: tuple[tuple[Aspect, re.Pattern[str]], ...] = (
    ("number", re.compile("多少|几(?!乎)")),
    ("weighting", re.compile("加权|权重|序列")),
    ("plane", re.compile("平面|切面|断面")),
    ("modality", re.compile("成像|模态|怎么拍|拍摄方式|类型的(?:医学)?图像")),
    ("color", re.compile("颜色")),
    ("density", re.compile("密度")),
    ("shape", re.compile("形状")),
    ("function", re.compile("功能|作用")),
    ("side", re.compile("哪一?[个只侧边]?(?:肺|肾脏?|眼睛?|耳朵?)(?!叶)|哪一?[侧边]")),
    ("place", re.compile("在哪|位于.*哪|哪里|哪儿|哪一?个?(?:部位|部分|位置|方位|叶)|位置")),
)
_CHINESE_ASKS = re.compile("哪|什么|几|多少|怎")
_MOST_CHINESE_KEYWORDS = 8
_OF_SOMETHING = frozenset(get_args(Aspect)) - {"modality", "weighting", "plane", "body part", "organ"}
"""Aspects of an organ or a finding: a question for one of them is incomplete where it names nothing."""
_ASKING_TEXT = """
what which where who how many much count counts number numbers locate color colors colour colours shape shapes location
locations position positions place places side sides lobe lobes hemisphere hemispheres quadrant function functions
effect effects role purpose treat treated treatment cure therapy prevent prevention symptom symptoms cause causes
caused reason reasons density intensity how anything something thing hand half left right upper lower top bottom
center centre middle or and total
"""
_ASKING_WORDS = frozenset(_ASKING_TEXT.split())
_CHINESE_ASKING_WORDS = re.compile(
    "什么|哪一?个?|哪里|哪儿|多少|几个?|怎么样?|颜色|形状|数量|功能|作用|[左右上下侧边叶]|还是|或"
)
_SUBJECT = re.compile(
    r"\b(?:organs?|tissues?|systems?|body|bodies|parts?|regions?|areas?|modality|technique|technology|method|planes?|"
    r"sequence|weight(?:ing|ed)|type|kind|sort|imag(?:ing|ed)|shows?|represents?|depicts?|belongs?|"
    r"scan\w*|taken?|made?|using|used|created|acquired|obtained|captured|performed)\b"
    "|器官|组织|系统|身体|部位|展示|显示|代表|属于|拍|成像|扫描|平面|切面|断面|加权|类型"
)
"""Words of a question that names what it is about, though no organ."""


@lru_cache(maxsize=4096)
def asked_aspect(question: str) -> Aspect | None:
    """What an open question asks for; None for one that is answered by yes or no, offers a choice, or is not known.

    A few words without a verb ask for the noun that they end in (``liver location``, ``location of the liver``), except
    with a value of it (``axial plane?``) and without ``used``.
    """
    text = statement_of(question)
    if asks_yes_or_no(question):
        return None
    if (aspect := disease_aspect(question)) is not None:
        return aspect
    if _SIDE_CHOICE.search(text) is not None:
        return "side"
    if _CHOICE.search(text) is not None:
        return "density" if _DENSE.search(text) is not None else None
    return _chinese_aspect(text) if is_chinese(question) else _english_aspect(text)


def _english_aspect(text: str) -> Aspect | None:
    aspect = next((aspect for aspect, pattern in _FORMS if pattern.search(text)), None)
    if aspect is not None:
        return aspect
    asks = _ASKS.search(text)
    if asks is not None:
        return _noun_aspect(_LEADING.sub("", text[asks.end() :]))
    names_use = _USED.search(text) is not None
    if len(text.split()) > _MOST_KEYWORDS and not names_use:
        return None
    aspect = _noun_aspect(text)
    if aspect is None or aspect in ("organ", "side"):  # ``organ?`` and ``left lobe?`` may ask whether there is one
        return None
    if names_use:
        return aspect
    return None if aspect in _VALUES and re.search(_VALUES[aspect], text) is not None else aspect


def _noun_aspect(text: str) -> Aspect | None:
    """The aspect of the last noun before a preposition or a verb."""
    end = _END_OF_NOUNS.search(text)
    stop = end.start() if end is not None else len(text)
    last = next(reversed(list(_NOUN.finditer(text[:stop]))), None)
    if last is None:
        return None
    if re.fullmatch(_PARTS, last.group()) and _OF_BODY.match(text, last.end()) is None:
        return None
    return next(aspect for aspect in _NOUNS if last.lastgroup == aspect.replace(" ", "_"))


def _chinese_aspect(text: str) -> Aspect | None:
    if _CHINESE_ASKS.search(text) is None and len(re.findall(r"\w", text)) > _MOST_CHINESE_KEYWORDS:
        return None
    aspect = next((aspect for aspect, pattern in _CHINESE if pattern.search(text)), None)
    keyword = _CHINESE_ASKS.search(text) is None
    return None if keyword and aspect in ("weighting", "plane") and re.search("t[12]|[横冠矢轴]", text) else aspect


def names_no_subject(question: str) -> bool:
    """Whether a question says nothing of what it is about (``How many?``, ``Where is it?``, ``Is it on the left?``)."""
    text = statement_of(question)
    closed = asks_yes_or_no(question)
    if anatomy().structures_in(text) or (_SUBJECT.search(text) is not None and not closed):
        return False
    described = _DESCRIBED.sub(" ", text) if closed else text
    if rest_of(_CHINESE_ASKING_WORDS.sub(" ", described), _ASKING_WORDS):
        return False
    if closed:
        return True
    aspect = asked_aspect(question)
    asks = re.search(r"\b(?:what|which|who|where|how many)\b|哪|什么", text) is not None
    return asks if aspect is None else aspect in _OF_SOMETHING


_EXISTENCE_NOUN = re.compile(
    r"^\W*(?:is|are|is/are|was|were) there (?:(?:any|an?|some|the|evidence of|signs? of) )*(?P<noun>[a-z][a-z -]*?)"
    r"(?: (?:present|visible|seen|shown|here|in|on|at|within|inside)\b.*)?\W*$"
)
_OTHER_NOUN = re.compile(
    r"\b(?:organs?|tissues?|parts?|areas?|regions?|structures?|anything|something|one|two|only|more|less|abnormal\w*|normal|"
    r"unusual|wrong|difference|problems?)\b"
)


def existence_noun(question: str) -> str | None:
    """What an English question asks whether there is, where that is no organ and no finding (``Is there blood?``)."""
    match = _EXISTENCE_NOUN.search(statement_of(question))
    if match is None:
        return None
    noun = match.group("noun")
    is_other = _OTHER_NOUN.search(noun) or FINDING.search(noun) or anatomy().structures_in(noun) or not rest_of(noun)
    return None if is_other else noun


_MEANING = re.compile(
    r"^\W*what(?:['\u2019]?s| is| are) an? [a-z0-9 -]+\W*$|\bstands? for\b|\b(?:mean|meaning|definition)\b"
    r"|什么意思|的(?:定义|含义)"
)


def asks_meaning(question: str) -> bool:
    """Whether a question is what a word means (``What is an MRI?``), whatever the picture."""
    return _MEANING.search(question.lower()) is not None


_WHERE_TAKEN = re.compile(
    r"\bwhere\b.*\b(?:taken|acquired|obtained|made|performed|scanned|captured|recorded|produced|done|shot|from)\b"
    r"|\bfrom where\b"
    "|(?:哪里|哪儿|何处|哪个(?:医院|地方|城市|国家)|在哪)(?:里|儿)?(?:被|所)?(?:拍|做|采集|扫描|获得|获取)"
)


def asks_where_taken(question: str) -> bool:
    """Whether a question is where in the world a picture was taken (``Where was this image taken?``)."""
    text = statement_of(question)
    if re.search(r"\b(?:body|organs?)\b|身体|器官", text) is not None or anatomy().structures_in(text):
        return False
    return _WHERE_TAKEN.search(text) is not None

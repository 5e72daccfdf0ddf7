"""Forms of questions: yes or no, several in one, follow-ups without a subject, and questions for a reason."""

from __future__ import annotations

import re
from collections.abc import Callable

from medical_vqa.models.questions.plain_words import without_tag
from medical_vqa.models.questions.reasons import Reason
from medical_vqa.text import is_chinese

_AUXILIARY = re.compile(
    r"^\W*(?:(?:please|kindly|hi|hello|hey|doctor|so|and|ok|okay|now|well)\W+)*"
    r"(?:(?:tell|let) me (?:know )?(?:whether|if)|(?:is|are|was|were|do|does|did|can|could|has|have|had|will|would|"
    r"should|may|might)(?!.*\b(?:tell|know|say|describe|explain|identify|determine|specify|name)(?: me| us)? "
    r"(?:which|what|where|how|who|why|when)))\b",
    re.IGNORECASE,
)
_CHOICE = re.compile(r"\bor\b(?!\s+not\b)", re.IGNORECASE)
_CHINESE_YES_NO = re.compile(r"吗|(?<![什怎那这])么\W*$|是否|有没有|是不是|能不能|存不存在")
_OPEN = re.compile(
    r"\b(?:which|what|where|how|who|when)\b|\bor\b|^\W*(?:please\W+)?(?:name|identify|state|give|list|locate|count|find|"
    r"specify|tell me (?!if|whether))\b",
    re.IGNORECASE,
)
_CHINESE_OPEN = re.compile("哪|什么|几|多少|怎|如何|还是")
_END = re.compile(r"(?<=[?\uff1f])")
_WHY = re.compile(
    r"^\W*(?:(?:and|but|so|then)\s+)?"
    r"(?:why\b|how come\b|how (?:do|can|did|could) you (?:know|tell)\b|what makes you\b|为什么|为何)",
    re.IGNORECASE,
)
_DESCRIPTION = re.compile(
    r"^\W*(?:(?:please|can you|could you|would you|will you)\s+)*"
    r"(?:describe|summari[sz]e|caption|interpret|explain|tell me about|"
    r"(?:write|give|make|generate|draft|provide|produce)\s+(?:me\s+)?(?:an?|the|your)?\s*(?:\w+\s+)?(?:report|description|summary|caption|impression|interpretation))\b"
    r"|^\W*what (?:does|do) (?:this|the|these) (?:image|picture|scan|x-?ray|film|slice|study)s? (?:show|depict)\W*$"
    r"|^\W*what (?:can|do) you see(?: (?:in|on) (?:this|the|it)(?: \w+)?)?\W*$"
    r"|^\W*(?:请)?(?:描述|总结|解读|解释|概括|写.{0,4}报告|生成.{0,4}报告)",
    re.IGNORECASE,
)
_NEGATION = re.compile(
    r"(?P<short>n['\u2019]t)\b"
    r"|\b(?P<word>(?:not|no|without|never|none|neither|nor|nothing)\b(?! normal| healthy| enlarged)(?!\W*$)"
    r"|(?:cannot|other than|anything but|rather than|instead of|except|lacks?|lacking|missing|absent|invisible|"
    r"impossible)\b|non[- ]?(?=(?:ct|mri?|x-? ?rays?|axial|coronal|sagittal|transverse)\b))",
    re.IGNORECASE,
)
"""Words that deny or exclude; not those before a state, which is a claim of its own."""
_CHINESE_NEGATION = re.compile("不|没有?|无|除了")
_NO_CHINESE_NEGATION = re.compile(r"(\w)不\1|有没有?|不正常|不健康|肺?不张|不规则")
"""Chinese forms of a question (``是不是``) and words with a syllable that denies."""
_FOLLOW_UP = re.compile(
    r"^\W*(?:(?:and|then|what about|how about|and what about|and how about)\s+)(?:(?:in|on|for|of)\s+)?"
    r"(?:(?:the|a|an|its|his|her|this|that)\s+)?(?P<topic>[a-z][a-z -]{1,40}?)\W*$",
    re.IGNORECASE,
)
_CHINESE_FOLLOW_UP = re.compile(r"^\W*(?:那|那么|还有)?(?P<topic>[\u4e00-\u9fff]{1,8}?)呢\W*$")
_JOINED = re.compile(
    r"^\W*(?:is|are|was|were|do|does|did|can|could|has|have|what|where|which|who|how)\b.*?(?:\band|[,;])\s+(?:and\s+)?"
    r"(?:is|are|was|were|does|do|did|can|could|has|have|what|which|where|who|how|when)\b",
    re.IGNORECASE,
)
"""Two questions joined by a word or a comma (``Is there a lung and is it black?``)."""
_VERB = re.compile(
    r"\b(?:is|are|was|were|do|does|did|can|has|have|which|what|where|how|many|show|shown)\b", re.IGNORECASE
)


def asks_yes_or_no(question: str) -> bool:
    """Whether a question is answered by yes or no: it begins with an auxiliary verb and offers no choice."""
    if is_chinese(question):
        return _CHINESE_YES_NO.search(question) is not None and "还是" not in question
    return _AUXILIARY.search(question) is not None and _CHOICE.search(question) is None


def asks_openly(question: str) -> bool:
    """Whether a question asks for what, which, where or how many, or to choose: yes and no answer none of these."""
    if asks_yes_or_no(question):
        return False
    return (_CHINESE_OPEN if is_chinese(question) else _OPEN).search(question) is not None


def questions_in(text: str) -> list[str]:
    """The questions of a text that asks several, each with its question mark; one element where it asks one."""
    parts = [part.strip() for part in _END.split(text) if re.search(r"\w", part)]
    complete = [part for part in parts if len(part.split()) > 1 or is_chinese(part)]
    return parts if len(parts) > 1 and len(complete) == len(parts) else [text.strip()]


def asks_why(question: str) -> bool:
    """Whether a question asks for a reason (``Why?``)."""
    return _WHY.search(question) is not None


def asks_description(question: str) -> bool:
    """Whether a text requests a description or a report (``Describe the image``)."""
    return _DESCRIPTION.search(question) is not None


def negation_in(question: str) -> str | None:
    """The negation of a question (``Is there no effusion?`` -> ``no``); None where it has none, or offers a choice."""
    if _CHOICE.search(question) or re.search(r"\bor not\b", question, re.IGNORECASE):
        return None
    if is_chinese(question) and (match := _CHINESE_NEGATION.search(_NO_CHINESE_NEGATION.sub(" ", question))):
        return match.group()
    match = _NEGATION.search(without_tag(question.lower()))
    return (match.group("short") or match.group("word")) if match is not None else None


def follow_up_topic(question: str) -> str | None:
    """What a follow-up without a verb is about (``and the spleen?`` -> ``spleen``); None for a whole question."""
    match = _FOLLOW_UP.match(question) or _CHINESE_FOLLOW_UP.match(question)
    if match is None or _VERB.search(match.group("topic")):
        return None
    return match.group("topic").strip()


def completed_follow_up(question: str, previous: str, entity_in: Callable[[str], str | None]) -> str:
    """A follow-up with the words of the question before it.

    Args:
        question: As typed (``and the spleen?``).
        previous: The question before it (``Is the liver healthy?``).
        entity_in: The organ or finding that a text names; None where it names none.

    Returns:
        The previous question about the new topic (``Is the spleen healthy?``); `question` itself where it is no
        follow-up, or one of the two names nothing.
    """
    topic = follow_up_topic(question)
    if topic is None:
        return question
    entity, former = entity_in(topic), entity_in(previous)
    if entity is None or former is None:
        return question
    return re.sub(rf"\b{re.escape(former)}s?\b", entity, previous, count=1, flags=re.IGNORECASE)


def form_reason(question: str) -> Reason | None:
    """Why a model that chooses from a closed list cannot take a question of this form; None where it can."""
    if asks_why(question):
        return Reason("asks_why")
    if asks_description(question):
        return Reason("asks_description")
    if (negation := negation_in(question)) is not None:
        return Reason("negated_question", negation=repr(negation))
    number = max(len(questions_in(question)), 1 + (_JOINED.search(question) is not None))
    if number > 1:
        return Reason("several_questions", number=str(number))
    topic = follow_up_topic(question)
    if topic is not None:
        return Reason("incomplete_question", topic=repr(topic))
    return None

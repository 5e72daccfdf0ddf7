"""What a question takes for granted: that the picture can show the organs and findings that it names.

"Where is the liver?" and "Is the liver healthy?" are about a picture of the abdomen; "Is the liver visible?" may be
asked of any picture. Families that learn from training rows which organs occur in which type of picture check that
themselves; for every other, `impossible_structure` compares with the body part that the picture shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from medical_vqa.models.questions.anatomy import Structure, anatomy
from medical_vqa.models.questions.claims import CHINESE_FINDING, FINDING, claim_of, is_no, is_yes
from medical_vqa.models.questions.disease_knowledge import is_knowledge, names_picture
from medical_vqa.models.questions.form import asks_yes_or_no
from medical_vqa.models.questions.image_kind import kind_claims
from medical_vqa.models.questions.presence import presence_question, presence_wording
from medical_vqa.text import is_chinese

EXISTENCE = re.compile(
    r"\b(contains?|includes?|exists?|existing|there|visible|visuali[sz]ed|observed|seen|see|appears?|presented?|present|any|"
    r"many|number|count|study|shows?|shown|have|has|bigger|biggest|larger|largest|smaller|smallest|signs?|system)\b"
)
"""English questions with these words do not take an organ for granted."""
_PATIENT_HAS = re.compile(
    r"\b(?:do|does|did) (?:the|this|that) (?:patient|person|man|woman|child) have\b|(?:病人|患者)有"
)
_CHINESE_EXISTENCE = re.compile(
    r"包含|包括|存在|有|看到|看见|观察|显示|出现|可见|几|多少|最大|最小|更大|更小|较大|较小"
)
_ATTRIBUTE = re.compile(
    r"^\W*(?:where\b|(?:what|which|in what|in which) (?:colou?rs?|shapes?|sizes?|density|densities|position|place)\b)"
    r"|颜色|形状|大小|密度|在哪|位置",
    re.IGNORECASE,
)
"""Questions for an attribute of what they name, whatever their verb (``What color does the lung show?``)."""
_COUNT = re.compile(r"\bhow many\b|\bnumber of\b|^\W*count\b|几(?!乎)|多少", re.IGNORECASE)
_COUNTED_NOUN = re.compile(
    r"\b(?:how many|number of|count) (?:(?:the|existing|different|visible|total|main|other|(?:kinds?|types?) of) )*"
    r"(?!(?:are|is|do|does|can|could|have|has|in|on|there|you|the|this|exist)\b)(?P<noun>[a-z]+)"
)
_CHINESE_COUNTED_NOUN = re.compile(
    "(?:多少|几)[个种张幅处块条只根位名层次片]?(?P<noun>(?!是|在|存|被|可|能)[\u4e00-\u9fff]{1,4})"
)
_COUNTS_TOGETHER = re.compile(
    r"\b(?:how many|number of)\b(?:(?!\b(?:are|is|do|does|can|have|has|in|on|of)\b)[^?])*\band\b"
    r"(?:(?!\b(?:are|is|do|does|can|have|has|in|on)\b)[^?])*"
    "|(?:多少|几)[^?\uff1f]*(?:和|与|及)[^?\uff1f]*",
    re.IGNORECASE,
)
_ONE_SIDE = re.compile(
    r"\b(?:on|in|at|to) the (?:\w+ )?(?:left|right|top|bottom|upper|lower|center|middle)\b|[左右](?:侧|边|半)",
    re.IGNORECASE,
)
_COMPARISON = re.compile(r"\bthan (?:the |a |an )?(?!normal\b|usual\b)\w|比", re.IGNORECASE)
_PATIENT_SIDE = re.compile(
    r"\b(?:left|right)(?: hand)?(?: side| half| part)? (?:of|to) (?:the|this|that|a) (?:patient|person)\b"
    r"|\b(?:patient|person)(?:['\u2019]?s)? (?:own )?(?:left|right)(?: hand)?(?: (?:side|half|part))?\W*$"
    r"|(?:病人|患者)的?(?:身体)?的?[左右](?:侧|边|面|方|手边)",
    re.IGNORECASE,
)
"""A side of the patient; not ``the patient's left lung``, which is the name of an organ."""
_NONE = frozenset(("0", "zero", "none", "no", "零", "没有", "无"))
_LONGEST_ANSWER = 6
"""Words of an answer that names what it is about, and says nothing of it."""
_DENIAL = re.compile(r"\b(?:no|not|none|without|absent|neither|nor)\b|无|没有|不", re.IGNORECASE)
_SHOWN_WITH: Mapping[str, frozenset[str]] = {
    "head": frozenset(("head", "neck")),
    "neck": frozenset(("head", "neck", "chest")),
    "chest": frozenset(("neck", "chest", "abdomen")),
    "abdomen": frozenset(("chest", "abdomen", "pelvis")),
    "pelvis": frozenset(("abdomen", "pelvis")),
}
"""Body part -> those that a picture of it may show as well, at its edge."""


def takes_for_granted(question: str) -> bool:
    """Whether a question presupposes that the picture can show what it names.

    Whether an organ is in the picture, and whether the picture is of a body part, can be asked of any picture (``Is the
    liver visible?``, ``Is this a head CT?``). Whether it is healthy, or has a finding, presupposes it (``Is there a
    tumor in the liver?``), and a finding presupposes pictures that can show it (``Does this patient have pneumonia?``).
    """
    text = question.lower()
    if is_knowledge(text) or presence_wording(question) is not None or kind_claims(question):
        return False
    if _ATTRIBUTE.search(text) is not None:
        return True
    existence = _CHINESE_EXISTENCE if is_chinese(question) else EXISTENCE
    is_existence = claim_of(question) is None and existence.search(text) is not None
    return not is_existence or _PATIENT_HAS.search(text) is not None


def patient_side(question: str) -> str | None:
    """The words with which a question means the patient's left or right (``right side of the patient``), or None."""
    match = _PATIENT_SIDE.search(question)
    return match.group().strip(" ?\uff1f") if match is not None else None


def organ_of_system(question: str) -> str | None:
    """The organ and the system of a yes or no question whether one belongs to the other; None for other questions."""
    structures = anatomy().structures_in(question)
    organ = next((one.name for one in structures if one.kind == "organ"), None)
    system = next((one.name for one in structures if one.kind == "system"), None)
    return f"{organ} and {system}" if organ and system and asks_yes_or_no(question) else None


def counted_topic(question: str) -> str | None:
    """What a question counts, in the singular (``How many kidneys ...?`` -> ``kidney``); None where it counts nothing.

    Several organs together are one topic (``kidney and lung``), which training counts only where a question of it does.
    """
    if _COUNT.search(question) is None:
        return None
    topic = _named_topic(question)
    return f"{topic} on one side" if topic is not None and _ONE_SIDE.search(question) is not None else topic


def _named_topic(question: str) -> str | None:
    """What the words of a question name that counts something."""
    structures = anatomy().structures_in(question)
    if structures:
        joined = _COUNTS_TOGETHER.search(question)
        together = anatomy().structures_in(joined.group()) if joined is not None else []
        return " and ".join(sorted(one.name for one in together)) if len(together) > 1 else structures[0].name
    finding = FINDING.search(question) or re.search(CHINESE_FINDING, question)
    noun = _COUNTED_NOUN.search(question.lower()) or _CHINESE_COUNTED_NOUN.search(question)
    name = finding.group().lower() if finding is not None else noun.group("noun") if noun is not None else None
    return re.sub(r"(?<=[^su])s$", "", re.sub("ies$", "y", name)) if name is not None else None


def presence_questions(question: str) -> tuple[str, ...]:
    """The questions whether the organs that a question takes for granted are in the picture.

    "Where is the spleen?" has an answer only where "Does the picture contain spleen?" is answered by yes. A comparison
    for yes or no ("Is the liver smaller than the spleen?") takes all its organs for granted, others the first.
    """
    compares = _compares(question)
    counts = _COUNT.search(question) is not None
    if is_knowledge(question) or not (compares or counts or takes_for_granted(question)):
        return ()
    organs = [one.name for one in anatomy().structures_in(question) if one.kind == "organ"]
    return tuple(map(presence_question, organs if compares else organs[:1]))


def _compares(question: str) -> bool:
    return _COMPARISON.search(question) is not None and asks_yes_or_no(question)


def lacks_presence(question: str, answer: str, presence_answer: str) -> bool:
    """Whether an answer is about an organ that the answer to one of its `presence_questions` says is not there.

    Args:
        question: The question.
        answer: Its answer; one that denies the organ (``No``, ``0``) agrees with its absence.
        presence_answer: The answer to one of its `presence_questions`.
    """
    if not is_no(presence_answer):
        return False
    if is_no(answer):
        return _compares(question)  # something that is not there is neither larger nor smaller
    return _COUNT.search(question) is None or answer.strip().lower().rstrip(".。") not in _NONE


def _affirms(question: str, answer: str) -> bool:
    """Whether an answer says that what the question names is in the picture."""
    if is_knowledge(question):
        return False
    if _COUNT.search(question) is not None:
        return answer.strip().lower().rstrip(".。") not in _NONE
    return is_yes(answer)


def _affirmed_by(answer: str) -> list[Structure]:
    """Organs and findings that an answer says the picture shows; none of a sentence, which may deny them."""
    if len(answer.split()) > _LONGEST_ANSWER or _DENIAL.search(answer):
        return []
    return [one for one in anatomy().structures_in(answer) if one.kind in ("organ", "finding")]


def needed_structures(question: str, answer: str) -> list[Structure]:
    """What a picture must be able to show: a question takes it for granted, or its answer affirms it.

    Args:
        question: The question; a comparison takes both organs for granted, whatever its answer.
        answer: Its answer: a yes, or a number above 0 of how many there are, affirms what the question names; an organ
            or finding affirms itself (``Which is smaller, kidney or liver?`` of a picture of the head), also to a
            question of knowledge about the picture (``Which organs in it belong to the nervous system?``).
    """
    named = _affirmed_by(answer)
    if is_knowledge(question):
        named = named if names_picture(question) else []
    elif takes_for_granted(question) or _compares(question) or _affirms(question, answer):
        named = [*anatomy().structures_in(question), *named]
    return [one for one in named if one.body_parts]


def not_shown_with(structures: Sequence[Structure], parts: Iterable[str]) -> Structure | None:
    """The first of some structures that no picture of these body parts shows, also at its edge; None for none."""
    visible = frozenset().union(*(_SHOWN_WITH[part] for part in parts))
    return next((one for one in structures if not one.body_parts & visible), None)


def impossible_structure(question: str, answer: str, picture: str) -> Structure | None:
    """What a question takes for granted, or its answer affirms, that the picture cannot show; None for nothing.

    Args:
        question: The question.
        answer: Its answer, as in `needed_structures`.
        picture: What the picture shows, in words: ``CT, Abdomen``, or a model's answer to `BODY_PART_QUESTION`.
    """
    needed = needed_structures(question, answer)
    parts = anatomy().body_parts_in(picture.replace("_", " ")) if needed else frozenset()
    return not_shown_with(needed, parts) if parts else None

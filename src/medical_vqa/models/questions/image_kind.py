"""Yes or no questions about what kind of picture it is: made by which technique, in which plane, of which body part.

``Is this an MRI?`` has the answer that follows from the one to ``What modality is used to take this image?``. Training
asks the open question of nearly every picture and the other of few, so that the open one is answered better.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from medical_vqa.models.questions.premises import BODY_PART_QUESTION
from medical_vqa.text import is_chinese

Attribute = Literal["modality", "plane", "body part"]

_NAMES: dict[Attribute, dict[str, str]] = {
    "modality": {
        "ct": r"ct|cat|computed tomograph(?:y|ic)|计算机断层(?:扫描|成像)?",
        "mri": r"mri|mr|nmr|magnetic resonance|核磁共振|磁共振|核磁",
        "x-ray": r"x-? ?rays?|radiographs?|cxr|plain films?|roentgenograms?|x ?光|x ?射线|x ?线",
        "ultrasound": r"ultrasounds?|ultrasonograph(?:y|ic)|sonogra(?:ms?|phy|phic)|超声|b超",
        "pet": r"pet|positron emission tomography",
    },
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
_OPEN_QUESTIONS: dict[tuple[Attribute, bool], str] = {
    ("modality", False): "What modality is used to take this image?",
    ("plane", False): "What is the scanning plane of this image?",
    ("modality", True): "这张图片的成像方式是什么?",
    ("plane", True): "这个图像的扫描平面是什么?",
    ("body part", False): BODY_PART_QUESTION,
    ("body part", True): "这个图像属于身体的哪个部位?",
}
_BE = "(?:is|are|was|were)"
_PICTURE = (
    r"(?:(?:this|that|the|these|it)(?: (?:medical |following |above |displayed |shown |given )?"
    r"(?:images?|pictures?|scans?|slices?|photos?|films?|study|figures?|one|examinations?))?)"
)
_ACQUISITION = (
    r"(?:taken|made|acquired|obtained|produced|created|captured|generated|done|performed|recorded|shot|scanned)"
    r"(?: (?:by|with|using|through|via|from|in|on|along|by means of|by using))?"
)
_TAIL = (
    r"(?: (?:images?|imaging|pictures?|scans?|slices?|sections?|views?|planes?|study|films?|photos?|examinations?|"
    r"exams?|scanners?|machines?|techniques?|modality|technology|orientation|cuts?))*"
)
_CHINESE_TAIL = "(?:图像|图片|影像|照片|片子|片|扫描|检查|成像|切片|图|的)*"
_KIND = (  # without an article only the name, for ``Is this CT normal?`` is about what a CT shows
    rf"(?:(?P<plain>NAME){_TAIL}|(?:in |on |from |of )?(?:an? |the )(?P<more>(?:[\w-]+ ){{0,2}}?)(?P<name>NAME){_TAIL}"
    r"(?P<rest> (?:of|with|from|showing|through|taken|in|at|weighted) .+)?)"
)
_FORMS = (
    rf"{_BE} {_PICTURE} (?P<no>not )?{_ACQUISITION} {_KIND}",
    rf"{_BE} {_PICTURE} (?P<no>not )?(?:in )?{_KIND}",
    rf"{_BE} (?:an? |the )?(?P<name>NAME){_TAIL} used(?: to (?:take|make|acquire|obtain|produce) {_PICTURE})?",
    rf"does {_PICTURE} (?:look|appear|seem)(?: like| to be)? {_KIND}",
    rf"(?:am i|are (?:we|you)) looking at {_KIND}",
)
_BODY_PART_FORMS = (
    *_FORMS,
    rf"{_BE} {_PICTURE} (?P<no>not )?(?:an? |the )?(?:images?|pictures?|scans?|slices?|study|photos?|views?|sections?|"
    r"films?|examinations?|(?P<more>ct|mri|x-? ?ray|radiograph|ultrasound)(?: scan| image)?) of (?:an? |the )?"
    r"(?P<name>NAME)",
    rf"does {_PICTURE} (?:show|depict|display|represent|belong to|come from) (?:an? |the )?(?P<name>NAME)",
)
_CHINESE_FORMS = (
    r"(?:请问)?(?:(?:这|该|此|本)(?:张|幅|个)?(?:图片|图像|影像|照片|片子|图)?)(?:的拍摄)?"
    r"(?:是否是|是不是|是否为|是否|是|属于|为)?(?:通过|用|由)?(?:一?(?:张|幅|个))?(?P<name>NAME)"
    rf"{_CHINESE_TAIL}(?:拍摄|拍|做)?(?:的)?(?:吗|么|嘛)?",
)
_CHOICE = re.compile(r"\b(?:or|which|what|where|how|why|who|when)\b|还是|或")
_PART = re.compile("brain|skull|cranium|大?脑部?")
_YES = frozenset(("yes", "是", "是的"))
_NO = frozenset(("no", "不是", "否"))


@dataclass(frozen=True, slots=True)
class KindClaim:
    """What a yes or no question says that a picture is."""

    attribute: Attribute
    """What it is about."""
    value: str
    """What the picture is said to be: ``mri``, ``coronal``."""
    denied: bool
    """Whether it is said not to be that (``Is this not a CT?``)."""
    only: bool
    """Whether nothing else is said: a yes to ``Is this an MRI of the brain?`` takes more than that it is an MRI, and
    the brain is no more than a part of a head."""
    open_question: str
    """Question whose answer decides."""

    def yes(self, open_answer: str) -> bool | None:
        """Whether the answer is yes.

        Args:
            open_answer: The answer to `open_question`.

        Returns:
            None where that decides nothing: it names no such kind, or only a part of the question.
        """
        named = kind_named(open_answer, self.attribute)
        if named is None or (named == self.value and not self.only):
            return None
        return (named == self.value) != self.denied


@lru_cache(maxsize=4096)
def kind_claims(question: str) -> tuple[KindClaim, ...]:
    """The kinds of picture that a yes or no question names, one for each attribute; empty for every other question."""
    chinese = is_chinese(question)
    text = re.sub(r"\s+", " ", question.strip().lower().rstrip(" ?.!\uff1f")).strip()
    if _CHOICE.search(text):
        return ()
    claims = []
    for attribute, names in _NAMES.items():
        english = _BODY_PART_FORMS if attribute == "body part" else _FORMS
        for value, name in names.items():
            forms = (form.replace("NAME", name) for form in (_CHINESE_FORMS if chinese else english))
            if (match := next(filter(None, (re.fullmatch(form, text) for form in forms)), None)) is None:
                continue
            parts = match.groupdict()
            only = not (
                parts.get("more") or parts.get("rest") or _PART.fullmatch(parts["name"] or parts.get("plain") or "")
            )
            denied = bool(parts.get("no"))
            claims.append(KindClaim(attribute, value, denied, only, _OPEN_QUESTIONS[attribute, chinese]))
            break
    return tuple(claims)


def follows(claims: Iterable[KindClaim], open_answers: Mapping[str, str]) -> bool | None:
    """Whether the answer to a question with these claims is yes; None where nothing decides.

    Args:
        claims: What the question says.
        open_answers: Open question -> the answer to it.
    """
    decided = [claim.yes(open_answers.get(claim.open_question, "")) for claim in claims]
    known = [yes for yes in decided if yes is not None]
    return known[0] if len(set(known)) == 1 else None


def kind_named(answer: str, attribute: Attribute) -> str | None:
    """The kind that an answer names (``Transverse Plane``: ``transverse``); None where it names none or several."""
    text = re.sub(r"\s+", " ", answer.strip().lower())
    tail = _CHINESE_TAIL if is_chinese(answer) else _TAIL
    return next((value for value, name in _NAMES[attribute].items() if re.fullmatch(f"(?:{name}){tail}", text)), None)


def yes_or_no(yes: bool, like: str) -> str | None:
    """Yes or no in the words of another answer; None where that is neither."""
    word = like.strip().lower()
    if word not in _YES | _NO:
        return None
    if is_chinese(like):
        return "是的" if yes else "不是"
    return "Yes" if yes else "No"

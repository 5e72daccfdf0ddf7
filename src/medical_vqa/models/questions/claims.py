"""What yes or no claims about a picture: that a subject is normal, of normal size, or free of a finding.

Every wording of one claim (``Is the liver healthy?``, ``Does the liver look abnormal?``, ``肝脏正常吗?``) has the same
canonical questions. A model that answers two of them so that one says normal and the other abnormal contradicts itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from medical_vqa.text import is_chinese

Attribute = Literal["state", "size", "finding"]

PICTURE = "this image"
"""Subject of a claim about all that the picture shows."""

_FINDING_TEXT = (
    r"tumou?rs?|cancers?|mass(?:es)?|nodules?|lesions?|pneumonia|pneumothorax|(?:o?edema)|effusions?|atelectasis|"
    r"cardiomegaly|infiltrat\w*|fractures?|consolidations?|ha?emorrhages?|bleed(?:ing)?|infarct\w*|opacit(?:y|ies)|"
    r"hydrocephalus|stones?|cysts?|emphysema|aneurysms?|fibrosis|metastas[ei]s|strokes?|ascites|calcifications?|"
    r"cirrhosis|\w{4,}itis|\w{4,}omas?|enlargement|shift|obstruction|diseases?|patholog(?:y|ies)|abnormalit(?:y|ies)"
)
FINDING = re.compile(rf"\b(?:{_FINDING_TEXT})\b", re.IGNORECASE)
"""English words for findings."""
CHINESE_FINDING = (
    "肿瘤|癌|脑瘤|瘤|炎|积液|水肿|肥大|肿大|气胸|结节|肿块|不张|浸润|骨折|出血|梗死|梗塞|病变|病灶|囊肿|结石|积水"
)
"""Pattern of Chinese words for findings."""
_NORMAL = "normal|healthy|unremarkable|intact|clear|fine|ok|okay|all right"
_ABNORMAL = "not normal|not healthy|abnormal|unhealthy|diseased|pathologic(?:al)?|sick"
_STATE = rf"(?P<word>{_ABNORMAL}|{_NORMAL})(?: (?:appearing|looking|in appearance))?"
_SEEM = r"(?:looks?|appears?|seems?)(?: to be)?"
_ABNORMALITY = (
    r"(?:any |some |an? |signs? of |evidence of )*"
    r"(?:abnormalit(?:y|ies)|abnormal (?:findings?|areas?)|(?:any|some)thing (?:abnormal|wrong)|patholog(?:y|ies)|"
    r"diseases?|problems?)"
)
_IN = r"(?: (?:in|on|of|within|with|at|inside) (?P<subject>.+))?"
_HAVE = r"(?:have|has|shows?|contains?|exhibits?|demonstrates?|suffers? from)"
_OBSERVED = r"(?:seen|observed|found|identified|detected|visible|present|visuali[sz]ed)"
_ANY = r"(?:any |some |an? |the |signs? of |evidence of )*"
_BE = "(?:is|are|was|were)"
_FINDING_NAME = rf"(?P<finding>(?:[\w-]+ ){{0,3}}?(?:{_FINDING_TEXT}))"

_STATE_FORMS = tuple(
    re.compile(f"^{pattern}$")
    for pattern in (
        rf"{_BE} (?:this|it|that|these|there) (?:an? )?{_STATE} (?P<subject>.+)",
        rf"{_BE} (?P<subject>.+?) {_STATE}",
        rf"(?:do|does|did) (?P<subject>.+?) {_SEEM} {_STATE}",
    )
)
_ABNORMALITY_FORMS = tuple(
    re.compile(f"^{pattern}$")
    for pattern in (
        rf"{_BE} there (?P<no>no )?{_ABNORMALITY}(?: {_OBSERVED})?{_IN}",
        rf"{_BE} {_ABNORMALITY} {_OBSERVED}{_IN}",
        rf"(?:can|could) {_ABNORMALITY} be {_OBSERVED}{_IN}",
        rf"(?:can|could|do) you (?:see|find|detect) (?P<no>no )?{_ABNORMALITY}{_IN}",
        rf"(?:do|does|did) (?P<subject>.+?) {_HAVE} (?P<no>no )?{_ABNORMALITY}",
        rf"{_BE} (?P<subject>.+?) (?P<no>free (?:of|from)|without|clear of) {_ABNORMALITY}",
        rf"{_BE} {_ABNORMALITY}{_IN}",
    )
)
_SIZE_FORMS = tuple(
    re.compile(f"^{pattern}$")
    for pattern in (
        rf"{_BE} (?P<subject>.+?) (?P<word>enlarged|too (?:big|large)|not enlarged|(?:of |in )?normal(?: in)? size|"
        r"normal[- ]sized|(?:bigger|larger) than (?:normal|usual))",
        rf"(?:do|does|did) (?P<subject>.+?) {_SEEM} (?P<word>enlarged|normal in size|normal[- ]sized)",
        r"is the size of (?P<subject>.+?) (?P<word>normal|abnormal|enlarged)",
        r"is there (?:an? |any )?(?P<word>enlargement) of (?P<subject>.+)",
    )
)
_FINDING_FORMS = tuple(
    re.compile(f"^{pattern}$")
    for pattern in (
        rf"{_BE} there (?P<no>no )?{_ANY}{_FINDING_NAME}(?: {_OBSERVED})?{_IN}",
        rf"(?:can|could) {_ANY}{_FINDING_NAME} be {_OBSERVED}{_IN}",
        rf"(?:can|could) {_ANY}{_FINDING_NAME}{_IN} be {_OBSERVED}",
        rf"(?:can|could|do) you (?:see|find|detect) (?P<no>no )?{_ANY}{_FINDING_NAME}{_IN}",
        rf"(?:do|does|did) (?P<owner>.+?) {_HAVE} (?P<no>no )?{_ANY}{_FINDING_NAME}{_IN}",
        rf"{_BE} (?P<owner>.+?) (?P<no>free (?:of|from)|without|clear of) {_ANY}{_FINDING_NAME}",
        rf"{_BE} {_ANY}{_FINDING_NAME} {_OBSERVED}{_IN}",
        rf"{_BE} (?:this|it) {_ANY}{_FINDING_NAME}{_IN}",
    )
)
_NO_CLAIM = re.compile(r"\b(?:or|which|what|where|how|why|who|when)\b")
_PICTURE_NAME = (
    r"(?:this|the|these|that|an?)? ?(?:medical |chest |brain |abdominal )?"
    r"(?:images?|pictures?|scans?|slices?|photos?|films?|radiographs?|x-? ?rays?|ct|mri|mr|study)(?: scan| image)?"
)
_PICTURE_END = re.compile(
    rf"\s+(?:{_OBSERVED}\s+)?(?:(?:in|on) (?:this|the|these|that) "
    r"(?:images?|pictures?|scans?|slices?|photos?|films?|radiographs?|x-? ?rays?|ct|mri|mr|study)(?: scan| image)?|"
    r"here)$"
)
_PATIENT = r"(?:(?:this|the|that|a)? ?(?:patient|person|man|woman|child|case)|he|she|it|this|everything|anything)"
_WHOLE = re.compile(rf"^(?:{_PICTURE_NAME}|{_PATIENT})$")
_ARTICLE = re.compile(r"^(?:(?:this|the|that|these|those|an?|any|his|her|your) )?(?:patient'?s? )?")
_YES = frozenset(["是", "是的", "有", "存在", "可以", "能", "包含", "包括", "可见", "对", "会"])
_NO = frozenset(["否", "不是", "不", "没有", "无", "不存在", "不可以", "不能", "不包含", "不包括", "不可见", "不会"])
_CHINESE_PREFIX = re.compile(
    r"^(?:请问|请看)?在?(?:(?:这|该|此|本)?(?:张|幅|个)?(?:医学)?(?:图片|图像|影像|照片|片子|图))(?:中|里|上|内)?[,\uff0c]?的?"
)
_CHINESE_PATIENT = re.compile(r"^(?:这个|这位|该|图中)?(?:病人|患者|病患)的?")
_CHINESE_ASKS = re.compile(r"吗|么$|嘛$|是否|是不是|有没有|能否|能不能")
_CHINESE_OPEN = re.compile(r"哪|什么(?!异常|病变)|还是|或|怎|几|多少|为何|谁")
_CHINESE_ABNORMALITY = re.compile(
    r"^(?P<subject>.*?)(?:是否|是不是|能否|可以|能够?)*(?P<no>没有?|无)?"
    r"(?:有没有|患有|存在|出现|观察到|看到|看见|发现|可见|显示|有|任何|什么|的)+(?:异常|疾病|病变|问题)$"
)
_CHINESE_STATE = re.compile(
    r"^(?P<subject>.*?)(?:是否|是不是|看起来|看上去|显得|属于|是|很)*"
    r"(?P<word>不健康|不正常|健康|正常|异常|患病|有病)的?$"
)
_CHINESE_FINDINGS = re.compile(
    r"^(?P<subject>.*?)(?:是否|是不是|能否|能不能|可以|能够?|中|里|上|内)*"
    r"(?:有没有|(?P<no>没有|无)(?:患有|患|得|存在|出现|观察到|看到|看见|发现|可见|显示)?|"
    r"(?:患有|患|得了|存在|出现|观察到|看到|看见|发现|可见|显示|包含|有))(?:任何|什么)?(?:的)?"
    rf"(?P<finding>[\u4e00-\u9fff]{{0,5}}(?:{CHINESE_FINDING}))$"
)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a question for yes or no is about, whatever its wording."""

    attribute: Attribute
    """Whether the subject is normal (``state``), of normal ``size``, or has a ``finding``."""
    subject: str
    """What is judged, as a noun phrase (``the liver``); `PICTURE` for all that it shows."""
    finding: str
    """The finding; empty for the other attributes."""
    yes_means_normal: bool
    """Whether yes says that nothing is wrong."""
    chinese: bool = False
    """Whether the question is in Chinese."""

    def canonical_questions(self) -> tuple[str, ...]:
        """Questions that every wording of this claim shares; an answer to each of them makes the same claim."""
        return _chinese_forms(self) if self.chinese else _english_forms(self)

    def says_normal(self, answer: str) -> bool | None:
        """Whether an answer says that nothing is wrong; None for one that is neither yes nor no."""
        text = answer.strip().lower().rstrip(".。!")
        if self.attribute == "state":
            if re.search(rf"\b(?:{_ABNORMAL})\b|不正常|不健康|异常", text):
                return False
            if re.search(rf"\b(?:{_NORMAL})\b|正常|健康", text):
                return True
        if not is_yes(text) and not is_no(text):
            return None
        return is_yes(text) == self.yes_means_normal


def presupposes_finding(question: str) -> bool:
    """Whether a question takes for granted that the picture shows a finding (``How to treat the disease ...?``)."""
    chinese = re.search(rf"{CHINESE_FINDING}|异常|疾病|病变", question)
    return (FINDING.search(question) or chinese) is not None and claim_of(question) is None


def is_yes(answer: str) -> bool:
    """Whether an answer is a yes, in English or Chinese."""
    text = answer.strip().lower().rstrip(".。!")
    return text in _YES or re.match(r"\W*yes\b", text) is not None


def is_no(answer: str) -> bool:
    """Whether an answer is a no, in English or Chinese."""
    text = answer.strip().lower().rstrip(".。!")
    return text in _NO or re.match(r"\W*no\b", text) is not None


@lru_cache(maxsize=1 << 12)
def claim_of(question: str) -> Claim | None:
    """What a question claims; None for one that is not answered by yes or no, or claims nothing of the kind."""
    if is_chinese(question):
        return _chinese_claim(question)
    text = re.sub(r"\s+", " ", re.sub(r"[?!.,;:]+", " ", question.lower().replace("is/are", "is"))).strip()
    text = re.sub(r"^(?:please |can you tell (?:me )?(?:if|whether) |do you think )+", "", text)
    if _NO_CLAIM.search(text) is not None:
        return None
    for shortened in dict.fromkeys((_PICTURE_END.sub("", text), text)):
        if (claim := next(_english_claims(shortened), None)) is not None:
            return claim
    return None


def _english_claims(text: str) -> Iterator[Claim]:
    for form in _SIZE_FORMS:
        if match := form.match(text):
            normal = "normal" in match["word"].split() or match["word"] in ("not enlarged", "normal-sized")
            normal = normal and "than" not in match["word"]
            yield Claim("size", _subject(match["subject"]), "", normal)
    for form in _ABNORMALITY_FORMS:
        if match := form.match(text):
            yield Claim("state", _subject(match["subject"]), "", bool(match.groupdict().get("no")))
    for form in _FINDING_FORMS:
        if match := form.match(text):
            groups = match.groupdict()
            owner = _subject(groups.get("owner"))
            subject = _subject(groups.get("subject"))
            place = subject if subject != PICTURE else owner
            yield Claim("finding", place, match["finding"].strip(), bool(groups.get("no")))
    for form in _STATE_FORMS:
        if match := form.match(text):
            yield Claim("state", _subject(match["subject"]), "", re.fullmatch(_NORMAL, match["word"]) is not None)


def _subject(text: str | None) -> str:
    """A noun phrase with its article; `PICTURE` for the picture, the patient and nothing."""
    if not text or _WHOLE.match(text.strip()):
        return PICTURE
    return f"the {_ARTICLE.sub('', text.strip())}"


def _english_forms(claim: Claim) -> tuple[str, ...]:
    subject, finding = claim.subject, claim.finding
    plural = re.search(r"(?:[^su]s|lungs and .+)$", subject) is not None
    be = "Are" if plural else "Is"
    if claim.attribute == "size":
        return (f"{be} {subject} enlarged?", f"{be} {subject} normal in size?")
    if claim.attribute == "state":
        if subject == PICTURE:
            return ("Is this image normal?", "Are there abnormalities in this image?")
        return (f"{be} {subject} healthy?", f"{be} {subject} abnormal?")
    if subject == PICTURE:
        return (f"Does the patient have {finding}?", f"Can {finding} be observed in this picture?")
    return (f"Is there {finding} in {subject}?", f"Can {finding} be observed on {subject} in this picture?")


def _chinese_claim(question: str) -> Claim | None:
    text = re.sub(r"[\s?!.,;\uff1f\uff01\u3002\uff0c\uff1b]+", "", question)
    if _CHINESE_ASKS.search(text) is None or _CHINESE_OPEN.search(text) is not None:
        return None
    text = re.sub(r"(?:吗|么|嘛)$", "", text).removesuffix("的")
    text = _CHINESE_PATIENT.sub("", _CHINESE_PREFIX.sub("", text))
    if match := _CHINESE_ABNORMALITY.match(text):
        return Claim("state", _chinese_subject(match["subject"]), "", bool(match["no"]), True)
    if match := _CHINESE_STATE.match(text):
        return Claim("state", _chinese_subject(match["subject"]), "", match["word"] in ("健康", "正常"), True)
    if match := _CHINESE_FINDINGS.match(text):
        return Claim("finding", _chinese_subject(match["subject"]), match["finding"], bool(match["no"]), True)
    return None


def _chinese_subject(text: str) -> str:
    bare = re.sub(r"(?:中|里|上|内|的|部位)+$", "", _CHINESE_PATIENT.sub("", _CHINESE_PREFIX.sub("", text)))
    return bare or PICTURE


def _chinese_forms(claim: Claim) -> tuple[str, ...]:
    subject, finding = claim.subject, claim.finding
    if claim.attribute == "state":
        if subject == PICTURE:
            return ("这张图片看起来正常吗?", "图中存在异常吗?")
        return (f"{subject}是健康的吗?", f"{subject}是异常的吗?")
    if subject == PICTURE:
        return (f"病人患有{finding}吗?", f"在这张图片中,可以观察到{finding}吗?")
    return (f"{subject}有{finding}吗?", f"在这张图片中,{subject}可以观察到{finding}吗?")

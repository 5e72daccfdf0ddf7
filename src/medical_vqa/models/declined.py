"""Answers of a model that writes text which are no answers: empty ones, and those that decline the question in words.

A chat model says "I'm sorry, but I can't interpret medical images" where an answer is expected. Shown as an answer it
would be counted and reported as one. What the model does not see ("I cannot see a fracture") is an answer.
"""

from __future__ import annotations

import re

from medical_vqa.models.questions.reasons import Reason
from medical_vqa.text import without_thoughts

_APOLOGY = (
    r"(?:(?:i'?m|i am|we'?re|we are)?\s*(?:very |really |so |deeply )?(?:sorry|afraid)|(?:my |our )?apologies"
    r"|i apologi[sz]e|unfortunately|regrettably|sorry)(?: for [^,.;:!]{1,40})?[\s,.;:!-]*(?:but |that |however,? )?"
)
_ROLE = (
    r"(?:(?:as|since i(?:'?m| am)|because i(?:'?m| am)|i(?:'?m| am))\s+(?:just |only )?(?:an?|your|the)\s+"
    r"[^,.;:]{0,40}?\b(?:ai|a\.i\.|assistant|language model|llm|chatbot)\b[^,.;:]{0,60}"
    r"[\s,.;:]+(?:and |so |but )?(?:therefore,? )?)"
)
_CANNOT = (
    r"(?:i|we)(?:'?m| am|'?re| are)?\s*(?:simply |really |just )?(?:can'?t|can ?not|could not|couldn'?t|won'?t|will not"
    r"|(?:do not|don'?t) have the (?:ability|capability|capacity|expertise)\b"
    r"|(?:not (?:able|allowed|permitted|qualified|in a position|authorized|designed|trained)|unable|not going)\b)"
    r"\s*(?:to\s+)?(?:directly |currently |reliably |accurately |confidently |safely )?"
)
_ACTS = (
    r"(?:assist|help|comply|fulfil+|answer|respond|reply|provide|offer|give|make (?:a |any |medical )?"
    r"(?:diagnos|judg|assessment|determination|interpretation)|diagnose|interpret|analy[sz]e|assess|evaluate|examine"
    r"|determine|tell|say|comment|discuss|do (?:that|this)|process|access|open|continue"
    r"|(?:see|view|read|look at)\s+(?:the |this |that |any |your |medical |attached )*"
    r"(?:images?|pictures?|photos?|scans?|files?|attachments?|x-?rays?)\b)"
)
_LACKS_PICTURE = (
    r"(?:(?:there (?:is|was)|i (?:see|received|was given)) no (?:image|picture|attachment)"
    r"|no (?:image|picture) (?:was|has been|is) (?:provided|attached|given|uploaded|shared|included)"
    r"|(?:i )?(?:don'?t|do not|didn'?t|did not) (?:see|have|receive) (?:access to )?"
    r"(?:(?:an?|any|the|your|actual|attached|uploaded|medical|provided) )*(?:images?|pictures?|attachments?|photos?)\b"
    r"|please (?:upload|provide|attach|share) (?:an?|the|your) [^.;,]{0,30}(?:image|picture|scan|photo|x-?ray))"
)
_DECLINES = re.compile(
    rf"^(?:{_APOLOGY})?(?:{_ROLE})?(?:{_APOLOGY})?(?:{_CANNOT}{_ACTS}|{_LACKS_PICTURE})", re.IGNORECASE
)
_DECLINES_ZH = re.compile(
    r"^(?:很|非常)?(?:抱歉|对不起|不好意思|遗憾)?[\s,,。!:]*(?:但|但是)?(?:作为(?:一个|一名)?[^,,。]{0,20}(?:AI|人工智能|语言模型|助手)"
    r"[^,,。]{0,12}[,,]?\s*)?(?:我|本人|我们)?(?:目前|暂时|并)?(?:无法|不能|不可以|没有办法|没法|没有能力)(?:直接|准确|为您|给您|对)*"
    r"(?:回答|提供|协助|帮助|诊断|解读|分析|判断|评估|查看|处理|看到(?:图|影|照|该图|这张))",
    re.IGNORECASE,
)
_LEADING = re.compile(r"^\W+")
_CONTRAST = re.compile(r"\b(?:but|however|nevertheless|that said|still)\b[\s,]*(.+)", re.IGNORECASE | re.DOTALL)
_CONTRAST_ZH = re.compile(r"(?:但是|但|不过|然而)[\s,,]*(.+)", re.DOTALL)
_ADVICE = re.compile(
    r"^\W*(?:(?:i|we) (?:can(?! (?:see|identify|observe|confirm))|could|would|'d|may|strongly|recommend|suggest|advise"
    r"|encourage|urge)|i'?d (?:be|recommend|suggest|advise)|please|it (?:is|'s|would be) (?:important|best|essential"
    r"|recommended|advisable)|you (?:should|could|may|can|might)|if you|feel free|let me know|consult|a (?:radiologist"
    r"|doctor|physician|qualified|healthcare|medical))",
    re.IGNORECASE,
)
_OPENING = 400  # characters of an answer in which it declines: what is matched takes time with their square
_ADVICE_ZH = re.compile(r"^\W*(?:我(?:可以|建议|能)|请|建议|您(?:可以|应)|如果)")


def declined_reason(answer: str, raw: str = "") -> Reason | None:
    """Why a written answer is none: ``empty_answer`` or ``model_declined``; None where it is an answer.

    An answer that declines and then answers after all ("I cannot diagnose, but the heart is enlarged") is one.

    Args:
        answer: The answer.
        raw: The model's text. Where the answer is empty and this is not, the endpoint marked it as a refusal.
    """
    if not answer.strip():
        return Reason("model_declined" if without_thoughts(raw).strip() else "empty_answer")
    text = answer.strip().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").replace("\N{FULLWIDTH COMMA}", ",")
    text = _LEADING.sub("", text)
    opening = text[:_OPENING]
    for declines, contrast, advice in (
        (_DECLINES, _CONTRAST, _ADVICE),
        (_DECLINES_ZH, _CONTRAST_ZH, _ADVICE_ZH),
    ):
        declining = declines.match(opening)
        if declining is None:
            continue
        answered = contrast.search(text, declining.end())
        if answered is None or advice.match(answered.group(1)):
            return Reason("model_declined")
    return None

"""Yes or no questions whether an organ is in the picture, and the one wording of them that training asks most.

``Is the lung visible?``, ``Can you see a lung?`` and ``Is there a lung here?`` have the answer to ``Does the picture
contain lung?``.
"""

from __future__ import annotations

import re
from functools import lru_cache

from medical_vqa.models.questions.anatomy import anatomy
from medical_vqa.text import is_chinese

_ORGAN = r"(?:an? |any |the |some )?(?P<organ>[a-z][a-z -]*?)"
_PICTURE = r"(?:the |this |that )?(?:images?|pictures?|scans?|slices?|photos?|films?|ct|mri|x-? ?ray)"
_HERE = rf"(?: (?:in|on|within) {_PICTURE}| here)?"
_IN_VIEW = r"(?:visible|shown|seen|present|there|displayed|included|depicted|visuali[sz]ed|observed)"
_FORMS = tuple(
    re.compile(form)
    for form in (
        rf"(?:is|are) {_ORGAN} {_IN_VIEW}{_HERE}",
        rf"(?:is|are) {_ORGAN} (?:in|on|within) {_PICTURE}",
        rf"(?:is|are) there {_ORGAN}(?: {_IN_VIEW})?{_HERE}",
        rf"(?:can|could|do) (?:you|we|i|one) (?:see|find|identify|observe) {_ORGAN}{_HERE}",
        rf"(?:can|could) {_ORGAN} be {_IN_VIEW}{_HERE}",
        rf"(?:does|do) {_PICTURE} (?:show|contain|include|depict|have|display) {_ORGAN}",
        rf"(?:does|do) {_ORGAN} (?:appear|exist){_HERE}",
    )
)


@lru_cache(maxsize=4096)
def presence_wording(question: str) -> str | None:
    """The same question in the words that training asks most; None for any other question.

    Only for an organ by its bare name: ``Is the left kidney visible?`` asks for more.
    """
    if is_chinese(question):
        return None
    text = re.sub(r"\s+", " ", question.strip().lower().rstrip(" ?.!")).strip()
    for form in _FORMS:
        if (match := form.fullmatch(text)) is None:
            continue
        word = match["organ"]
        name = anatomy().english.get(word) or anatomy().english.get(word.removesuffix("s"))
        if name is not None and anatomy().structures[name].kind == "organ":
            return f"Does the picture contain {name}?"
    return None

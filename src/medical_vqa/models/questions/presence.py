"""Yes or no questions whether an organ, or one of a system, is in the picture, and the wording that training asks most.

``Is the lung visible?``, ``Can you see a lung?`` and ``There is a lung here, right?`` have the answer to ``Does the
picture contain lung?``.
"""

from __future__ import annotations

import re
from functools import lru_cache

from medical_vqa.models.questions.anatomy import anatomy
from medical_vqa.models.questions.plain_words import rest_of
from medical_vqa.text import is_chinese

_PRESENCE = re.compile(
    r"\b(?:visible|visuali[sz]ed|shown?|shows|showing|seen?|present|there|displayed|displays?|includes?|included|"
    r"depict(?:s|ed)?|observed?|contains?|exists?|appears?|find|found|identif(?:y|ied)|detect(?:ed)?|any|imaged|belongs?|"
    r"(?:in|on|within) (?:the |this |that )?(?:images?|pictures?|scans?|slices?|photos?|films?|field))\b"
    r"|包含|包括|含有|看到|看见|可见|有|存在|显示|出现|观察到|在"
)


@lru_cache(maxsize=4096)
def presence_wording(question: str) -> str | None:
    """The same question in the words that training asks most; None for any other question.

    Only for an organ by its bare name: ``Is the left kidney visible?`` asks for more.
    """
    mentions = anatomy().mentions_in(question)
    if len(mentions) != 1 or _PRESENCE.search(question.lower()) is None:
        return None
    ((word, name),) = mentions
    kind, chinese = anatomy().structures[name].kind, is_chinese(question.replace(word, " "))
    if kind not in ("organ", "system") or rest_of(question.lower().replace(word, " ")):
        return None
    if kind == "system":
        english = f"Do any of the organs in the picture belong to the {name}?"
        return f"图片中有属于{word}的器官吗?" if chinese else english
    return f"图片中包含{word}吗?" if chinese else f"Does the picture contain {name}?"

"""Which side an answer means: the picture's or the patient's.

Radiology pictures show the patient as seen from the front (radiographs) or from the feet (axial slices), so that the
patient's left lies at the picture's right. SLAKE names organs by the patient's side ("Left Lung" lies at the picture's
right in all 35 rows with masks) and positions by the picture's ("Where is the liver?": left in 50 of 69).
"""

from __future__ import annotations

import re
from typing import Literal

Side = Literal["patient", "picture", "both"]
"""Whose left or right: the patient's, the picture's, or in one answer the patient's of an organ and the picture's of a
position (``Left Lung, Upper Right``)."""

_SIDE = re.compile(r"\b(?:left|right)\b|[左右]", re.IGNORECASE)
_ORGAN_SIDE = re.compile(
    r"\b(?:left|right) (?!(?:side|part|half|upper|lower|top|bottom|and|or)\b)[a-z]{3,}"
    r"|[左右][上中下]?侧?[肺肾叶颞股肱胸眼耳腮颌]",
    re.IGNORECASE,
)


def meant_side(answer: str) -> Side | None:
    """Whose left or right an answer names, in English or Chinese; None where it names neither."""
    if _SIDE.search(answer) is None:
        return None
    positions, organs = _ORGAN_SIDE.subn(" ", answer)
    if not organs:
        return "picture"
    return "both" if _SIDE.search(positions) else "patient"

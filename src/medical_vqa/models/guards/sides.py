"""Which side an answer means: the picture's or the patient's.

Radiology pictures show the patient as seen from the front (radiographs) or from the feet (axial slices), so that the
patient's left lies at the picture's right. SLAKE names organs by the patient's side ("Left Lung" lies at the picture's
right in all 35 rows with masks) and positions by the picture's ("Where is the liver?": left in 50 of 69).
"""

from __future__ import annotations

import re
from typing import Literal

Side = Literal["patient", "picture"]

_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)
_ORGAN_SIDE = re.compile(
    r"\b(?:left|right) (?!(?:side|part|half|upper|lower|top|bottom|and|or)\b)[a-z]{3,}", re.IGNORECASE
)


def meant_side(answer: str) -> Side | None:
    """Whose left or right an answer names; None where it names neither."""
    if _SIDE.search(answer) is None:
        return None
    return "patient" if _ORGAN_SIDE.search(answer) else "picture"

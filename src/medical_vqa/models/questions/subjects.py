"""Whether two questions concern the same subject: the same organ or finding, what contains it, or the same technique.

A question that is not answered is redirected where one is offered that does; any other offered question only shows what
the model can be asked.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from medical_vqa.models.questions.anatomy import Structure, anatomy

Relation = Literal["same", "container", "technique", "abnormality"]
"""How an offered question is about a question's subject: it names the same organ or finding (``same``), an organ or
body part that contains it (``container``: the brain for the temporal lobe), or where the question names no organ, it is
about the same ``technique`` (modality, contrast, plane, projection), or about an ``abnormality`` in general as well."""

_MODALITY = re.compile(
    r"\b(?:modality|modalities|mri?|ct|cat|x ?-?rays?|radiographs?|weight(?:ed|ing)|t[12]|flair|dwi|sequence|contrast|"
    r"gadolinium|barium|ultrasound|imaging|films?|cxr|protocol|how was (?:this|the))\b"
    r"|模态|成像|造影|增强|方式|加权|x光",
    re.IGNORECASE,
)
_PLANE = re.compile(
    r"\b(?:planes?|transverse|axial|coronal|sagittal|section|slice|ap|pa|lateral view|projection|view|oriented|"
    r"orientation|cross section|supine|upright)\b|平面|横断|冠状|矢状|切面|体位|正位|侧位",
    re.IGNORECASE,
)
_ABNORMALITY = re.compile(
    r"\b(?:abnormal\w*|normal|lesions?|patholog\w+|diseases?|diseased|healthy|unhealthy|findings?|anything wrong)\b"
    r"|异常|病变|疾病|健康|正常|病灶",
    re.IGNORECASE,
)


def subject_relation(question: str, offered: str) -> Relation | None:
    """How an offered question is about the subject of a question; None where it is about something else.

    Args:
        question: The question as typed.
        offered: The question that is offered in its place.
    """
    structures, others = _structures(question), {structure.name for structure in _structures(offered)}
    if any(structure.name in others for structure in structures):
        return "same"
    if any(structure.within & others for structure in structures):
        return "container"
    if any(structure.kind != "part" for structure in structures):
        return None
    for aspect in (_MODALITY, _PLANE):
        if aspect.search(question) and aspect.search(offered) and not others:
            return "technique"
    if not structures and not others and _ABNORMALITY.search(question) and _ABNORMALITY.search(offered):
        return "abnormality"
    return None


@lru_cache(maxsize=1 << 13)
def _structures(question: str) -> tuple[Structure, ...]:
    return tuple(anatomy().structures_in(question))

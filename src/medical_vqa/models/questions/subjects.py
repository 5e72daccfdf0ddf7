"""Whether two questions concern the same subject: the same organ or finding, what contains it, or the same technique.

A question that is not answered is redirected where one is offered that does; any other offered question only shows what
the model can be asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Self

from medical_vqa.models.questions.anatomy import anatomy

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


@dataclass(frozen=True, slots=True)
class Subject:
    """What a question is about, as far as `subject_relation` compares it."""

    names: frozenset[str]
    """Organs, body parts and findings that it names."""
    containers: frozenset[str]
    """Names of all that contains one of them."""
    names_organ: bool
    """Whether it names more than a body part."""
    techniques: frozenset[Literal["modality", "plane"]]
    """Aspects of the technique that it is about."""
    names_abnormality: bool
    """Whether it is about what is abnormal, in general words."""

    @classmethod
    def of(cls, question: str) -> Self:
        """The subject of a question as typed."""
        structures = anatomy().structures_in(question)
        techniques: list[Literal["modality", "plane"]] = []
        if _MODALITY.search(question):
            techniques.append("modality")
        if _PLANE.search(question):
            techniques.append("plane")
        return cls(
            names=frozenset(structure.name for structure in structures),
            containers=frozenset().union(*(structure.within for structure in structures)),
            names_organ=any(structure.kind != "part" for structure in structures),
            techniques=frozenset(techniques),
            names_abnormality=_ABNORMALITY.search(question) is not None,
        )

    def relation_to(self, offered: Subject) -> Relation | None:
        """As `subject_relation`."""
        if self.names & offered.names:
            return "same"
        if self.containers & offered.names:
            return "container"
        if self.names_organ or offered.names:
            return None
        if self.techniques & offered.techniques:
            return "technique"
        both_abnormal = self.names_abnormality and offered.names_abnormality
        return "abnormality" if both_abnormal and not self.names else None


def subject_relation(question: str, offered: str) -> Relation | None:
    """How an offered question is about the subject of a question; None where it is about something else.

    Args:
        question: The question as typed.
        offered: The question that is offered in its place.
    """
    return Subject.of(question).relation_to(Subject.of(offered))

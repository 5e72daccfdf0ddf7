"""Whether a question asks if something is abnormal, in whatever words: claims, short forms, and mixed languages."""

from __future__ import annotations

import re

from medical_vqa.models.questions.claims import CHINESE_FINDING, FINDING, claim_of
from medical_vqa.models.questions.disease_knowledge import disease_question, is_knowledge

_OPEN = re.compile(
    r"\b(?:which|what|where|how|why|who|when|describe)\b|哪|什么|怎|几个|几种|多少|为何|谁",
    re.IGNORECASE,
)
_COUNT_OF_STATE = re.compile(
    r"\bhow many\b.*\b(?:normal|abnormal|healthy|unhealthy|diseased|enlarged)\b"
    "|(?:几个|多少).*(?:是异常|异常的|正常|健康)",
    re.IGNORECASE,
)
"""A count of what is abnormal (``How many lungs are abnormal?``); training counts kinds of abnormalities as such."""
_CHOICE = re.compile(r"\bor\b|还是|或者", re.IGNORECASE)
_STATE = re.compile(
    r"\b(?:normal|abnormal|healthy|unhealthy|clear|malignant|benign|cancerous|metastatic|wrong|problems?|issues?|sick|ill|"
    r"enlarged|swollen|inflamed|infected|damaged|broken|fractured|ruptured|collapsed|diseased|unremarkable|intact|ok|okay|"
    r"fine|bleeding|suspicious|dangerous|serious)\b"
    r"|正常|异常|健康|问题|良性|恶性|肿大|发炎|损伤|破裂|患病|有病|严重",
    re.IGNORECASE,
)
_DIAGNOSIS = re.compile(
    r"\bdiagnos(?:is|es|e|ed|tic)\b|\bdifferentials?\b|\bpatholog(?:y|ies)\b"
    r"|\bwhat(?:['\u2019]?s| is| seems to be)(?: the)? (?:wrong|matter|problem|trouble|condition|disease|illness)\b"
    r"|\bwhat does (?:the|this|that) (?:patient|person|man|woman|child) (?:have|suffer)\b"
    r"|诊断|什么病|得了什么|怎么了|什么毛病",
    re.IGNORECASE,
)
"""Questions for a diagnosis, which name no finding and are no question for yes or no."""


def concerns_finding(question: str) -> bool:
    """Whether a question is for a diagnosis, or for yes or no, or without a verb, and about a finding or being normal.

    Other open questions (``Where is the tumor?``), those of general knowledge, and those for the treatment or cause of
    a disease are not. A question with a choice is where the choice is one of states (``normal or abnormal``).
    """
    if claim_of(question) is not None:
        return True
    if is_knowledge(question) or disease_question(question) is not None:
        return False
    if _DIAGNOSIS.search(question) is not None:
        return True
    if _OPEN.search(question) is not None:
        return _COUNT_OF_STATE.search(question) is not None
    if _STATE.search(question) is not None:
        return True
    names = FINDING.search(question) is not None or re.search(CHINESE_FINDING, question) is not None
    return names and _CHOICE.search(question) is None

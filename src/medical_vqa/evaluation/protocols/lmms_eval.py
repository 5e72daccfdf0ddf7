"""lmms-eval: equality after lower case, without brackets and punctuation, synonyms of yes and no unified."""

from __future__ import annotations

import re
import string

from medical_vqa.evaluation.protocols.base import Context, Protocol, ProtocolMetric, overall_open_closed

_ROUND_BRACKETS = re.compile(r"\([^)]*\)|（[^）]*）")
_WIDE_PUNCTUATION = "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～、《》【】"
_PUNCTUATION_TO_SPACES = str.maketrans(dict.fromkeys(string.punctuation + _WIDE_PUNCTUATION, " "))
_YES = frozenset(["yes", "yeah", "yep", "true", "是", "是的", "有", "包含", "可以", "能", "会"])
_NO = frozenset(["no", "nope", "false", "否", "不是", "没有", "无", "不包含", "不能", "不会", "不可以"])
_PUBLISHED_YES = _YES | {"正常"}
_PUBLISHED_NO = _NO | {"不正常", "异常"}


def lmms_equal(predicted: str, gold: str) -> float:
    """Equality after lmms-eval's rule, in which normal is a synonym of yes and abnormal of no."""
    return float(
        _normalize(predicted, _PUBLISHED_YES, _PUBLISHED_NO) == _normalize(gold, _PUBLISHED_YES, _PUBLISHED_NO)
    )


def lmms_repaired(predicted: str, gold: str) -> float:
    """The same, with normal and abnormal as separate answers."""
    return float(_normalize(predicted, _YES, _NO) == _normalize(gold, _YES, _NO))


def _normalize(answer: str, yes: frozenset[str], no: frozenset[str]) -> str:
    text = " ".join(_ROUND_BRACKETS.sub(" ", answer.strip().lower()).translate(_PUNCTUATION_TO_SPACES).split())
    if text in yes:
        return "yes"
    if text in no:
        return "no"
    return "xray" if text == "x ray" else text


def _metrics(_: Context) -> tuple[ProtocolMetric, ...]:
    defect = "In Chinese, normal (正常) counts as yes and abnormal (异常) as no; repaired, they are separate answers."
    return overall_open_closed(lmms_equal, lmms_repaired, defect)


PROTOCOL = Protocol(
    name="lmms_eval",
    rule="Lower case, (...) dropped, punctuation to spaces, synonyms of yes and no unified; equality.",
    citation="EvolvingLMMs-Lab/lmms-eval, lmms_eval/tasks/slake/utils.py",
    build=_metrics,
    datasets=("slake",),
)

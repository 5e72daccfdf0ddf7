"""The same answer in other medical words, and how often a finding is missed or imagined."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from medical_vqa.evaluation.metrics.base import SQUAD_RULE, Mean, best_score
from medical_vqa.evaluation.metrics.exact_match import exact_match_score
from medical_vqa.models.questions.terms import medical_terms
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.text import squad_normalize

_YES_CHINESE, _NO_CHINESE = ("是", "有", "存在", "可以看到"), ("否", "不", "没", "无")
_TOKEN = re.compile(r"[a-z]+|[0-9]+|[^\sa-z0-9]")


def synonym_match() -> Mean:
    """Exact match after medical synonyms and abbreviations of both answers are unified.

    Source of the synonyms: ``models/questions/terms.csv``, which cites MeSH, RadLex, the Fleischner glossary and others
    line by line; only terms whose meaning is the same are replaced.
    """

    def score(prediction: Prediction, example: Example) -> float:
        answers = tuple(unified(answer) for answer in example.answers)
        return best_score(exact_match_score, unified(prediction.answer), answers)

    return Mean("synonyms", "EM with synonyms", f"terms:same|{SQUAD_RULE}", score, by_text=True)


def sensitivity() -> Mean:
    """Fraction of the questions with the reference yes that are answered with yes: a finding that is there is named."""

    def score(prediction: Prediction, example: Example) -> float | None:
        return float(yes_or_no(prediction.answer) == "yes") if _reference(example) == "yes" else None

    rule = "rows:reference yes|right:first word yes|v:1"
    return Mean("sensitivity", "sensitivity", rule, score, by_text=True)


def specificity() -> Mean:
    """Fraction of the questions with the reference no that are answered with no: no finding is imagined."""

    def score(prediction: Prediction, example: Example) -> float | None:
        return float(yes_or_no(prediction.answer) == "no") if _reference(example) == "no" else None

    rule = "rows:reference no|right:first word no|v:1"
    return Mean("specificity", "specificity", rule, score, by_text=True)


def yes_or_no(answer: str) -> str | None:
    """``yes`` or ``no`` where an English or Chinese answer begins so; None otherwise."""
    words = squad_normalize(answer).split()
    if words and words[0] in ("yes", "no"):
        return words[0]
    text = answer.strip()
    if text.startswith(_NO_CHINESE):
        return "no"
    return "yes" if text.startswith(_YES_CHINESE) else None


def _reference(example: Example) -> str | None:
    """The reference where it is yes or no and nothing more; a sentence that begins so may say something else."""
    answer = example.answers[0].strip()
    is_short = squad_normalize(answer) in ("yes", "no") or answer in ("是", "否", "有", "没有", "不是", "无", "存在")
    return yes_or_no(answer) if is_short else None


@lru_cache(maxsize=1 << 14)
def unified(answer: str) -> str:
    """An answer with its medical terms in one spelling, lower case: ``CXR`` is ``chest x ray``."""
    table = medical_terms()
    longest = max(map(len, table), default=1)
    words, parts, place = _TOKEN.findall(answer.lower()), [], 0
    while place < len(words):
        for stop in range(min(len(words), place + longest), place, -1):
            term = table.get(tuple(words[place:stop]))
            if term is not None and term.relation == "same":
                parts += _TOKEN.findall(term.target)
                place = stop
                break
        else:
            parts.append(words[place])
            place += 1
    return _joined(parts)


def _joined(parts: Sequence[str]) -> str:
    """Words with spaces between them, hyphens as spaces, and Chinese characters without."""
    text = " ".join(part for part in parts if part not in ("-", "/"))
    return re.sub(r"(?<=[\u3400-\u9fff]) (?=[\u3400-\u9fff])", "", text)

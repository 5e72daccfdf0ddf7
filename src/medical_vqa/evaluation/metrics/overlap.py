"""BLEU and ROUGE-L over the words of an answer: for answers of several words, where equality is too strict.

Most answers here have one or two words: BLEU-4 of them is 0 by definition, and both are context, not a headline.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from medical_vqa.evaluation.metrics.answer_metrics import Counts, Mean, scored_answers
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.text import tokens

_RULE = "case:lower|punct:strip|articles:strip|tok:blank"


class Bleu:
    """Corpus BLEU: clipped n-gram precisions, geometric mean, brevity penalty; no smoothing.

    Source: Papineni et al., "BLEU: a method for automatic evaluation of machine translation", ACL 2002. Equals
    sacrebleu with ``tok:none``, ``smooth:none`` and ``eff:no`` on normalized words.
    """

    def __init__(self, order: int = 4) -> None:
        self.order = order
        self.name = f"bleu{order}"
        self.label = f"BLEU-{order}"

    def counts(self, prediction: Prediction, example: Example) -> Counts | None:
        """Matches and candidates of each n, then the lengths of answer and closest reference: 2 x order + 2 numbers."""
        return _bleu_counts(prediction.answer, example.answers, self.order) if example.answers else None

    def value(self, totals: Sequence[float]) -> float:
        """BLEU in [0, 1] of summed counts; nan when there was nothing to score."""
        hits, candidates = totals[: self.order], totals[self.order : -2]
        ours, theirs = totals[-2:]
        if not theirs and not ours:
            return math.nan
        if not all(hits) or not all(candidates):
            return 0.0
        mean = sum(math.log(h / n) for h, n in zip(hits, candidates, strict=True)) / self.order
        return math.exp(mean + min(0.0, 1.0 - theirs / ours))

    def signature(self) -> str:
        """The rule, in one line."""
        return f"{self.name}|corpus|{_RULE}|smooth:none|eff:no|refs:closest length|v:1"


def rouge_l() -> Mean:
    """Mean F-measure of the longest common subsequence of words; equals rouge-score without its stemmer."""

    def judge(prediction: Prediction, example: Example) -> float:
        ours = tokens(prediction.answer)
        return max(lcs_f_measure(ours, tokens(answer)) for answer in scored_answers(example.answers))

    return Mean("rouge_l", "ROUGE-L", f"sentence|{_RULE}|stem:no|beta:1|answers:max|v:1", judge)


def lcs_f_measure(ours: Sequence[str], theirs: Sequence[str]) -> float:
    """F-measure of the longest common subsequence; 0 where either side is empty.

    Source: Lin, "ROUGE: a package for automatic evaluation of summaries", 2004.
    """
    if not ours or not theirs:
        return 0.0
    shared = _lcs(ours, theirs)
    precision, recall = shared / len(ours), shared / len(theirs)
    return 2 * precision * recall / (precision + recall) if shared else 0.0


def sentence_bleu(ours: Sequence[str], theirs: Sequence[str], order: int) -> float:
    """Precision of the n-grams of one length times the brevity penalty, for a single answer; 0 without a match.

    This is ``nltk``'s ``sentence_bleu`` with all weight on one length, as several Med-VQA scorers call it.
    """
    hits, _ = _clipped(ours, [theirs], 1)
    matched, candidates = _clipped(ours, [theirs], order)
    if not hits or not matched:
        return 0.0
    return matched / candidates * (1.0 if len(ours) > len(theirs) else math.exp(1.0 - len(theirs) / len(ours)))


@lru_cache(maxsize=1 << 16)
def _bleu_counts(answer: str, answers: tuple[str, ...], order: int) -> Counts:
    ours, theirs = tokens(answer), [tokens(gold) for gold in scored_answers(answers)]
    found = [_clipped(ours, theirs, n) for n in range(1, order + 1)]
    closest = min((len(gold) for gold in theirs), key=lambda length: (abs(length - len(ours)), length))
    return *(float(hits) for hits, _ in found), *(float(n) for _, n in found), float(len(ours)), float(closest)


def _clipped(ours: Sequence[str], theirs: Sequence[Sequence[str]], n: int) -> tuple[int, int]:
    grams = _grams(ours, n)
    most: Counter[tuple[str, ...]] = Counter()
    for gold in theirs:
        most |= _grams(gold, n)
    return (grams & most).total(), grams.total()


def _grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))


def _lcs(ours: Sequence[str], theirs: Sequence[str]) -> int:
    row = [0] * (len(theirs) + 1)
    for word in ours:
        fresh = [0]
        for (diagonal, above), other in zip(pairwise(row), theirs, strict=True):
            fresh.append(diagonal + 1 if word == other else max(above, fresh[-1]))
        row = fresh
    return row[-1]

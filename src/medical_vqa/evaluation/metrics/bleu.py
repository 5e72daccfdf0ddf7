"""BLEU of a corpus and of a single answer.

Most answers here have one or two words: BLEU-4 of them is 0 by definition, and BLEU is context, not a headline.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

from medical_vqa.evaluation.metrics.base import Counts, comparable_answers
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.text import tokens

_SHORT = 12  # words


class Bleu:
    """Corpus BLEU: clipped n-gram precisions, geometric mean, brevity penalty; no smoothing.

    Source: Papineni et al., "BLEU: a method for automatic evaluation of machine translation", ACL 2002. Equals
    sacrebleu with ``tok:none``, ``smooth:none`` and ``eff:no`` on normalized words.
    """

    by_text = True

    def __init__(self, order: int = 4, rows: Callable[[Example], bool] | None = None) -> None:
        """Take the longest n and the rows that count, all if None; the function's name stands in the signature."""
        self.order = order
        self.rows = rows
        self.name = f"bleu{order}"
        self.label = f"BLEU-{order}"

    def counts(self, prediction: Prediction, example: Example) -> Counts | None:
        """Matches and candidates of each n, then the lengths of answer and closest reference: 2 x order + 2 numbers."""
        if not example.answers or (self.rows is not None and not self.rows(example)):
            return None
        return _bleu_counts(prediction.answer, example.answers, self.order)

    def value(self, totals: Sequence[float]) -> float:
        """BLEU in [0, 1] of summed counts; nan if there was nothing to score."""
        matches, candidates = totals[: self.order], totals[self.order : -2]
        predicted_length, reference_length = totals[-2:]
        if not reference_length and not predicted_length:
            return math.nan
        if not all(matches) or not all(candidates):
            return 0.0
        mean = sum(math.log(match / n) for match, n in zip(matches, candidates, strict=True)) / self.order
        return math.exp(mean + min(0.0, 1.0 - reference_length / predicted_length))

    def signature(self) -> str:
        """The rule, in one line."""
        rule = "case:lower|punct:strip|articles:strip|tok:blank|smooth:none|eff:no|refs:closest length|v:1"
        counted = f"rows:{self.rows.__name__.removeprefix('is_')}|" if self.rows else ""
        return f"{self.name}|corpus|{counted}{rule}"


bleu_1 = partial(Bleu, 1)
bleu_4 = partial(Bleu, 4)


def sentence_bleu(predicted: Sequence[str], reference: Sequence[str], order: int) -> float:
    """Precision of the n-grams of one length times the brevity penalty, for a single answer; 0 without a match.

    Equals ``nltk``'s ``sentence_bleu`` with all weight on one length, as several Med-VQA scorers call it.
    """
    shared_words, _ = _clipped_matches(predicted, [reference], 1)
    matches, candidates = _clipped_matches(predicted, [reference], order)
    if not shared_words or not matches:
        return 0.0
    brevity = 1.0 if len(predicted) > len(reference) else math.exp(1.0 - len(reference) / len(predicted))
    return matches / candidates * brevity


def nltk_bleu(predicted: Sequence[str], reference: Sequence[str]) -> float:
    """BLEU over one to four words of a single answer, as ``nltk`` computes it without smoothing.

    A length without a match counts as the smallest float instead of zero, so that the result is about 0, not 0.
    """
    shared, _ = _clipped_matches(predicted, [reference], 1)
    if not shared:
        return 0.0
    total = 0.0
    for order in range(1, 5):
        matches, candidates = _clipped_matches(predicted, [reference], order)
        total += math.log(matches / candidates if matches else sys.float_info.min) / 4
    brevity = 1.0 if len(predicted) > len(reference) else math.exp(1.0 - len(reference) / len(predicted))
    return brevity * math.exp(total)


@lru_cache(maxsize=1 << 16)
def _bleu_counts(predicted: str, answers: tuple[str, ...], order: int) -> Counts:
    words = tokens(predicted)
    references = [tokens(answer) for answer in comparable_answers(answers)]
    pairs = [_clipped_matches(words, references, n) for n in range(1, order + 1)]
    closest = min((len(reference) for reference in references), key=lambda n: (abs(n - len(words)), n))
    matches = [float(matched) for matched, _ in pairs]
    candidates = [float(total) for _, total in pairs]
    return *matches, *candidates, float(len(words)), float(closest)


def _clipped_matches(predicted: Sequence[str], references: Sequence[Sequence[str]], n: int) -> tuple[int, int]:
    """N-grams of the prediction that a reference contains, each at most as often as there, and all of its n-grams."""
    total = max(0, len(predicted) - n + 1)
    if not any(word in reference for reference in references for word in predicted):
        return 0, total
    if len(references) == 1 and len(predicted) <= _SHORT and len(references[0]) <= _SHORT:
        return _matches_of_short(predicted, references[0], n), total
    candidates = _ngrams(predicted, n)
    allowed: Counter[tuple[str, ...]] = Counter()
    for reference in references:
        allowed |= _ngrams(reference, n)
    return (candidates & allowed).total(), candidates.total()


def _matches_of_short(predicted: Sequence[str], reference: Sequence[str], n: int) -> int:
    """The same for a few words, for which counting costs more than searching."""
    remaining = [tuple(reference[start : start + n]) for start in range(len(reference) - n + 1)]
    matches = 0
    for start in range(len(predicted) - n + 1):
        ngram = tuple(predicted[start : start + n])
        if ngram in remaining:
            remaining.remove(ngram)
            matches += 1
    return matches


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))

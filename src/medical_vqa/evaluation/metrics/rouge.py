"""ROUGE-L: the longest common subsequence of words. Context for longer answers, not a headline."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from medical_vqa.evaluation.metrics.base import Mean, comparable_answers
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.text import tokens


def rouge_l() -> Mean:
    """Mean F-measure of the longest common subsequence of words; equals rouge-score without its stemmer."""

    def score(prediction: Prediction, example: Example) -> float:
        words = tokens(prediction.answer)
        return max(lcs_f_measure(words, tokens(answer)) for answer in comparable_answers(example.answers))

    rule = "sentence|case:lower|punct:strip|articles:strip|tok:blank|stem:no|beta:1|answers:max|v:1"
    return Mean("rouge_l", "ROUGE-L", rule, score, by_text=True)


def lcs_f_measure(predicted: Sequence[str], reference: Sequence[str]) -> float:
    """F-measure of the longest common subsequence; 0 if either side is empty.

    Source: Lin, "ROUGE: a package for automatic evaluation of summaries", 2004.
    """
    if not predicted or not reference:
        return 0.0
    shared = _longest_common_subsequence(predicted, reference)
    precision, recall = shared / len(predicted), shared / len(reference)
    return 2 * precision * recall / (precision + recall) if shared else 0.0


def _longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Its length, by the usual table of prefixes, one row of it at a time."""
    above = [0] * (len(second) + 1)
    for word in first:
        row = [0]
        for (diagonal, top), other in zip(pairwise(above), second, strict=True):
            row.append(diagonal + 1 if word == other else max(top, row[-1]))
        above = row
    return above[-1]

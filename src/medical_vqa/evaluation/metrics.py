"""Metrics as per-example counts and a value of their sum: intervals, breakdowns and pairings come for free.

``ExactMatch().counts(prediction, example)`` is ``(1.0, 1.0)`` for a right answer and ``(0.0, 1.0)`` for a
wrong one; the value of the summed counts is the first over the second.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from medical_vqa.records import Example, Prediction
from medical_vqa.text import squad_normalize, tokens

Counts = tuple[float, ...]
_SQUAD_RULE = "case:lower|punct:strip|articles:strip|answers:max|v:1"


class Metric(Protocol):
    """A corpus score that is a function of summed per-example counts."""

    @property
    def name(self) -> str:
        """The key in results.json: ``em``."""

    @property
    def label(self) -> str:
        """What people call it: ``EM``."""

    def counts(self, prediction: Prediction, example: Example) -> Counts | None:
        """This example's share of the totals, of one length for all; None where it does not apply."""

    def value(self, totals: Sequence[float]) -> float:
        """The score in [0, 1] for summed counts; nan when there was nothing to score."""

    def signature(self) -> str:
        """Everything that moves the number: two scores may be compared only if their signatures are equal."""


class ExactMatch:
    """Share of answers that equal an accepted answer after SQuAD normalisation."""

    name = "em"
    label = "EM"

    def counts(self, prediction: Prediction, example: Example) -> Counts | None:
        """``(1 if right else 0, 1)``; None for an example without accepted answers."""
        return _best(exact_match, prediction, example)

    def value(self, totals: Sequence[float]) -> float:
        """Mean over examples."""
        return _ratio(totals)

    def signature(self) -> str:
        """The rule, in one line."""
        return f"em|{_SQUAD_RULE}"


class TokenF1:
    """Mean overlap of answer words with the best-fitting accepted answer, as F1 of precision and recall."""

    name = "f1"
    label = "F1"

    def counts(self, prediction: Prediction, example: Example) -> Counts | None:
        """``(F1, 1)``; None for an example without accepted answers."""
        return _best(token_f1, prediction, example)

    def value(self, totals: Sequence[float]) -> float:
        """Mean over examples."""
        return _ratio(totals)

    def signature(self) -> str:
        """The rule, in one line."""
        return f"f1|tokens:blank|overlap:count|empty:equal|{_SQUAD_RULE}"


def exact_match(predicted: str, gold: str) -> float:
    """1.0 if both answers are equal after SQuAD normalisation, else 0.0."""
    return float(squad_normalize(predicted) == squad_normalize(gold))


def token_f1(predicted: str, gold: str) -> float:
    """F1 of the words two answers share, each word counted as often as it occurs in both.

    Where either side has no words left, the score is 1.0 if neither has and 0.0 otherwise.

    Source: ``compute_f1`` of the official SQuAD 2.0 evaluation script.
    """
    ours, theirs = tokens(predicted), tokens(gold)
    if not ours or not theirs:
        return float(ours == theirs)
    shared = (Counter(ours) & Counter(theirs)).total()
    if shared == 0:
        return 0.0
    precision, recall = shared / len(ours), shared / len(theirs)
    return 2 * precision * recall / (precision + recall)


def scored_answers(answers: Sequence[str]) -> tuple[str, ...]:
    """The accepted answers SQuAD compares with: those with words left, or the empty one if none has any."""
    return tuple(answer for answer in answers if squad_normalize(answer)) or ("",)


def _best(score: Callable[[str, str], float], prediction: Prediction, example: Example) -> Counts | None:
    if not example.answers:
        return None
    return max(score(prediction.answer, answer) for answer in scored_answers(example.answers)), 1.0


def _ratio(totals: Sequence[float]) -> float:
    earned, possible = totals
    return earned / possible if possible else math.nan

"""Metrics as per-example counts and a value of their sum: intervals, breakdowns and pairings come for free.

``ExactMatch().counts(prediction, example)`` is ``(1.0, 1.0)`` for a right answer and ``(0.0, 1.0)`` for a
wrong one; the value of the summed counts is the first over the second.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from medical_vqa.schema.records import Example, Prediction
from medical_vqa.text import squad_normalize, tokens

Counts = tuple[float, ...]
_SQUAD_RULE = "case:lower|punct:strip|articles:strip|answers:max|v:1"
_SEPARATORS = re.compile(r"[,;，、；]|\band\b", re.IGNORECASE)


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
    """Share of answers that equal an accepted answer after SQuAD normalization."""

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


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of a judgement of single answers, over the examples it applies to."""

    name: str
    """The key in results.json: ``closed``."""
    label: str
    """What people call it: ``closed accuracy``."""
    rule: str
    """What goes into the signature beside the name."""
    judge: Callable[[Prediction, Example], float | None]
    """The score of one answer, in [0, 1]; None where it does not apply. Gets only examples with accepted answers."""

    def counts(self, prediction: Prediction, example: Example) -> Counts | None:
        """``(score, 1)``; None where the judgement does not apply."""
        score = self.judge(prediction, example) if example.answers else None
        return None if score is None else (score, 1.0)

    def value(self, totals: Sequence[float]) -> float:
        """Mean over examples."""
        return _ratio(totals)

    def signature(self) -> str:
        """The rule, in one line."""
        return f"{self.name}|{self.rule}"


def closed_accuracy() -> Mean:
    """Exact match on the questions whose ``answer_type`` is CLOSED."""
    return Mean("closed", "closed accuracy", f"rows:closed|{_SQUAD_RULE}", _on("CLOSED", exact_match))


def open_recall() -> Mean:
    """Share of the reference's words that the answer holds, on the questions whose ``answer_type`` is OPEN."""
    rule = f"rows:open|tokens:blank|overlap:count|{_SQUAD_RULE}"
    return Mean("open_recall", "open recall", rule, _on("OPEN", token_recall))


def list_match() -> Mean:
    """Order-free equality with a reference that lists several things: ``"Heart, Liver"`` is ``"liver, heart"``."""

    def judge(prediction: Prediction, example: Example) -> float | None:
        lists = [items for answer in example.answers if len(items := list_items(answer)) > 1]
        return float(list_items(prediction.answer) in lists) if lists else None

    return Mean("list", "lists, any order", "rows:comma lists|separators:,、，;and|order:free|items:squad|v:1", judge)


def laterality_errors() -> Mean:
    """Share of answers that name the wrong side, where the reference names exactly one; lower is better."""

    def judge(prediction: Prediction, example: Example) -> float | None:
        gold = sides(example.answers[0])
        return float(bool(sides(prediction.answer)) and not sides(prediction.answer) & gold) if len(gold) == 1 else None

    return Mean("laterality", "wrong side", "rows:one side in the reference|wrong:only the other side|v:1", judge)


def exact_match(predicted: str, gold: str) -> float:
    """1.0 if both answers are equal after SQuAD normalization, else 0.0."""
    return float(squad_normalize(predicted) == squad_normalize(gold))


@lru_cache(maxsize=1 << 16)  # the same pair of answers comes often
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


def token_recall(predicted: str, gold: str) -> float:
    """Share of the gold words, each as often as it occurs, that the prediction holds; 1.0 if gold has no words."""
    wanted = Counter(tokens(gold))
    return (wanted & Counter(tokens(predicted))).total() / wanted.total() if wanted else 1.0


def list_items(answer: str) -> tuple[str, ...]:
    """The things that an answer lists, normalized and sorted."""
    return tuple(sorted(filter(None, (squad_normalize(item) for item in _SEPARATORS.split(answer)))))


def sides(answer: str) -> frozenset[str]:
    """``left`` and ``right``, as far as an English or Chinese answer names them."""
    words = set(tokens(answer))
    found = {side for side in ("left", "right") if any(word in (side, f"{side}sided") for word in words)}
    return frozenset(found | {side for mark, side in (("左", "left"), ("右", "right")) if mark in answer})


def answer_type(example: Example) -> str:
    """``OPEN`` or ``CLOSED`` as the dataset says, upper case; empty where it does not say."""
    return example.facts.get("answer_type", "").upper()


@lru_cache(maxsize=1 << 16)
def scored_answers(answers: tuple[str, ...]) -> tuple[str, ...]:
    """The accepted answers SQuAD compares with: those with words left, or the empty one if none has any."""
    return tuple(answer for answer in answers if squad_normalize(answer)) or ("",)


def _best(score: Callable[[str, str], float], prediction: Prediction, example: Example) -> Counts | None:
    if not example.answers:
        return None
    return max(score(prediction.answer, answer) for answer in scored_answers(example.answers)), 1.0


def _on(kind: str, score: Callable[[str, str], float]) -> Callable[[Prediction, Example], float | None]:
    """The best of the accepted answers, on the questions of one type."""

    def judge(prediction: Prediction, example: Example) -> float | None:
        if answer_type(example) != kind:
            return None
        return max(score(prediction.answer, answer) for answer in scored_answers(example.answers))

    return judge


def _ratio(totals: Sequence[float]) -> float:
    earned, possible = totals
    return earned / possible if possible else math.nan

"""What a metric is: counts of each example, and a value of their sum, which intervals and breakdowns need.

``exact_match().counts(prediction, example)`` is ``(1.0, 1.0)`` for a right answer and ``(0.0, 1.0)`` for a wrong one;
the value of the summed counts is the first over the second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from medical_vqa.schema.records import Example, Prediction
from medical_vqa.text import squad_normalize

SCORED_FACTS = ("answer_type", "phrase_type", "options", "choice")
"""Facts that a score may depend on and still be computed once for equal answers."""
Counts = tuple[float, ...]
PairScore = Callable[[str, str], float]
"""Predicted and reference answer -> score in [0, 1]."""
SQUAD_RULE = "case:lower|punct:strip|articles:strip|answers:max|v:1"
"""The SQuAD v2 comparison, as it appears in signatures."""


class Metric(Protocol):
    """A corpus score that is a function of summed per-example counts."""

    @property
    def name(self) -> str:
        """The key in results.json: ``em``."""

    @property
    def label(self) -> str:
        """The name for people: ``EM``."""

    def counts(self, prediction: Prediction, example: Example) -> Counts | None:
        """The contribution of one example to the totals, always of the same length; None where it does not apply."""

    def value(self, totals: Sequence[float]) -> float:
        """The score in [0, 1] for summed counts; nan if there was nothing to score."""

    def signature(self) -> str:
        """Everything that affects the number: two scores are comparable only if their signatures are equal."""


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean score of single answers, over the examples that the score applies to."""

    name: str
    """The key in results.json: ``closed``."""
    label: str
    """The name for people: ``closed accuracy``."""
    rule: str
    """The rest of the signature, after the name."""
    score: Callable[[Prediction, Example], float | None]
    """The score of one answer in [0, 1], None where it does not apply. Receives only examples with accepted answers."""
    by_text: bool = False
    """Whether the score depends on the text of the answer, the accepted answers and the facts in `SCORED_FACTS` alone,
    so that it is computed once for rows in which these are equal."""
    pair_score: PairScore | None = None
    """Score of which `score` is the best over the accepted answers, where it is that and depends on nothing else."""

    def counts(self, prediction: Prediction, example: Example) -> Counts | None:
        """``(score, 1)``; None where the score does not apply."""
        score = self.score(prediction, example) if example.answers else None
        return None if score is None else (score, 1.0)

    def value(self, totals: Sequence[float]) -> float:
        """The mean over examples."""
        total, n = totals
        return total / n if n else math.nan

    def signature(self) -> str:
        """The rule, in one line."""
        return f"{self.name}|{self.rule}"


def best_score(score: PairScore, predicted: str, answers: tuple[str, ...]) -> float:
    """The highest score over the accepted answers."""
    return max(score(predicted, answer) for answer in comparable_answers(answers))


@lru_cache(maxsize=1 << 16)
def comparable_answers(answers: tuple[str, ...]) -> tuple[str, ...]:
    """The accepted answers that SQuAD compares with: those with words left, or the empty one if none has any."""
    return tuple(answer for answer in answers if squad_normalize(answer)) or ("",)


def answer_type(example: Example) -> str:
    """``OPEN`` or ``CLOSED`` according to the dataset, upper case; empty if it does not say."""
    return example.facts.get("answer_type", "").upper()


def is_open(example: Example) -> bool:
    """Whether the dataset calls the question open."""
    return answer_type(example) == "OPEN"


def is_closed(example: Example) -> bool:
    """Whether the dataset calls the question closed."""
    return answer_type(example) == "CLOSED"

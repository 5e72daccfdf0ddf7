"""Which answers a model confuses with which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from medical_vqa.evaluation.statistics.correctness import JudgedAnswer
from medical_vqa.text import squad_normalize


@dataclass(frozen=True, slots=True)
class Confusion:
    """A wrong answer and the accepted one."""

    gold: str
    """The accepted answer, in its first spelling."""
    predicted: str
    """The model's answer, in its first spelling."""
    n: int
    """How often."""


@dataclass(frozen=True, slots=True)
class ConfusionTable:
    """How often each of the most frequent reference answers was predicted as each of them."""

    answers: tuple[str, ...]
    """The most frequent reference answers, in their first spelling."""
    counts: tuple[tuple[int, ...], ...]
    """One row per reference; a column per predicted answer, and the last for all others."""


def confusions(answers: Iterable[JudgedAnswer], limit: int) -> list[Confusion]:
    """The most frequent wrong answers, then by name; answers compared after normalization."""
    counts: Counter[tuple[str, str]] = Counter()
    spellings: dict[tuple[str, str], tuple[str, str]] = {}
    for answer in answers:
        if not answer.correct:
            gold, predicted = answer.example.answers[0], answer.prediction.answer
            pair = squad_normalize(gold), squad_normalize(predicted)
            counts[pair] += 1
            spellings.setdefault(pair, (gold, predicted))
    ranked = sorted(counts, key=lambda pair: (-counts[pair], pair))[:limit]
    return [Confusion(*spellings[pair], counts[pair]) for pair in ranked]


def confusion_table(answers: Iterable[JudgedAnswer], limit: int) -> ConfusionTable | None:
    """Reference by prediction among the most frequent answers; None with fewer than two of them."""
    spellings: dict[str, str] = {}
    pairs: list[tuple[str, str]] = []
    for answer in answers:
        gold = squad_normalize(answer.example.answers[0])
        spellings.setdefault(gold, answer.example.answers[0])
        pairs.append((gold, squad_normalize(answer.prediction.answer)))
    frequent = [gold for gold, _ in Counter(gold for gold, _ in pairs).most_common(limit)]
    if len(frequent) < 2:
        return None
    column = {answer: number for number, answer in enumerate(frequent)}
    counts = [[0] * (len(frequent) + 1) for _ in frequent]
    for gold, predicted in pairs:
        if gold in column:
            counts[column[gold]][column.get(predicted, len(frequent))] += 1
    return ConfusionTable(tuple(spellings[gold] for gold in frequent), tuple(tuple(row) for row in counts))

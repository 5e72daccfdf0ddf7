"""Each answer judged on its own: right or wrong, how sure the model was, and what it took for what."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from medical_vqa.evaluation.metrics.base import Metric
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.text import squad_normalize

BINS = 10


@dataclass(frozen=True, slots=True)
class Answered:
    """A question with the model's answer and its verdict."""

    example: Example
    """What was asked."""
    prediction: Prediction
    """What the model answered."""
    right: bool
    """Whether the metric gives the full score."""

    @property
    def confidence(self) -> float | None:
        """The model's, in [0, 1]; None where it gives none or one that is not finite."""
        value = self.prediction.confidence
        return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Confusion:
    """One answer taken for another."""

    gold: str
    """The accepted answer, as first seen."""
    predicted: str
    """What the model said instead, as first seen."""
    n: int
    """How often."""


@dataclass(frozen=True, slots=True)
class ConfidenceBin:
    """Answers of about equal confidence."""

    low: float
    """Lower bound, included."""
    high: float
    """Upper bound; included in the last bin only."""
    right: int
    """How many were right."""
    wrong: int
    """How many were wrong."""


def judge(metric: Metric, examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[Answered]:
    """The questions that are scored, in order: those with an accepted answer and exactly one prediction."""
    times = Counter(prediction.id for prediction in predictions)
    given = {prediction.id: prediction for prediction in predictions if times[prediction.id] == 1}
    judged = []
    for example in examples:
        prediction = given.get(example.id)
        counts = metric.counts(prediction, example) if prediction is not None else None
        if prediction is not None and counts is not None:
            judged.append(Answered(example, prediction, right=metric.value(counts) == 1.0))
    return judged


def confusions(answered: Iterable[Answered], most: int) -> list[Confusion]:
    """The commonest wrong answers, most frequent first, then by name; answers compared after normalization."""
    counted: Counter[tuple[str, str]] = Counter()
    shown: dict[tuple[str, str], tuple[str, str]] = {}
    for answer in answered:
        if not answer.right:
            gold, predicted = answer.example.answers[0], answer.prediction.answer
            pair = squad_normalize(gold), squad_normalize(predicted)
            counted[pair] += 1
            shown.setdefault(pair, (gold, predicted))
    ranked = sorted(counted, key=lambda pair: (-counted[pair], pair))[:most]
    return [Confusion(*shown[pair], counted[pair]) for pair in ranked]


@dataclass(frozen=True, slots=True)
class ConfusionTable:
    """How often each of the commonest reference answers was taken for each of them."""

    answers: tuple[str, ...]
    """The commonest reference answers, as first seen."""
    counts: tuple[tuple[int, ...], ...]
    """One row per reference; a column per predicted answer, and the last for all others."""


def confusion_table(answered: Iterable[Answered], most: int) -> ConfusionTable | None:
    """Reference by prediction among the commonest answers; None with fewer than two of them."""
    rows = [(squad_normalize(a.example.answers[0]), squad_normalize(a.prediction.answer), a) for a in answered]
    common = [gold for gold, _ in Counter(gold for gold, _, _ in rows).most_common(most)]
    if len(common) < 2:
        return None
    shown = {gold: a.example.answers[0] for gold, _, a in reversed(rows)}
    place = {answer: number for number, answer in enumerate(common)}
    counts = [[0] * (len(common) + 1) for _ in common]
    for gold, said, _ in rows:
        if gold in place:
            counts[place[gold]][place.get(said, len(common))] += 1
    return ConfusionTable(tuple(shown[gold] for gold in common), tuple(map(tuple, counts)))


def confidence_bins(answered: Iterable[Answered]) -> list[ConfidenceBin]:
    """Right and wrong answers in ten bins of equal width; empty when no answer has a confidence."""
    tallies: Mapping[bool, list[int]] = {True: [0] * BINS, False: [0] * BINS}
    for answer in answered:
        if answer.confidence is not None:
            tallies[answer.right][min(int(answer.confidence * BINS), BINS - 1)] += 1
    if not any(tallies[True]) and not any(tallies[False]):
        return []
    return [ConfidenceBin(i / BINS, (i + 1) / BINS, tallies[True][i], tallies[False][i]) for i in range(BINS)]

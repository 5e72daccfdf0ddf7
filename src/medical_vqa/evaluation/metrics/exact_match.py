"""Equality with an accepted answer after SQuAD v2 normalization: over all questions, and over the closed ones."""

from __future__ import annotations

from medical_vqa.evaluation.metrics.base import SQUAD_RULE, Mean, best_score, is_closed
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.text import squad_normalize


def exact_match() -> Mean:
    """EM: the fraction of answers that equal an accepted answer."""

    def score(prediction: Prediction, example: Example) -> float:
        return best_score(exact_match_score, prediction.answer, example.answers)

    return Mean("em", "EM", SQUAD_RULE, score, by_text=True, pair_score=exact_match_score)


def closed_accuracy() -> Mean:
    """Exact match on the questions whose ``answer_type`` is CLOSED."""

    def score(prediction: Prediction, example: Example) -> float | None:
        return best_score(exact_match_score, prediction.answer, example.answers) if is_closed(example) else None

    return Mean("closed", "closed accuracy", f"rows:closed|{SQUAD_RULE}", score, by_text=True)


def exact_match_score(predicted: str, gold: str) -> float:
    """1.0 if both answers are equal after SQuAD normalization, else 0.0."""
    return float(squad_normalize(predicted) == squad_normalize(gold))

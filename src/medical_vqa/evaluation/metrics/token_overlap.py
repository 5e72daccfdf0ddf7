"""Overlap of the words of two answers: F1 over all questions, and recall over the open ones."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

from medical_vqa.evaluation.metrics.base import SQUAD_RULE, Mean, best_score, is_open
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.text import tokens


def token_f1() -> Mean:
    """F1 of the answer's words and those of the closest accepted answer."""

    def score(prediction: Prediction, example: Example) -> float:
        return best_score(token_f1_score, prediction.answer, example.answers)

    rule = f"tokens:blank|overlap:count|empty:equal|{SQUAD_RULE}"
    return Mean("f1", "F1", rule, score, by_text=True, pair_score=token_f1_score)


def open_recall() -> Mean:
    """Fraction of the reference's words that the answer contains, on the questions whose ``answer_type`` is OPEN."""

    def score(prediction: Prediction, example: Example) -> float | None:
        return best_score(token_recall_score, prediction.answer, example.answers) if is_open(example) else None

    return Mean("open_recall", "open recall", f"rows:open|tokens:blank|overlap:count|{SQUAD_RULE}", score, by_text=True)


@lru_cache(maxsize=1 << 16)  # the same pair of answers occurs often
def token_f1_score(predicted: str, gold: str) -> float:
    """F1 of the words two answers share, each word counted as often as it occurs in both.

    If either answer has no words left, the score is 1.0 if neither has and 0.0 otherwise.

    Source: ``compute_f1`` of the official SQuAD 2.0 evaluation script.
    """
    predicted_words, gold_words = tokens(predicted), tokens(gold)
    if not predicted_words or not gold_words:
        return float(predicted_words == gold_words)
    different, of_gold = set(predicted_words), set(gold_words)
    if len(different) == len(predicted_words) or len(of_gold) == len(gold_words):  # each counts once, in the minimum
        shared = len(different & of_gold)
    else:
        shared = (Counter(predicted_words) & Counter(gold_words)).total()
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted_words), shared / len(gold_words)
    return 2 * precision * recall / (precision + recall)


def token_recall_score(predicted: str, gold: str) -> float:
    """Fraction of the gold words, each as often as it occurs, that the prediction has; 1.0 if gold has no words."""
    gold_words = Counter(tokens(gold))
    return (gold_words & Counter(tokens(predicted))).total() / gold_words.total() if gold_words else 1.0


def set_f1(predicted_words: list[str], gold_words: list[str]) -> float:
    """F1 of two sets of words, in which a repeated word counts once; 0 if either is empty."""
    predicted, gold = set(predicted_words), set(gold_words)
    shared = len(predicted & gold)
    return 2 * shared / (len(predicted) + len(gold)) if shared else 0.0

"""SQuAD v2: exact match and word F1 after normalization. This project's own headline numbers use this rule."""

from __future__ import annotations

from medical_vqa.evaluation.metrics.exact_match import exact_match, exact_match_score
from medical_vqa.evaluation.metrics.lists import list_items
from medical_vqa.evaluation.metrics.token_overlap import token_f1
from medical_vqa.evaluation.protocols.base import Context, Protocol, ProtocolMetric, best_answer_mean, unchanged


def squad_or_list(predicted: str, gold: str) -> float:
    """SQuAD's exact match, or the same list in another order."""
    items = list_items(gold)
    return max(exact_match_score(predicted, gold), float(len(items) > 1 and list_items(predicted) == items))


def _metrics(_: Context) -> tuple[ProtocolMetric, ...]:
    defect = "A list in another order (Heart, Liver for Liver, Heart) counts as wrong; repaired, any order is right."
    return ProtocolMetric(exact_match(), best_answer_mean("em", "EM", squad_or_list), defect), unchanged(token_f1())


PROTOCOL = Protocol(
    name="squad_v2",
    rule=(
        "Answers are lower-cased, punctuation and the articles a, an, the are removed and white space is collapsed; "
        "Exact Match requires equality, F1 counts shared words, and the best of several accepted answers counts."
    ),
    citation=(
        "Rajpurkar, Jia and Liang, Know What You Don't Know: Unanswerable Questions for SQuAD, ACL 2018; "
        "official evaluation script evaluate-v2.0.py"
    ),
    build=_metrics,
)

"""HELM: exact match, quasi-exact match, F1 of word sets, ROUGE-L and BLEU, on at most 20 words."""

from __future__ import annotations

import re

from medical_vqa.evaluation.metrics.bleu import Bleu, sentence_bleu
from medical_vqa.evaluation.metrics.exact_match import exact_match_score
from medical_vqa.evaluation.metrics.rouge import lcs_f_measure
from medical_vqa.evaluation.metrics.token_overlap import set_f1, token_f1_score
from medical_vqa.evaluation.protocols.base import Context, Protocol, ProtocolMetric, best_answer_mean, unchanged
from medical_vqa.evaluation.protocols.vila_m3 import vila_equal
from medical_vqa.text import tokens

MAX_WORDS = 20
_BLEU_TOKEN = re.compile(r"[\w'/-]+(?:\.\w+)*|[^\w\s]")
_ROUGE_TOKEN = re.compile(r"[a-z0-9]+")


def truncated(text: str) -> str:
    """The first 20 words: HELM limits the length of an answer."""
    words = text.split()
    return text if len(words) <= MAX_WORDS else " ".join(words[:MAX_WORDS])


def helm_exact(predicted: str, gold: str) -> float:
    """Equality of the texts without surrounding spaces, case-sensitive."""
    return float(bool(predicted) and truncated(predicted).strip() == gold.strip())


def helm_quasi_exact(predicted: str, gold: str) -> float:
    """SQuAD's equality; an empty prediction is wrong whatever the reference."""
    return exact_match_score(truncated(predicted), gold) if predicted else 0.0


def helm_f1(predicted: str, gold: str) -> float:
    """F1 of the two *sets* of SQuAD's words: a repeated word counts once."""
    return set_f1(tokens(truncated(predicted)), tokens(gold))


def helm_rouge_l(predicted: str, gold: str) -> float:
    """ROUGE-L over letters and digits, without the stemmer; Chinese has no words by this rule and scores 0."""
    return lcs_f_measure(_ROUGE_TOKEN.findall(truncated(predicted).lower()), _ROUGE_TOKEN.findall(gold.lower()))


def helm_bleu_1(predicted: str, gold: str) -> float:
    """BLEU-1 of a single answer, case-sensitive."""
    return sentence_bleu(_BLEU_TOKEN.findall(truncated(predicted)), _BLEU_TOKEN.findall(gold), 1)


def helm_bleu_4(predicted: str, gold: str) -> float:
    """BLEU with all weight on 4-grams, case-sensitive: 0 for every answer shorter than four words."""
    return sentence_bleu(_BLEU_TOKEN.findall(truncated(predicted)), _BLEU_TOKEN.findall(gold), 4)


def _metrics(_: Context) -> tuple[ProtocolMetric, ...]:
    return (
        ProtocolMetric(
            best_answer_mean("exact", "exact", helm_exact),
            best_answer_mean("exact", "exact", vila_equal),
            "Case counts; repaired, it does not.",
        ),
        unchanged(best_answer_mean("quasi_exact", "quasi-exact", helm_quasi_exact)),
        ProtocolMetric(
            best_answer_mean("f1", "F1", helm_f1),
            best_answer_mean("f1", "F1", token_f1_score),
            "A word repeated several times counts once; repaired, as often as it occurs.",
        ),
        unchanged(best_answer_mean("rouge_l", "ROUGE-L", helm_rouge_l)),
        ProtocolMetric(
            best_answer_mean("bleu1", "BLEU-1", helm_bleu_1), Bleu(1), "The mean of single answers, case-sensitive."
        ),
        ProtocolMetric(
            best_answer_mean("bleu4", "BLEU-4", helm_bleu_4),
            Bleu(4),
            "Answers shorter than four words score 0 even when they are right; repaired, BLEU of the corpus.",
        ),
    )


PROTOCOL = Protocol(
    name="helm",
    rule="Exact, quasi-exact (SQuAD), F1 of word sets, ROUGE-L, BLEU-1 and BLEU-4 on at most 20 words.",
    citation="stanford-crfm/helm, evaluate_reference_metrics.py and vqa_rad_scenario.py",
    build=_metrics,
    caveat="HELM stems words for ROUGE-L and cuts tokens of its model; here whole words are compared and cut.",
    datasets=("vqa-rad",),
)

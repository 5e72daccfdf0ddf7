"""PathVQA: precision and F1 of letters-only words and BLEU of open questions, equality of yes/no questions."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache, partial

from medical_vqa.evaluation.metrics.base import PairScore
from medical_vqa.evaluation.metrics.bleu import Bleu, nltk_bleu, sentence_bleu
from medical_vqa.evaluation.metrics.token_overlap import token_f1_score
from medical_vqa.evaluation.protocols.base import (
    YES_NO,
    Context,
    Protocol,
    ProtocolMetric,
    best_answer_mean,
    unchanged,
)
from medical_vqa.evaluation.protocols.vqa_normalizer import vqa_equal
from medical_vqa.schema.records import Example

_NO_LETTER = re.compile(r"[^a-zA-Z ]")


@lru_cache(maxsize=1 << 16)
def path_vqa_words(text: str) -> Counter[str]:
    """Lower-case words of the letters a to z: digits are dropped, and ``x-ray`` is ``xray``."""
    return Counter(_NO_LETTER.sub("", text).lower().split())


def path_vqa_exact(predicted: str, gold: str) -> float:
    """What the evaluation script calls exact match: the reference's distinct words that occur, per predicted word."""
    predicted_words, gold_words = path_vqa_words(predicted), path_vqa_words(gold)
    return len(gold_words.keys() & predicted_words.keys()) / predicted_words.total() if predicted_words else 0.0


def path_vqa_f1(predicted: str, gold: str) -> float:
    """F1 in which a shared word counts as often as the prediction repeats it."""
    predicted_words, gold_words = path_vqa_words(predicted), path_vqa_words(gold)
    shared = sum(n for word, n in predicted_words.items() if word in gold_words)
    missed = sum(n for word, n in gold_words.items() if word not in predicted_words)
    if not shared:
        return 0.0
    precision, recall = shared / predicted_words.total(), shared / (shared + missed)
    return 2 * precision * recall / (precision + recall)


def path_vqa_equal(predicted: str, gold: str) -> float:
    """Equality of the labels, case-sensitive."""
    return float(predicted == gold)


def path_vqa_bleu(predicted: str, gold: str) -> float:
    """BLEU of a single answer over one to four words, in lower case, as ``nltk`` computes it."""
    return nltk_bleu(predicted.lower().split(), gold.lower().split())


def path_vqa_bleu_n(order: int) -> PairScore:
    """Precision of the n-grams of one length with the brevity penalty, in lower case."""

    def score(predicted: str, gold: str) -> float:
        return sentence_bleu(predicted.lower().split(), gold.lower().split(), order)

    score.__name__ = f"path_vqa_bleu_{order}"
    return score


def yes_no(example: Example) -> bool:
    """Whether an accepted answer is yes or no."""
    return any(answer.strip().lower() in YES_NO for answer in example.answers)


def other_than_yes_no(example: Example) -> bool:
    """Whether no accepted answer is yes or no."""
    return not yes_no(example)


def _metrics(_: Context) -> tuple[ProtocolMetric, ...]:
    open_mean = partial(best_answer_mean, rows=other_than_yes_no)
    return (
        ProtocolMetric(
            open_mean("open_exact", "open (exact match)", path_vqa_exact),
            open_mean("open_exact", "open (exact match)", vqa_equal),
            "What is called exact match is the precision of words, without digits; repaired, it is equality.",
        ),
        ProtocolMetric(
            open_mean("open_f1", "open (F1)", path_vqa_f1),
            open_mean("open_f1", "open (F1)", token_f1_score),
            "Digits are dropped, and a shared word counts as often as the prediction repeats it.",
        ),
        ProtocolMetric(
            best_answer_mean("closed", "closed (yes/no)", path_vqa_equal, yes_no),
            best_answer_mean("closed", "closed (yes/no)", vqa_equal, yes_no),
            "Labels are compared: case and a full stop count.",
        ),
        ProtocolMetric(
            open_mean("bleu", "open (BLEU)", path_vqa_bleu),
            Bleu(4, other_than_yes_no),
            "The mean of single answers: answers shorter than four words score 0 even when they are right.",
        ),
        *(
            unchanged(open_mean(f"bleu{order}", f"open (BLEU, {order}-grams)", path_vqa_bleu_n(order)))
            for order in (1, 2, 3)
        ),
    )


PROTOCOL = Protocol(
    name="path_vqa",
    rule="Open questions: precision and F1 of words of letters, BLEU of one to three words; yes/no: equality.",
    citation="UCSD-AI4H/PathVQA, Evaluation script and baselines/method2/evaluate_main.py (He et al., 2020)",
    build=_metrics,
    caveat="The script scores a single pair and fails on an empty answer; here an empty answer scores 0.",
    datasets=("path-vqa",),
)

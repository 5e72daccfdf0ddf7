"""MultiMedEval: a fraction of the reference's words is enough, and BLEU-1."""

from __future__ import annotations

from medical_vqa.evaluation.metrics.bleu import Bleu, sentence_bleu
from medical_vqa.evaluation.protocols.base import (
    YES_NO,
    Context,
    Protocol,
    ProtocolMetric,
    best_answer_mean,
    unchanged,
)
from medical_vqa.evaluation.protocols.vqa_normalizer import contains_phrase, llava_normalize
from medical_vqa.schema.records import Example

_CLOSED_FRACTION, _OPEN_FRACTION = 0.4, 0.75  # of the reference's words, which the published rule requires


def multimed_words(answer: str) -> list[str]:
    """The words after the VQA normalizer as MultiMedEval has it."""
    return llava_normalize(answer).split()


def multimed_closed(predicted: str, gold: str) -> float:
    """Right if it contains 0.4 of the reference's words; ``not`` is added to ``no``, so half of them are enough."""
    predicted_words, gold_words = set(multimed_words(predicted)), set(multimed_words(gold.strip()))
    if gold_words == {"no"}:
        gold_words.add("not")
    return float(bool(gold_words) and len(predicted_words & gold_words) / len(gold_words) >= _CLOSED_FRACTION)


def multimed_recall(predicted: str, gold: str) -> float:
    """Fraction of the reference's distinct words that the prediction contains."""
    gold_words = set(multimed_words(gold.strip()))
    return len(set(multimed_words(predicted)) & gold_words) / len(gold_words) if gold_words else 0.0


def multimed_open(predicted: str, gold: str) -> float:
    """Right if it contains three quarters of the reference's words, whatever else it contains."""
    return float(multimed_recall(predicted, gold) >= _OPEN_FRACTION)


def multimed_f1(predicted: str, gold: str) -> float:
    """F1 of the two sets of words, with a small number added to the denominator."""
    predicted_words, gold_words = set(multimed_words(predicted)), set(multimed_words(gold.strip()))
    shared = len(predicted_words & gold_words)
    if not shared:
        return 0.0
    precision, recall = shared / len(predicted_words), shared / len(gold_words)
    return 2 * precision * recall / (precision + recall + 1e-8)


def multimed_equal(predicted: str, gold: str) -> float:
    """Equality of the words in order."""
    return float(multimed_words(predicted) == multimed_words(gold.strip()))


def multimed_bleu(predicted: str, gold: str) -> float:
    """BLEU-1 of a single answer; 0 if no word is shared."""
    return sentence_bleu(multimed_words(predicted), multimed_words(gold.strip()), 1)


def yes_no(example: Example) -> bool:
    """Whether an accepted answer is yes or no."""
    return any(llava_normalize(answer.strip()) in YES_NO for answer in example.answers)


def other_than_yes_no(example: Example) -> bool:
    """Whether no accepted answer is yes or no."""
    return not yes_no(example)


def _metrics(_: Context) -> tuple[ProtocolMetric, ...]:
    return (
        ProtocolMetric(
            best_answer_mean("closed", "closed (yes/no)", multimed_closed, yes_no),
            best_answer_mean("closed", "closed (yes/no)", contains_phrase, yes_no),
            "Saying yes and no is always right, and 'not' stands for no; closed are only the yes/no questions.",
        ),
        ProtocolMetric(
            best_answer_mean("open", "open (recall at least 0.75)", multimed_open, other_than_yes_no),
            best_answer_mean("open", "open (recall at least 0.75)", multimed_equal, other_than_yes_no),
            "Any text with three quarters of the reference's words is right; repaired, the words must be equal.",
        ),
        unchanged(best_answer_mean("open_recall", "open (recall)", multimed_recall, other_than_yes_no)),
        unchanged(best_answer_mean("f1", "F1", multimed_f1)),
        unchanged(best_answer_mean("recall", "recall", multimed_recall)),
        ProtocolMetric(
            best_answer_mean("bleu1", "BLEU-1", multimed_bleu),
            Bleu(1),
            "The mean of single answers' BLEU; repaired, BLEU of the corpus, as it was defined.",
        ),
    )


PROTOCOL = Protocol(
    name="multimedeval",
    rule="VQA normalizer; closed right at 0.4 of the words, open at 0.75; recall, F1 and BLEU-1.",
    citation="corentin-ryr/MultiMedEval, multimedeval/task_families.py (class VQA)",
    build=_metrics,
    datasets=("slake", "vqa-rad", "path-vqa"),
)

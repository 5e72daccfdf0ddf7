"""LLaVA-Med: open questions by recall of words, closed ones by containment of the reference."""

from __future__ import annotations

from medical_vqa.evaluation.metrics.base import is_closed, is_open
from medical_vqa.evaluation.protocols.base import Context, Protocol, ProtocolMetric, best_answer_mean
from medical_vqa.evaluation.protocols.vqa_normalizer import contains_phrase, vqa_equal, vqa_normalize, vqa_words


def llava_recall(predicted: str, gold: str) -> float:
    """Recall in which a shared word counts as often as the *prediction* repeats it."""
    predicted_words, gold_words = vqa_words(predicted), vqa_words(gold)
    shared = sum(n for word, n in predicted_words.items() if word in gold_words)
    missed = sum(n for word, n in gold_words.items() if word not in predicted_words)
    return shared / (shared + missed) if shared else 0.0


def clipped_recall(predicted: str, gold: str) -> float:
    """Fraction of the reference's words, each as often as it occurs there, that the prediction contains."""
    gold_words = vqa_words(gold)
    return (gold_words & vqa_words(predicted)).total() / gold_words.total() if gold_words else 0.0


def llava_exact(predicted: str, gold: str) -> float:
    """What LLaVA-Med calls exact match: the fraction of the predicted words that the reference contains."""
    predicted_words, gold_words = vqa_words(predicted), vqa_words(gold)
    return len(gold_words.keys() & predicted_words.keys()) / predicted_words.total() if predicted_words else 0.0


def llava_closed(predicted: str, gold: str) -> float:
    """run_eval.py: the reference is a part of the text, which must also contain the letters yes or no."""
    return llava_closed_batch(predicted, gold) if _contains_yes_or_no(predicted) else 0.0


def llava_closed_batch(predicted: str, gold: str) -> float:
    """run_eval_batch.py: the reference is a part of the text, letter by letter."""
    return float(vqa_normalize(gold) in vqa_normalize(predicted))


def llava_closed_unless_wrong(predicted: str, gold: str) -> float | None:
    """An early run_eval.py: like `llava_closed`, except that a wrong answer with yes or no is not counted at all."""
    if _contains_yes_or_no(predicted) and not llava_closed_batch(predicted, gold):
        return None
    return llava_closed(predicted, gold)


def _contains_yes_or_no(predicted: str) -> bool:
    text = vqa_normalize(predicted)
    return "yes" in text or "no" in text


def _metrics(_: Context) -> tuple[ProtocolMetric, ...]:
    return (
        ProtocolMetric(
            best_answer_mean("open_recall", "open (recall)", llava_recall, is_open),
            best_answer_mean("open_recall", "open (recall)", clipped_recall, is_open),
            "A shared word counts as often as the prediction repeats it, and long answers are not penalized at all.",
        ),
        ProtocolMetric(
            best_answer_mean("open_exact", "open (exact match)", llava_exact, is_open),
            best_answer_mean("open_exact", "open (exact match)", vqa_equal, is_open),
            "What is called exact match is the precision of words; repaired, it is equality.",
        ),
        ProtocolMetric(
            best_answer_mean("closed", "closed (run_eval.py)", llava_closed, is_closed),
            best_answer_mean("closed", "closed (run_eval.py)", contains_phrase, is_closed),
            "The reference need only be a part of the text (no is in normal; saying yes and no is always right), and "
            "an answer without the letters yes or no is wrong: closed questions with another answer always fail.",
        ),
        ProtocolMetric(
            best_answer_mean("closed_batch", "closed (run_eval_batch.py)", llava_closed_batch, is_closed),
            best_answer_mean("closed_batch", "closed (run_eval_batch.py)", contains_phrase, is_closed),
            "The reference need only be a part of the text: saying yes and no is always right.",
        ),
        ProtocolMetric(
            best_answer_mean("closed_early", "closed (early run_eval.py)", llava_closed_unless_wrong, is_closed),
            best_answer_mean("closed_early", "closed (early run_eval.py)", contains_phrase, is_closed),
            "Wrong answers that contain yes or no are left out of the denominator.",
        ),
    )


PROTOCOL = Protocol(
    name="llava_med",
    rule="VQA normalizer; open questions by the recall of words, closed by containment of the reference.",
    citation="microsoft/LLaVA-Med v1.0.0, llava/eval/run_eval.py, run_eval_batch.py, eval_metrics/",
    build=_metrics,
)

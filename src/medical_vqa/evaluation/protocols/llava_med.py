"""LLaVA-Med: open questions by recall of words, closed ones by containment of the reference."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

from medical_vqa.evaluation.metrics.base import Mean, PairScore, is_closed, is_open
from medical_vqa.evaluation.metrics.bleu import Bleu, nltk_bleu, sentence_bleu
from medical_vqa.evaluation.protocols.base import Context, Protocol, ProtocolMetric, best_answer_mean, unchanged
from medical_vqa.evaluation.protocols.vqa_normalizer import (
    contains_phrase,
    llava_normalize,
    llava_words,
    vqa_equal,
)
from medical_vqa.schema.records import Example, Prediction


def llava_recall(predicted: str, gold: str) -> float:
    """Recall in which a shared word counts as often as the *prediction* repeats it."""
    predicted_words, gold_words = llava_words(predicted), llava_words(gold)
    shared = sum(n for word, n in predicted_words.items() if word in gold_words)
    missed = sum(n for word, n in gold_words.items() if word not in predicted_words)
    return shared / (shared + missed) if shared else 0.0


def clipped_recall(predicted: str, gold: str) -> float:
    """Fraction of the reference's words, each as often as it occurs there, that the prediction contains."""
    gold_words = llava_words(gold)
    return (gold_words & llava_words(predicted)).total() / gold_words.total() if gold_words else 0.0


def llava_exact(predicted: str, gold: str) -> float:
    """What LLaVA-Med calls exact match: the fraction of the predicted words that the reference contains."""
    predicted_words, gold_words = llava_words(predicted), llava_words(gold)
    return len(gold_words.keys() & predicted_words.keys()) / predicted_words.total() if predicted_words else 0.0


def llava_precision(predicted: str, gold: str) -> float:
    """Fraction of the predicted words that the reference contains; 0 if either has no words."""
    predicted_words, gold_words = llava_words(predicted), llava_words(gold)
    shared = sum(n for word, n in predicted_words.items() if word in gold_words)
    return shared / predicted_words.total() if shared else 0.0


def llava_f1(predicted: str, gold: str) -> float:
    """Harmonic mean of LLaVA-Med's precision and recall."""
    precision, recall = llava_precision(predicted, gold), llava_recall(predicted, gold)
    return 2 * precision * recall / (precision + recall) if precision else 0.0


def llava_contained(predicted: str, gold: str) -> float:
    """run_eval_batch.py's open accuracy: the reference is a part of the text, letter by letter."""
    return llava_closed_batch(predicted, gold)


def llava_bleu(predicted: str, gold: str) -> float:
    """BLEU of a single answer over one to four words, as nltk computes it."""
    return nltk_bleu(llava_normalize(predicted).split(), llava_normalize(gold).split())


def llava_bleu_n(order: int) -> PairScore:
    """Precision of the n-grams of one length with the brevity penalty."""

    def score(predicted: str, gold: str) -> float:
        return sentence_bleu(llava_normalize(predicted).split(), llava_normalize(gold).split(), order)

    score.__name__ = f"llava_bleu_{order}"
    return score


class _NearestCandidate:
    """run_eval.py's open accuracy: the candidate most of whose words the text has, the first of equals."""

    def __init__(self, rows: Sequence[Example]) -> None:
        answers = dict.fromkeys(answer for row in rows if is_open(row) for answer in row.answers)
        self.candidates = [(llava_normalize(answer), frozenset(llava_normalize(answer).split())) for answer in answers]
        self.nearest = lru_cache(maxsize=1 << 14)(self._nearest)

    def _nearest(self, predicted: str) -> str:
        words = llava_words(predicted).keys()
        best, highest = "", -1.0
        for candidate, candidate_words in self.candidates:
            fraction = len(words & candidate_words) / len(candidate_words) if candidate_words else 0.0
            if fraction > highest:
                best, highest = candidate, fraction
        return best

    def mean(self, source: str) -> Mean:
        """The fraction of open questions whose nearest candidate is the reference."""

        def score(prediction: Prediction, example: Example) -> float | None:
            if not is_open(example):
                return None
            references = {llava_normalize(llava_normalize(answer)) for answer in example.answers}
            return float(self.nearest(prediction.answer) in references)

        rule = f"nearest candidate by words|candidates:open answers of {source}|rows:open|v:1"
        return Mean("open_nearest", "open (nearest candidate)", rule, score, by_text=True)


def llava_closed(predicted: str, gold: str) -> float:
    """run_eval.py: the reference is a part of the text, which must also contain the letters yes or no."""
    return llava_closed_batch(predicted, gold) if _contains_yes_or_no(predicted) else 0.0


def llava_closed_batch(predicted: str, gold: str) -> float:
    """run_eval_batch.py: the reference is a part of the text, letter by letter."""
    return float(llava_normalize(gold) in llava_normalize(predicted))


def llava_closed_unless_wrong(predicted: str, gold: str) -> float | None:
    """An early run_eval.py: like `llava_closed`, except that a wrong answer with yes or no is not counted at all."""
    if _contains_yes_or_no(predicted) and not llava_closed_batch(predicted, gold):
        return None
    return llava_closed(predicted, gold)


def _contains_yes_or_no(predicted: str) -> bool:
    text = llava_normalize(predicted)
    return "yes" in text or "no" in text


def _metrics(context: Context) -> tuple[ProtocolMetric, ...]:
    open_mean = partial(best_answer_mean, rows=is_open)
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
            open_mean("open_contained", "open (run_eval_batch.py)", llava_contained),
            open_mean("open_contained", "open (run_eval_batch.py)", contains_phrase),
            "The reference need only be a part of the text, letter by letter (no is in normal).",
        ),
        ProtocolMetric(
            _NearestCandidate(context.training_rows or context.scored_rows).mean("the training rows"),
            open_mean("open_nearest", "open (nearest candidate)", vqa_equal),
            "The answer is replaced by the training answer most of whose words it has; repaired, it is equality.",
        ),
        unchanged(open_mean("open_f1", "open (F1)", llava_f1)),
        unchanged(open_mean("open_precision", "open (precision)", llava_precision)),
        ProtocolMetric(
            open_mean("bleu", "open (BLEU)", llava_bleu),
            Bleu(4, is_open),
            "The mean of single answers: answers shorter than four words score 0 even when they are right.",
        ),
        *(
            unchanged(open_mean(f"bleu{order}", f"open (BLEU, {order}-grams)", llava_bleu_n(order)))
            for order in (1, 2, 3)
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
    datasets=("slake", "vqa-rad", "path-vqa"),
)

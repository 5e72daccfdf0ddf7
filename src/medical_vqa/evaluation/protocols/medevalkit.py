"""MedEvalKit: equality of lower-case texts after a lead-in such as "answer is"."""

from __future__ import annotations

import re

from medical_vqa.evaluation.metrics.base import Mean, best_score, is_closed, is_open
from medical_vqa.evaluation.metrics.token_overlap import set_f1
from medical_vqa.evaluation.protocols.base import YES_NO, Context, Protocol, ProtocolMetric, best_answer_mean
from medical_vqa.schema.records import Example, Prediction

_LEAD_INS = (
    "**answer**:", "**answer**", "*answer*:", "**answer:**", "answer is", "answer:", "答案:", "final answer",
    "final answer is",
)  # fmt: skip
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_BOXED = re.compile(r"boxed\{([^{}]*)\}")


def medevalkit_text(predicted: str) -> str:
    """The part of a response that MedEvalKit compares: lower case, after the last lead-in, spaces kept."""
    text = predicted.lower()
    if boxed := _BOXED.findall(text):
        text = boxed[-1]
    elif tagged := _TAGGED.findall(text):
        text = " ".join(tagged)
    for lead_in in _LEAD_INS:
        text = text.split(lead_in)[-1]
    return text


def medevalkit_open(predicted: str, gold: str) -> float:
    """Equality of the lower-case texts, full stops and spaces included."""
    return float(medevalkit_text(predicted) == gold.lower())


def medevalkit_closed(predicted: str, gold: str) -> float:
    """Equality without full stops and line breaks; a lower-case yes or no must be in the text, and the other not."""
    text = medevalkit_text(predicted).replace("\n", "").replace(".", "")
    if gold in YES_NO:
        return float((("yes" in text) != ("no" in text)) and gold in text)
    return float(text == gold.lower())


def medevalkit_repaired(predicted: str, gold: str) -> float:
    """Equality of both texts in lower case without surrounding spaces and full stops."""
    return float(medevalkit_text(predicted).strip(" .\n\t") == gold.lower().strip(" .\n\t"))


def medevalkit_recall(predicted: str, gold: str) -> float:
    """What MedEvalKit reports as F1: the fraction of the reference's distinct words that the response contains."""
    predicted_words, gold_words = set(medevalkit_text(predicted).split()), set(gold.lower().split())
    return len(predicted_words & gold_words) / len(gold_words) if predicted_words and gold_words else 0.0


def medevalkit_f1(predicted: str, gold: str) -> float:
    """F1 of the two sets of words, which MedEvalKit computes and reports as precision."""
    return set_f1(medevalkit_text(predicted).split(), gold.lower().split())


def _metrics(_: Context) -> tuple[ProtocolMetric, ...]:
    defect = "Spaces and (open) full stops are kept: 'The answer is X.' becomes ' x' and is never right."

    def overall(prediction: Prediction, example: Example) -> float:
        score = medevalkit_open if is_open(example) else medevalkit_closed
        return best_score(score, prediction.answer, example.answers)

    return (
        ProtocolMetric(
            Mean("overall", "total", "medevalkit_open+medevalkit_closed|rows:all|answers:max|v:1", overall),
            best_answer_mean("overall", "total", medevalkit_repaired),
            defect,
        ),
        ProtocolMetric(
            best_answer_mean("open", "open (em)", medevalkit_open, is_open),
            best_answer_mean("open", "open (em)", medevalkit_repaired, is_open),
            defect,
        ),
        ProtocolMetric(
            best_answer_mean("closed", "closed", medevalkit_closed, is_closed),
            best_answer_mean("closed", "closed", medevalkit_repaired, is_closed),
            defect,
        ),
        ProtocolMetric(
            best_answer_mean("f1", "open (f1)", medevalkit_recall, is_open),
            best_answer_mean("f1", "open (f1)", medevalkit_f1, is_open),
            "Three results are unpacked in the wrong order: what is reported as F1 is recall.",
        ),
    )


PROTOCOL = Protocol(
    name="medevalkit",
    rule="Lower case, the part after a lead-in such as 'answer is'; equality, full stops dropped if closed.",
    citation="alibaba-damo-academy/MedEvalKit, utils/SLAKE/SLAKE.py and utils/utils.py",
    build=_metrics,
    caveat="Published numbers are in both languages and add what a large language model judged right.",
)

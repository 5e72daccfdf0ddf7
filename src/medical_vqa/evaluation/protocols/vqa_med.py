"""VQA-Med (ImageCLEF): the accuracy of the evaluator of the challenge, equality after the VQA normalizer."""

from __future__ import annotations

from medical_vqa.evaluation.protocols.base import Context, Protocol, ProtocolMetric, best_answer_mean
from medical_vqa.evaluation.protocols.vqa_normalizer import vqa_equal, vqa_med_normalize, vqa_normalize


def vqa_med_equal(predicted: str, gold: str) -> float:
    """Equality after the VQA normalizer; the reference is not stripped first."""
    return float(vqa_normalize(predicted) == vqa_med_normalize(gold))


def _metrics(_: Context) -> tuple[ProtocolMetric, ...]:
    return (
        ProtocolMetric(
            best_answer_mean("overall", "accuracy", vqa_med_equal),
            best_answer_mean("overall", "accuracy", vqa_equal),
            "Line breaks in a reference make every answer to it wrong; repaired, they are spaces.",
        ),
    )


PROTOCOL = Protocol(
    name="vqa_med",
    rule="VQA normalizer; equality with one of the accepted answers; one accuracy over all rows.",
    citation="abachaa/VQA-Med-2020, Evaluator-VQA-Med-2020.py; abachaa/VQA-Med-2021, EvaluationCode",
    build=_metrics,
    caveat="Its second score, BLEU of stemmed words without stop words, is not computed here.",
    datasets=("vqa-med-2019", "vqa-med-2020", "vqa-med-2021"),
)

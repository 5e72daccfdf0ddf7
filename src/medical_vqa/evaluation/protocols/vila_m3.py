"""VILA-M3: equality in lower case; one accuracy over all rows."""

from __future__ import annotations

from medical_vqa.evaluation.protocols.base import Context, Protocol, ProtocolMetric, best_answer_mean
from medical_vqa.evaluation.protocols.vqa_normalizer import vqa_equal


def vila_equal(predicted: str, gold: str) -> float:
    """Equality in lower case without surrounding spaces: a full stop makes an answer wrong."""
    return float(predicted.strip().lower() == gold.strip().lower())


def _metrics(_: Context) -> tuple[ProtocolMetric, ...]:
    defect = "A full stop makes an answer wrong, and rows without a prediction are wrong (here they are excluded)."
    return (
        ProtocolMetric(
            best_answer_mean("overall", "accuracy", vila_equal),
            best_answer_mean("overall", "accuracy", vqa_equal),
            defect,
        ),
    )


PROTOCOL = Protocol(
    name="vila_m3",
    rule="Lower case, no surrounding spaces; equality; one accuracy over all rows.",
    citation="Project-MONAI/VLM-Radiology-Agent-Framework, m3/eval/scripts/metric_slakevqa.py",
    build=_metrics,
    caveat="Published numbers come from models trained on train and validation.",
    datasets=("slake", "vqa-rad", "path-vqa"),
)

"""M2I2 and MUMC: equality after the VQA normalizer."""

from __future__ import annotations

from medical_vqa.evaluation.protocols.base import Context, Protocol, ProtocolMetric, overall_open_closed
from medical_vqa.evaluation.protocols.vqa_normalizer import vqa_equal


def _metrics(_: Context) -> tuple[ProtocolMetric, ...]:
    return overall_open_closed(vqa_equal, vqa_equal)


PROTOCOL = Protocol(
    name="m2i2",
    rule="VQA normalizer; equality. MUMC uses the same.",
    citation="pengfeiliHEU/M2I2, vqaTools/vqaEval.py; pengfeiliHEU/MUMC, vqaEvaluate.py",
    build=_metrics,
    caveat=(
        "Answers were ranked over a closed list, M2I2 was trained on train and validation, and both score every "
        "epoch on the test split and report the best of them."
    ),
    datasets=("slake", "vqa-rad", "path-vqa"),
)

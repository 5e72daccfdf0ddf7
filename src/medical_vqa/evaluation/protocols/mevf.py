"""MEVF: equality after the VQA normalizer, on the freeform rows of VQA-RAD only."""

from __future__ import annotations

from medical_vqa.evaluation.metrics.base import is_closed, is_open
from medical_vqa.evaluation.protocols.base import Context, Protocol, ProtocolMetric, best_answer_mean
from medical_vqa.evaluation.protocols.vqa_normalizer import label_equal
from medical_vqa.schema.records import Example


def freeform(example: Example) -> bool:
    """Whether VQA-RAD calls the question freeform."""
    return example.facts.get("phrase_type", "") in ("freeform", "test_freeform")


def freeform_open(example: Example) -> bool:
    """Freeform and open."""
    return freeform(example) and is_open(example)


def freeform_closed(example: Example) -> bool:
    """Freeform and closed."""
    return freeform(example) and is_closed(example)


def _metrics(_: Context) -> tuple[ProtocolMetric, ...]:
    parts = (("overall", freeform, None), ("open", freeform_open, is_open), ("closed", freeform_closed, is_closed))
    return tuple(
        ProtocolMetric(
            best_answer_mean(name, name, label_equal, published_rows),
            best_answer_mean(name, name, label_equal, repaired_rows),
            "Only rows whose phrase_type is freeform are scored; repaired, all are.",
        )
        for name, published_rows, repaired_rows in parts
    )


PROTOCOL = Protocol(
    name="mevf",
    rule="VQA normalizer; equality of labels, on the freeform rows of VQA-RAD only.",
    citation="aioz-ai/MICCAI19-MedVQA, test.py (Nguyen et al., MICCAI 2019)",
    build=_metrics,
    caveat="The copy of VQA-RAD it uses has other rows (3,064 train; 308 of 451 test rows are freeform).",
    datasets=("vqa-rad",),
)

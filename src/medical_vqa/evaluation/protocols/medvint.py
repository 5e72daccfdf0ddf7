"""MedVInT (PMC-VQA): the answer is replaced by the most similar label before it is compared."""

from __future__ import annotations

from collections.abc import Sequence

from medical_vqa.evaluation.metrics.base import Mean, is_closed, is_open
from medical_vqa.evaluation.protocols.base import Context, Protocol, ProtocolMetric, RowFilter
from medical_vqa.evaluation.protocols.nearest_label import NearestLabel
from medical_vqa.schema.records import Example, Prediction


def _nearest_label_mean(name: str, rows: RowFilter, label_rows: Sequence[Example], source: str) -> Mean:
    """Whether the label nearest to the text, the first of equals, is the reference; in lower case."""
    labels = NearestLabel([answer.lower() for row in label_rows if rows(row) for answer in row.answers])

    def score(prediction: Prediction, example: Example) -> float | None:
        if not rows(example):
            return None
        predicted = prediction.answer.lower()
        return float(any(labels.is_nearest(answer.lower(), predicted) for answer in example.answers))

    return Mean(name, name, f"nearest label|labels:{source}|ratio:difflib|rows:{name}|v:1", score, by_text=True)


def _metrics(context: Context) -> tuple[ProtocolMetric, ...]:
    training = context.training_rows
    return tuple(
        ProtocolMetric(
            _nearest_label_mean(name, rows, context.scored_rows, "scored rows"),
            _nearest_label_mean(name, rows, training, "training rows") if training else None,
            "The answer is replaced by the nearest label of the test set; repaired, of the training set.",
        )
        for name, rows in (("open", is_open), ("closed", is_closed))
    )


PROTOCOL = Protocol(
    name="medvint",
    rule="The answer is replaced by the most similar label (difflib ratio), then compared.",
    citation="xiaoman-zhang/PMC-VQA, src/MedVInT_TD/test.py and issue 15",
    build=_metrics,
    datasets=("slake", "vqa-rad", "pmc-vqa"),
)

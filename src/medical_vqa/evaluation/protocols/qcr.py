"""QCR: equality after the VQA normalizer, over the rows that the model treated as open or closed."""

from __future__ import annotations

from medical_vqa.evaluation.metrics.base import Mean, is_closed, is_open
from medical_vqa.evaluation.protocols.base import (
    YES_NO,
    Context,
    Protocol,
    ProtocolMetric,
    best_answer_mean,
    unchanged,
)
from medical_vqa.evaluation.protocols.vqa_normalizer import label_equal, label_normalize
from medical_vqa.schema.records import Example, Prediction


def _metrics(context: Context) -> tuple[ProtocolMetric, ...]:
    defect = (
        "Rows count as open or closed by what the model treated them as; repaired, by what the dataset says. "
        "A model that treats hard closed questions as open ones gains on both."
    )
    closed_rows = [row for row in context.training_rows if is_closed(row)]
    closed_labels = {label_normalize(answer) for row in closed_rows for answer in row.answers} | YES_NO

    def answered_as(name: str, *, closed: bool) -> Mean:
        def score(prediction: Prediction, example: Example) -> float | None:
            if (label_normalize(prediction.answer) in closed_labels) != closed:
                return None
            return max(label_equal(prediction.answer, answer) for answer in example.answers)

        return Mean(
            name,
            name,
            f"label_equal|rows:answered with a {name} label|labels:{len(closed_labels)}|v:1",
            score,
            by_text=True,
        )

    return (
        unchanged(best_answer_mean("overall", "overall", label_equal)),
        ProtocolMetric(
            answered_as("open", closed=False), best_answer_mean("open", "open", label_equal, is_open), defect
        ),
        ProtocolMetric(
            answered_as("closed", closed=True), best_answer_mean("closed", "closed", label_equal, is_closed), defect
        ),
    )


PROTOCOL = Protocol(
    name="qcr",
    rule="VQA normalizer; equality of labels, over the rows that the model treated as open or closed.",
    citation="Awenbocc/med-vqa, train.py (Zhan et al., ACM MM 2020)",
    build=_metrics,
    caveat=(
        "Its question classifier is not in a predictions file: a row counts as closed if its answer is a label of "
        "closed training questions."
    ),
    datasets=("vqa-rad",),
)

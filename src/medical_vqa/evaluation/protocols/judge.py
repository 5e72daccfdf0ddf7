"""A judge's column: answers that another program's judge, a person or a large language model, called right or wrong.

``--map right=COLUMN`` reads it. Such a number depends on the judge and its prompt; it stands next to rules, not alone.
"""

from __future__ import annotations

from medical_vqa.evaluation.metrics.base import Mean, is_closed, is_open
from medical_vqa.evaluation.protocols.base import Context, Protocol, ProtocolMetric, RowFilter, unchanged
from medical_vqa.schema.records import Example, Prediction


def _judged(name: str, rows: RowFilter | None) -> Mean:
    def score(prediction: Prediction, example: Example) -> float | None:
        counts = prediction.judged_right is not None and (rows is None or rows(example))
        return float(bool(prediction.judged_right)) if counts else None

    return Mean(name, f"{name} (judged)", f"judgement in the file|rows:{name}|v:1", score)


def _metrics(_: Context) -> tuple[ProtocolMetric, ...]:
    parts: tuple[tuple[str, RowFilter | None], ...] = (("overall", None), ("open", is_open), ("closed", is_closed))
    return tuple(unchanged(_judged(name, rows)) for name, rows in parts)


PROTOCOL = Protocol(
    name="judge",
    rule="What a judge of another program called right, as a column of its file says; other rows do not count.",
    citation="the file itself: state the judge and its prompt with the number",
    build=_metrics,
    caveat="Judges differ from each other and from people by several points.",
)

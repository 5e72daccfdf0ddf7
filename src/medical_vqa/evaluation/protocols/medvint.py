"""MedVInT (PMC-VQA): the answer is replaced by the most similar label before it is compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medical_vqa.evaluation.metrics.base import Mean, is_closed, is_open
from medical_vqa.evaluation.metrics.multiple_choice import has_choices
from medical_vqa.evaluation.protocols.base import Context, Protocol, ProtocolMetric, RowFilter
from medical_vqa.evaluation.protocols.choice_rule import choice_metric
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


def medvint_choice(text: str, choices: Mapping[str, str]) -> str:
    """The first of the letters A to D that occurs anywhere in the text: what the most similar of four letters is."""
    return next((letter for letter in choices if letter in text), "")


def _metrics(context: Context) -> tuple[ProtocolMetric, ...]:
    if any(has_choices(row) for row in context.scored_rows[:1]):
        return (choice_metric(medvint_choice, "Any capital letter counts, also within a word: 'CT' is C."),)
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
    citation="xiaoman-zhang/PMC-VQA, src/MedVInT_TE/test.py (choices) and issue 15 (open and closed)",
    build=_metrics,
    datasets=("slake", "vqa-rad", "pmc-vqa"),
)

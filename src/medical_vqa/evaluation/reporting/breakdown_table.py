"""A metric by facts as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medical_vqa.errors import DataError
from medical_vqa.evaluation.metrics.base import Metric
from medical_vqa.evaluation.metrics.tally import Bootstrap, tally
from medical_vqa.evaluation.reporting.wording import bounds, percent, title
from medical_vqa.evaluation.statistics.breakdown import Breakdown, BreakdownRow, Facts, break_down, check_facts
from medical_vqa.schema.records import Example, Prediction

_SMALL = "too few to conclude from"


def breakdown_texts(
    metric: Metric,
    facts: Sequence[Facts],
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    baselines: Mapping[str, Sequence[Prediction]],
    bootstrap: Bootstrap | None = None,
) -> list[str]:
    """One table per fact or facts crossed: value, interval, baseline, questions, groups; small groups are marked.

    Raises:
        DataError: No row has one of the facts, or the metric applies to no answered row.
    """
    chosen = check_facts(facts, examples)
    ours = tally(metric, examples, {one.id: one for one in predictions})
    if not ours.examples:
        raise DataError(f"{metric.label} applies to none of these answers; choose another metric")
    under = {name: [tally(metric, ours.examples, {one.id: one for one in given})] for name, given in baselines.items()}
    return [_text(metric, break_down(names, [ours], under, bootstrap or Bootstrap())) for names in chosen]


def _text(metric: Metric, found: Breakdown) -> str:
    head = (" by ".join([metric.label, " and ".join(map(title, found.facts))]), "", "", "baseline", "n", "groups", "")
    rows = [head, *(_cells(metric.name, row) for row in found.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(_line(row, widths) for row in rows)


def _cells(name: str, row: BreakdownRow) -> tuple[str, ...]:
    score = row.scores[name]
    baseline = next((values[name] for values in row.baselines.values() if name in values), None)
    interval = bounds(score.interval) if score.interval.low is not None else ""
    small = _SMALL if row.small else ""
    counts = f"{row.n:,}", f"{row.clusters:,}"
    return " / ".join(row.levels), percent(score.value), interval, percent(baseline), *counts, small


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    left = (0, len(row) - 1)
    cells = (
        cell.ljust(width) if number in left else cell.rjust(width)
        for number, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join(cells).rstrip()

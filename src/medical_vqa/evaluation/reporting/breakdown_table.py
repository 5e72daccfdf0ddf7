"""A metric by facts as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medical_vqa.errors import DataError
from medical_vqa.evaluation.joining import AnsweredQuestions
from medical_vqa.evaluation.metrics.base import Metric
from medical_vqa.evaluation.reporting.text_table import aligned
from medical_vqa.evaluation.reporting.wording import bounds, percent, title
from medical_vqa.evaluation.statistics.breakdown import break_down, check_facts
from medical_vqa.evaluation.statistics.tally import tally
from medical_vqa.schema.records import Prediction
from medical_vqa.schema.results import Bootstrap, BreakdownRow, Facts

_SMALL = "too few to conclude from"


def breakdown_tables(
    metric: Metric,
    facts: Sequence[Facts],
    answered: AnsweredQuestions,
    baselines: Mapping[str, Sequence[Prediction]],
    bootstrap: Bootstrap | None = None,
) -> list[str]:
    """One table per fact or facts crossed: value, interval, baseline, questions, groups; small groups are marked.

    Args:
        metric: The metric.
        facts: The facts; several in one tuple are crossed.
        answered: The questions with the model's answers.
        baselines: Baseline name -> its predictions.
        bootstrap: How intervals are resampled.

    Raises:
        DataError: No row has one of the facts, or the metric applies to no answered row.
    """
    check_facts(facts, answered.examples)
    counted = tally(metric, answered.scored, answered.answers)
    if not counted.examples:
        raise DataError(f"{metric.label} applies to none of these answers; choose another metric")
    baseline_tallies = {
        name: [tally(metric, counted.examples, {prediction.id: prediction for prediction in predictions})]
        for name, predictions in baselines.items()
    }
    bootstrap = bootstrap or Bootstrap()
    tables = []
    for names in facts:
        breakdown = break_down(names, [counted], baseline_tallies, bootstrap)
        heading = f"{metric.label} by {' and '.join(title(fact) for fact in names)}"
        rows = [_cells(metric.name, row) for row in breakdown.rows]
        tables.append(aligned([(heading, "", "", "baseline", "n", "groups", ""), *rows], left=(0, 6)))
    return tables


def _cells(name: str, row: BreakdownRow) -> tuple[str, ...]:
    score = row.scores[name]
    return (
        " / ".join(row.levels),
        percent(score.value),
        bounds(score.interval) if score.interval.low is not None else "",
        percent(next((values[name] for values in row.baselines.values() if name in values), None)),
        f"{row.n:,}",
        f"{row.clusters:,}",
        _SMALL if row.small else "",
    )

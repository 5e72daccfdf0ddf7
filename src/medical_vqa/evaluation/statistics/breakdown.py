"""Any metric by any fact, or by two facts crossed: where a model is good and where it is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from medical_vqa.errors import DataError
from medical_vqa.evaluation.metrics.multiple_choice import CHOICE, OPTIONS
from medical_vqa.evaluation.statistics.tally import Tally
from medical_vqa.schema.codes import Numbers
from medical_vqa.schema.example_table import ExampleTable
from medical_vqa.schema.records import Example
from medical_vqa.schema.results import Bootstrap, Breakdown, BreakdownRow, Facts

Levels = tuple[str, ...]
SMALL_ROWS = 20
SMALL_CLUSTERS = 5
NOT_STATED = "not stated"
_MAX_LEVELS = 40  # a fact with more values is an identifier, not a breakdown


def break_down(
    facts: Facts,
    tallies: Sequence[Tally],
    baselines: Mapping[str, Sequence[Tally]],
    bootstrap: Bootstrap,
) -> Breakdown:
    """Score every combination of the facts' values.

    Args:
        facts: One fact, or several to be crossed.
        tallies: The model's tally of each metric.
        baselines: Baseline name -> that baseline's tally of each metric.
        bootstrap: How intervals are resampled.

    Returns:
        Rows sorted by their number of examples, largest first, then by name. An example without the fact
        counts under ``not stated``.
    """
    positions: dict[int, dict[Levels, Numbers]] = {}  # the same rows are divided once for all metrics and baselines

    def divided(tally: Tally) -> dict[Levels, Tally]:
        rows = positions.setdefault(id(tally.examples), {}) or level_positions(tally.examples, facts)
        positions[id(tally.examples)] = rows
        return {levels: tally.subset(part) for levels, part in rows.items()}

    parts = [divided(tally) for tally in tallies]
    baseline_parts = {name: [divided(tally) for tally in group] for name, group in baselines.items()}
    rows = []
    for levels, first in sorted(parts[0].items(), key=lambda item: (-len(item[1].examples), item[0])):
        clusters = first.examples.groups.distinct()
        applicable = [part[levels] for part in parts if levels in part]
        rows.append(
            BreakdownRow(
                levels=levels,
                n=len(first.examples),
                clusters=clusters,
                small=is_small(len(first.examples), clusters),
                scores={tally.metric.name: tally.score(bootstrap) for tally in applicable},
                baselines={
                    name: {part[levels].metric.name: part[levels].total() for part in group if levels in part}
                    for name, group in baseline_parts.items()
                },
            )
        )
    return Breakdown(facts=facts, rows=tuple(rows))


def by_levels(tally: Tally, facts: Facts) -> dict[Levels, Tally]:
    """The part of a tally for every combination of the facts' values, in order of appearance."""
    return {levels: tally.subset(rows) for levels, rows in level_positions(tally.examples, facts).items()}


def level_positions(examples: ExampleTable, facts: Facts) -> dict[Levels, Numbers]:
    """The positions of the examples for every combination of the facts' values, in order of appearance."""
    numbers: dict[Levels, int] = {}
    level_of = [
        numbers.setdefault(tuple([row.get(fact) or NOT_STATED for fact in facts]), len(numbers))
        for row in examples.facts.values
    ]
    rows = np.array(level_of, np.intp)[examples.facts.index]
    ordered = np.argsort(rows, kind="stable")
    parts = np.split(ordered, np.flatnonzero(np.diff(rows[ordered])) + 1) if len(rows) else []
    levels = list(numbers)
    return {levels[rows[part[0]]]: part for part in sorted(parts, key=lambda part: int(part[0]))}


def default_facts(examples: Sequence[Example]) -> list[Facts]:
    """The facts worth a breakdown: those with 2 to 40 values here, in order of appearance."""
    values: dict[str, set[str]] = {}
    for facts in ExampleTable.of(examples).facts.used():
        for fact, value in facts.items():
            if fact in (OPTIONS, CHOICE):  # the choices of one question, which are no property to compare by
                continue
            values.setdefault(fact, set()).add(value)
    return [(fact,) for fact, levels in values.items() if 2 <= len(levels) <= _MAX_LEVELS]


def default_crossing(examples: Sequence[Example]) -> list[Facts]:
    """Two facts worth crossing: the answer type with the first known one of modality, organ and question type."""
    known = {fact for (fact,) in default_facts(examples)}
    other = next((fact for fact in ("modality", "organ", "question_type") if fact in known), None)
    return [("answer_type", other)] if "answer_type" in known and other else []


def check_facts(facts: Sequence[Facts], examples: Sequence[Example]) -> None:
    """Raise `DataError` for a fact that no example has."""
    known = {fact for row in ExampleTable.of(examples).facts.used() for fact in row} if facts else set()
    for names in facts:
        for fact in names:
            if fact not in known:
                raise DataError(f"no example has a fact {fact!r}; choose among {', '.join(sorted(known)) or 'none'}")


def is_small(n: int, clusters: int) -> bool:
    """Whether a group is too small to draw a conclusion."""
    return n < SMALL_ROWS or clusters < SMALL_CLUSTERS

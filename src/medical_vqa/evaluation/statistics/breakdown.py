"""Any metric by any fact, or by two facts crossed: where a model is good and where it is not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medical_vqa.errors import DataError
from medical_vqa.evaluation.metrics.tally import Bootstrap, Score, Tally
from medical_vqa.schema.records import Example

Facts = tuple[str, ...]
Levels = tuple[str, ...]
Parts = Mapping[Levels, Tally]
SMALL_ROWS = 20
SMALL_CLUSTERS = 5
_MOST_LEVELS = 40  # a fact with more values is an identifier, not a breakdown
UNSTATED = "not stated"


@dataclass(frozen=True, slots=True)
class BreakdownRow:
    """The scores of the examples that share a fact."""

    levels: Levels
    """The value of each fact: ``("CT",)``, or ``("CT", "OPEN")`` when crossed."""
    n: int
    """Examples."""
    clusters: int
    """Groups those examples come from."""
    small: bool
    """Too few examples or groups to conclude from: shown in gray."""
    scores: Mapping[str, Score]
    """Metric name -> score."""
    baselines: Mapping[str, Mapping[str, float | None]]
    """Baseline name -> metric name -> value on the same examples."""


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The rows of one fact, or of facts crossed, most examples first."""

    facts: Facts
    """The facts crossed; usually one: ``("modality",)``."""
    rows: tuple[BreakdownRow, ...]
    """One per combination of values that occurs."""


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
        bootstrap: How intervals are drawn.

    Returns:
        Rows sorted by their number of examples, largest first, then by name. An example without the fact
        counts under ``not stated``.
    """
    parts = [_parts(tally, facts) for tally in tallies]
    under = {name: [_parts(tally, facts) for tally in given] for name, given in baselines.items()}
    ranked = sorted(parts[0], key=lambda levels: (-len(parts[0][levels].examples), levels))
    rows = (_row(levels, parts, under, bootstrap) for levels in ranked)
    return Breakdown(facts, tuple(rows))


def usual_facts(examples: Sequence[Example]) -> list[Facts]:
    """The facts worth a breakdown: those that take 2 to 40 values here, in order of appearance."""
    values: dict[str, set[str]] = {}
    for example in examples:
        for fact, value in example.facts.items():
            values.setdefault(fact, set()).add(value)
    return [(fact,) for fact, found in values.items() if 2 <= len(found) <= _MOST_LEVELS]


def usual_cross(examples: Sequence[Example]) -> list[Facts]:
    """Two facts worth crossing: the answer's type with the first of modality, organ and question type that is there."""
    known = {fact for (fact,) in usual_facts(examples)}
    other = next((fact for fact in ("modality", "organ", "question_type") if fact in known), None)
    return [("answer_type", other)] if "answer_type" in known and other else []


def check_facts(facts: Sequence[str | Facts], examples: Sequence[Example]) -> list[Facts]:
    """Facts as tuples; raises `DataError` for one that no example has."""
    known = {fact for example in examples for fact in example.facts}
    chosen = [(fact,) if isinstance(fact, str) else tuple(fact) for fact in facts]
    for fact in (name for names in chosen for name in names):
        if fact not in known:
            raise DataError(f"no example has a fact {fact!r}; choose among {', '.join(sorted(known)) or 'none'}")
    return chosen


def is_small(n: int, clusters: int) -> bool:
    """Whether a group is too small to conclude from."""
    return n < SMALL_ROWS or clusters < SMALL_CLUSTERS


def _row(levels: Levels, parts: Sequence[Parts], under: Mapping[str, Sequence[Parts]], how: Bootstrap) -> BreakdownRow:
    here = [part[levels] for part in parts if levels in part]
    n, clusters = len(here[0].examples), len({example.group for example in here[0].examples})
    scores = {part.metric.name: part.score(how) for part in here}
    baselines = {
        name: {part[levels].metric.name: part[levels].total() for part in given if levels in part}
        for name, given in under.items()
    }
    return BreakdownRow(levels, n, clusters, is_small(n, clusters), scores, baselines)


def _parts(tally: Tally, facts: Facts) -> Parts:
    rows: defaultdict[Levels, list[int]] = defaultdict(list)
    for number, example in enumerate(tally.examples):
        rows[tuple(example.facts.get(fact) or UNSTATED for fact in facts)].append(number)
    return {levels: tally.subset(numbers) for levels, numbers in rows.items()}

"""One self-contained HTML page that compares models over the questions all of them answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medical_vqa.evaluation.metrics.exact_match import exact_match
from medical_vqa.evaluation.metrics.tally import Bootstrap, Score, Tally, tally
from medical_vqa.evaluation.metrics.token_overlap import token_f1
from medical_vqa.evaluation.protocols.table import ProtocolScore
from medical_vqa.evaluation.reporting.compare_table import p_value
from medical_vqa.evaluation.reporting.page import environment
from medical_vqa.evaluation.statistics.breakdown import UNSTATED, is_small, usual_facts
from medical_vqa.evaluation.statistics.compare import compare, shared_rows, verdict
from medical_vqa.io import atomic_write
from medical_vqa.schema.records import Example, Prediction

_DISAGREEMENTS = 40


@dataclass(frozen=True, slots=True)
class FactRow:
    """One value of a fact: every model's score."""

    fact: str
    """``modality``."""
    value: str
    """``CT``."""
    n: int
    """Questions."""
    small: bool
    """Too few to conclude from."""
    scores: Mapping[str, float | None]
    """Model -> score."""


def write_comparison(
    path: Path,
    *,
    examples: Sequence[Example],
    models: Mapping[str, Sequence[Prediction]],
    baselines: Mapping[str, Sequence[Prediction]],
    protocols: Mapping[str, Sequence[ProtocolScore]],
    title: str,
    files: Sequence[str],
    bootstrap: Bootstrap | None = None,
) -> None:
    """Write the page; it appears whole or not at all.

    Args:
        path: The HTML file.
        examples: The rows of the split.
        models: Name -> predictions.
        baselines: Baseline name -> predictions, shown as further rows.
        protocols: Model -> its scores under published rules.
        title: Of the page.
        files: The prediction files, for the command that makes the page again.
        bootstrap: How intervals are drawn.

    Raises:
        DataError: No question was answered by all, or the file cannot be written.
    """
    how, metrics = bootstrap or Bootstrap(), (exact_match(), token_f1())
    rows = shared_rows(examples, models)
    answers = {name: {p.id: p for p in given} for name, given in {**models, **baselines}.items()}
    tallies = {name: [tally(metric, rows, given) for metric in metrics] for name, given in answers.items()}
    scores: dict[str, list[Score]] = {name: [one.score(how) for one in given] for name, given in tallies.items()}
    pairs = [pair for metric in metrics for pair in compare(metric, rows, models, how)]
    text = environment().get_template("compare.html.j2").render(
        title=title,
        metrics=metrics,
        models=list(models),
        scores=scores,
        baselines=list(baselines),
        pairs=pairs,
        verdict=verdict,
        p_value=p_value,
        facts=fact_rows({name: tallies[name][0] for name in models}),
        rules=_rules(protocols),
        disagreements=_disagreements(rows, {name: answers[name] for name in models}),
        n=len(rows),
        of=len(examples),
        images=len({row.image_id for row in rows}),
        files=files,
    )  # fmt: skip
    atomic_write(path, text)


def fact_rows(tallies: Mapping[str, Tally]) -> list[FactRow]:
    """Every value of every usual fact, with each model's score."""
    first = next(iter(tallies.values()))
    found = []
    for (fact,) in usual_facts(first.examples):
        places: dict[str, list[int]] = {}
        for number, example in enumerate(first.examples):
            places.setdefault(example.facts.get(fact) or UNSTATED, []).append(number)
        for value, numbers in sorted(places.items(), key=lambda item: -len(item[1])):
            groups = len({first.examples[number].group for number in numbers})
            scores = {name: one.subset(numbers).total() for name, one in tallies.items()}
            found.append(FactRow(fact, value, len(numbers), is_small(len(numbers), groups), scores))
    return found


def _rules(protocols: Mapping[str, Sequence[ProtocolScore]]) -> list[tuple[str, str, list[float | None]]]:
    """Rule, number, and each model's value as published."""
    return [
        (row[0].protocol, row[0].label, [one.published.value for one in row])
        for row in zip(*protocols.values(), strict=True)
        if any(one.published.n for one in row)
    ]


def _disagreements(
    rows: Sequence[Example], answers: Mapping[str, Mapping[str, Prediction]]
) -> list[tuple[Example, list[tuple[str, bool]]]]:
    """Questions that some models have right and others wrong: each model's answer and whether it is right."""
    metric, found = exact_match(), []
    for row in rows:
        said = [
            (given[row.id].answer, (metric.counts(given[row.id], row) or (0.0,))[0] == 1.0)
            for given in answers.values()
        ]
        if len({right for _, right in said}) > 1:
            found.append((row, said))
    step = max(1, len(found) // _DISAGREEMENTS)
    return found[::step][:_DISAGREEMENTS]

"""One self-contained HTML page that compares models over the questions all of them answered."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medical_vqa.evaluation.joining import AnsweredQuestions
from medical_vqa.evaluation.reporting.comparison_text import conclusion, p_value, withheld_by_model
from medical_vqa.evaluation.reporting.page import write_page
from medical_vqa.evaluation.scoring import squad_answers
from medical_vqa.evaluation.statistics.breakdown import by_levels, default_facts, is_small
from medical_vqa.evaluation.statistics.comparison import compare, shared_rows
from medical_vqa.evaluation.statistics.tally import Tally, tally
from medical_vqa.schema.example_table import ExampleTable
from medical_vqa.schema.prediction_table import PredictionTable
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.schema.results import Bootstrap, ProtocolScore

_MAX_DISAGREEMENTS = 40


@dataclass(frozen=True, slots=True)
class FactRow:
    """The scores of every model for one value of a fact."""

    fact: str
    """Name of the fact: ``modality``."""
    value: str
    """Its value: ``CT``."""
    n: int
    """Number of questions."""
    small: bool
    """Whether there are too few to draw a conclusion."""
    scores: Mapping[str, float | None]
    """Model -> score."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A question that some models answer correctly and others do not."""

    example: Example
    """The question."""
    answers: Sequence[tuple[str, bool]]
    """Answer of each model, and whether it is correct."""


def write_comparison(
    path: Path,
    *,
    models: Mapping[str, AnsweredQuestions],
    baselines: Mapping[str, Sequence[Prediction]],
    protocols: Mapping[str, Sequence[ProtocolScore]],
    title: str,
    files: Sequence[str],
    notes: Sequence[str] = (),
    bootstrap: Bootstrap | None = None,
) -> None:
    """Write the page, which appears complete or not at all.

    Args:
        path: The HTML file.
        models: Name -> the model's answers; all to the same split.
        baselines: Baseline name -> predictions, shown as further rows.
        protocols: Model -> its scores under published protocols.
        title: Title of the page.
        files: The prediction files, for the command that reproduces the page.
        notes: Sentences on the files: rows that are not scored, answers to check.
        bootstrap: How intervals are resampled.

    Raises:
        DataError: No question was answered by all, or the file cannot be written.
    """
    bootstrap = bootstrap or Bootstrap()
    models, metrics = squad_answers(models)
    rows = shared_rows(models)
    answers = {name: answered.answers.of_rows(rows) for name, answered in models.items()}
    by_id: dict[str, Mapping[str, Prediction]] = {
        **answers,
        **{name: {p.id: p for p in predictions} for name, predictions in baselines.items()},
    }
    tallies = {name: [tally(metric, rows, of_name) for metric in metrics] for name, of_name in by_id.items()}
    protocol_rows = [
        (scores[0].protocol, scores[0].label, [score.published.value for score in scores])
        for scores in zip(*protocols.values(), strict=True)
        if any(score.published.n for score in scores)
    ]
    pairs = [pair for metric in metrics for pair in compare(metric, models, bootstrap)]
    write_page(
        path,
        "compare.html.j2",
        title=title,
        metrics=metrics,
        models=list(models),
        scores={name: [counted.score(bootstrap) for counted in group] for name, group in tallies.items()},
        baselines=list(baselines),
        pairs=pairs,
        withheld=withheld_by_model(pairs),
        conclusion=conclusion,
        p_value=p_value,
        fact_rows=fact_rows({name: tallies[name][0] for name in models}),
        protocol_rows=protocol_rows,
        disagreements=_disagreements(rows, [(answers[name].predictions, tallies[name][0]) for name in models]),
        n=len(rows),
        n_all=len(next(iter(models.values())).examples),
        images=rows.images.distinct(),
        reproduce=shlex.join(["medical-vqa", "report", *files]),
        notes=notes,
    )


def fact_rows(tallies: Mapping[str, Tally]) -> list[FactRow]:
    """Every value of every default fact, with each model's score."""
    examples = next(iter(tallies.values())).examples
    rows = []
    for facts in default_facts(examples):
        parts = {name: by_levels(counted, facts) for name, counted in tallies.items()}
        first = next(iter(parts.values()))
        for levels, part in sorted(first.items(), key=lambda item: -len(item[1].examples)):
            n, groups = len(part.examples), part.examples.groups.distinct()
            scores = {name: by_level[levels].total() for name, by_level in parts.items()}
            rows.append(FactRow(facts[0], levels[0], n, is_small(n, groups), scores))
    return rows


def _disagreements(rows: ExampleTable, models: Sequence[tuple[PredictionTable, Tally]]) -> list[Disagreement]:
    """A sample of the questions that some models answer correctly and others do not.

    Args:
        rows: The questions.
        models: For each model its answers to them, and their exact match.
    """
    right = np.stack([counted.counts[:, 0] for _, counted in models])
    differ = np.flatnonzero(np.ptp(right, axis=0)).tolist()
    step = max(1, len(differ) // _MAX_DISAGREEMENTS)
    return [
        Disagreement(rows[row], [(of[row].answer, right[number, row] == 1.0) for number, (of, _) in enumerate(models)])
        for row in differ[::step][:_MAX_DISAGREEMENTS]
    ]

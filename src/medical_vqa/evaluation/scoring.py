"""Answered questions scored next to their baselines: the computation behind results.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from medical_vqa import registry
from medical_vqa.errors import ConfigError, DataError
from medical_vqa.evaluation.extraction import NAME, Extraction, extract_answers
from medical_vqa.evaluation.joining import AnsweredQuestions, named_rows
from medical_vqa.evaluation.metrics.base import Mean, Metric
from medical_vqa.evaluation.metrics.consistency import consistency
from medical_vqa.evaluation.metrics.exact_match import exact_match
from medical_vqa.evaluation.metrics.token_overlap import token_f1
from medical_vqa.evaluation.protocols.base import Context, Protocol
from medical_vqa.evaluation.protocols.scoring import protocol_scores
from medical_vqa.evaluation.protocols.squad_v2 import PROTOCOL as SQUAD_V2
from medical_vqa.evaluation.statistics.breakdown import break_down, check_facts
from medical_vqa.evaluation.statistics.calibration import DEFAULT_RISK, calibrate
from medical_vqa.evaluation.statistics.correctness import judge
from medical_vqa.evaluation.statistics.findings import finding_scores
from medical_vqa.evaluation.statistics.intervals import cluster_numbers
from medical_vqa.evaluation.statistics.tally import AnswerTable, Tally, tally
from medical_vqa.evaluation.statistics.withheld import withheld_answers
from medical_vqa.schema.example_table import ExampleTable
from medical_vqa.schema.prediction_card import AnsweringModel
from medical_vqa.schema.prediction_table import AnswersById, PredictionTable
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.schema.results import (
    Bootstrap,
    Counts,
    DatasetRef,
    Facts,
    MetricResult,
    NamedRows,
    ProtocolRef,
    Reasoning,
    Results,
    WithoutLeaks,
)
from medical_vqa.text import plain_letters

_EMPTY = "empty answer, scored as wrong"
_CUT_OFF = "answer that ended at the limit of tokens (max_tokens) and not by itself, scored as it is"
_HOMOGLYPHS = "scored as wrong, yet looks like the reference: other characters that look the same, or invisible ones"


@dataclass(frozen=True, slots=True)
class LeakedRows:
    """Ids of rows that training may have shown."""

    exact: frozenset[str]
    """Rows whose image is in a training part."""
    near: frozenset[str]
    """Rows whose image has a near-duplicate in a training part."""
    near_duplicates_checked: bool
    """Whether images were compared to find near-duplicates."""
    trained_on: frozenset[str] | None = None
    """Rows whose image the model was trained on, according to its card; None if that is unknown."""
    same_group: frozenset[str] = frozenset()
    """Further rows of whose patient or study another image is in a training part."""


@dataclass(frozen=True, slots=True)
class ScoringSettings:
    """What is computed, and how."""

    published_protocols: Sequence[str] = ()
    """Names of rules to score the same answers by, in addition to SQuAD v2's."""
    breakdowns: Sequence[Facts] = ()
    """Facts to break the scores down by; several in one tuple are crossed."""
    details: bool = True
    """Whether to compute the additional metrics, calibration and consistency, which only a report shows."""
    risk: float = DEFAULT_RISK
    """Tolerated fraction of wrong answers among those given, when the model may abstain."""
    temperature: float | None = None
    """Temperature of the confidence, from the model's bundle."""
    temperature_source: str = ""
    """Rows that the temperature was fitted on."""
    threshold: float | None = None
    """Scaled confidence from which the model's bundle answers, chosen on the same rows as the temperature."""
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    """How intervals are resampled."""


def score_answers(
    answered: AnsweredQuestions,
    *,
    baselines: Mapping[str, Sequence[Prediction]],
    dataset: DatasetRef,
    model: AnsweringModel | None = None,
    training_rows: Sequence[Example] = (),
    leaks: LeakedRows | None = None,
    settings: ScoringSettings | None = None,
) -> Results:
    """Score the answers of a model by SQuAD v2's rule, next to its baselines.

    Args:
        answered: The questions with the model's answers.
        baselines: Baseline name (``question-only``) -> its predictions, of at least the scored questions.
        dataset: The rows that were answered.
        model: Model that answered, as the predictions' card names it.
        training_rows: Training rows, for the rules that take their labels from them.
        leaks: Rows that training may have shown; the metrics are repeated without them.
        settings: What is computed, and how.

    Raises:
        DataError: If nothing can be scored, a baseline lacks a question or a fact is unknown.
        ConfigError: If a protocol is unknown, or the settings of the bootstrap are out of range.
    """
    settings = settings or ScoringSettings()
    scored, bootstrap = answered.scored, settings.bootstrap
    answered.require_scored()
    check_facts(settings.breakdowns, scored)
    published = answered
    extraction = extract_answers(answered.answers)
    metrics: tuple[Mean, ...] = exact_match(), token_f1()
    if extraction.changed:
        answered = replace(answered, answers=extraction.answers)
        metrics = tuple(after_extraction(metric) for metric in (exact_match(), token_f1()))
    table = AnswerTable(scored, answered.answers)
    tallies = [table.tally(metric) for metric in metrics]
    baseline_answers = {name: _answers_by_id(name, answers, scored) for name, answers in baselines.items()}
    baseline_tables = {name: AnswerTable(scored, answers, like=table) for name, answers in baseline_answers.items()}
    baseline_tallies = {name: [of.tally(metric) for metric in metrics] for name, of in baseline_tables.items()}
    return Results(
        dataset=dataset,
        model=model,
        protocol=ProtocolRef(name=SQUAD_V2.name, rule=SQUAD_V2.rule, citation=SQUAD_V2.citation),
        bootstrap=bootstrap,
        counts=Counts(
            examples=len(answered.examples),
            predictions=len(answered.predictions),
            scored=len(scored),
            images=scored.images.distinct(),
            groups=scored.groups.distinct(),
        ),
        excluded=answered.excluded,
        warnings=answer_warnings(metrics[0], table),
        reasoning=_reasoning(extraction, metrics, published) if extraction.changed else None,
        metrics=[
            _metric_result(
                counted,
                {name: group[number] for name, group in baseline_tallies.items()},
                bootstrap,
                with_unanswered_rows(counted, answered),
            )
            for number, counted in enumerate(tallies)
        ],
        without_leaks=_without_leaks(leaks, tallies, baseline_tallies, bootstrap) if leaks else None,
        withheld=withheld_answers(answered.answers.predictions, tallies, bootstrap),
        protocols=protocol_scores(
            [registry.find("protocols", name) for name in settings.published_protocols],
            published,
            extracted=extraction.answers if extraction.changed else None,
            baseline=next(iter(baseline_answers.values()), None),
            training_rows=training_rows,
            bootstrap=bootstrap,
        ),
        breakdowns=[break_down(facts, tallies, baseline_tallies, bootstrap) for facts in settings.breakdowns],
        **(_details(metrics[0], answered, (table, baseline_tables), settings) if settings.details else {}),
    )


def answer_warnings(metric: Mean, table: AnswerTable) -> list[NamedRows]:
    """Wrong answers that are empty or look like the reference in other characters, and answers that were cut off.

    Args:
        metric: A metric of the texts of answer and reference.
        table: The answers.
    """
    texts, golds = table.predictions.answers, table.examples.answers
    without_text = texts.per_row(lambda text: not text.strip())
    empty = without_text & golds.per_row(lambda answers: any(gold.strip() for gold in answers))
    unusual = ~(texts.per_row(str.isascii) & golds.per_row(lambda answers: all(gold.isascii() for gold in answers)))
    resembles = np.zeros(len(table.rows), bool)
    for number in np.unique(table.answer_of[unusual & ~empty]).tolist():
        row = int(table.rows[number])
        prediction, example = table.predictions[row], table.examples[row]
        plain_prediction = replace(prediction, answer=plain_letters(prediction.answer))
        plain_example = replace(example, answers=tuple(plain_letters(gold) for gold in example.answers))
        is_right = _full_score(metric, prediction, example)
        resembles[number] = not is_right and _full_score(metric, plain_prediction, plain_example)
    ids = table.examples.ids
    cut_off = np.zeros(len(ids), bool)
    cut_off[[row for row, one in table.predictions.further.items() if one.cut_off]] = True
    reasons = (_EMPTY, empty), (_HOMOGLYPHS, resembles[table.answer_of]), (_CUT_OFF, cut_off)
    return [
        named_rows(reason, [ids[row] for row in np.flatnonzero(rows).tolist()])
        for reason, rows in reasons
        if rows.any()
    ]


def find_metric(name: str, context: Context) -> Metric:
    """A metric by name: a registered one (``em``, ``laterality``), or a number of a protocol (``helm.bleu1``).

    Raises `ConfigError` with the known names.
    """
    protocol_name, _, metric_name = name.rpartition(".")
    if not protocol_name:
        metric: Metric = registry.create("metrics", metric_name)
        return metric
    protocol: Protocol = registry.find("protocols", protocol_name)
    known = {metric.name: metric for metric in protocol.published_metrics(context)}
    if metric_name not in known:
        raise ConfigError(f"unknown metric {metric_name!r} of {protocol_name}; known: {', '.join(known)}")
    return known[metric_name]


def _answers_by_id(name: str, predictions: Sequence[Prediction], scored: ExampleTable) -> AnswersById:
    table = PredictionTable.of(predictions)
    if table.ids == scored.ids:
        return AnswersById(scored, table)
    position = dict(zip(table.ids, range(len(table)), strict=True))
    for id_ in scored.ids:
        if id_ not in position:
            raise DataError(f"the {name} baseline has no prediction for {id_!r}; compute it over the same questions")
    positions = np.fromiter(map(position.__getitem__, scored.ids), np.intp, len(scored))
    return AnswersById(scored, table.take(positions))


def with_unanswered_rows(counted: Tally, answered: AnsweredQuestions) -> Tally | None:
    """The tally with a zero for every question that has an accepted answer and no prediction; None if there is none."""
    every = answered.examples
    has_answer = every.has_answer()
    if has_answer.sum() == len(answered.scored) or counted.counts.shape[1] != 2:
        return None
    is_scored = np.fromiter(map(set(answered.scored.ids).__contains__, every.ids), bool, len(every))
    missing = every.take(np.flatnonzero(has_answer & ~is_scored))
    zeros = np.tile([0.0, 1.0], (len(missing), 1))
    rows = counted.examples.followed_by(missing)
    clusters = cluster_numbers(list(rows.groups))
    return Tally(counted.metric, rows, np.vstack([counted.counts, zeros]), clusters)


def after_extraction(metric: Mean) -> Mean:
    """A metric of answers from which reasoning was removed, with the step in its signature."""
    return replace(metric, rule=f"{NAME}|{metric.rule}")


def squad_answers(models: Mapping[str, AnsweredQuestions]) -> tuple[dict[str, AnsweredQuestions], tuple[Mean, ...]]:
    """The answers of several models as `score_answers` scores them, and EM and F1: of reasoning the final answer."""
    extractions = {name: extract_answers(answered.answers) for name, answered in models.items()}
    metrics: tuple[Mean, ...] = exact_match(), token_f1()
    if not any(extraction.changed for extraction in extractions.values()):
        return dict(models), metrics
    final = {name: replace(answered, answers=extractions[name].answers) for name, answered in models.items()}
    return final, tuple(after_extraction(metric) for metric in metrics)


def _reasoning(extraction: Extraction, metrics: Sequence[Metric], published: AnsweredQuestions) -> Reasoning:
    unfinished = named_rows("reasoning that ends without an answer", extraction.unfinished)
    return Reasoning(
        step=NAME,
        rows=named_rows("text with reasoning, of which the final answer is scored", extraction.changed),
        unfinished=unfinished if unfinished.n else None,
        complete_texts={m.name: tally(m, published.scored, published.answers).total() for m in metrics},
    )


def _metric_result(
    counted: Tally, baselines: Mapping[str, Tally], bootstrap: Bootstrap, with_unanswered: Tally | None = None
) -> MetricResult:
    return MetricResult(
        name=counted.metric.name,
        label=counted.metric.label,
        signature=counted.metric.signature(),
        score=counted.score(bootstrap),
        baselines={name: baseline.score(bootstrap) for name, baseline in baselines.items()},
        differences={name: counted.difference(baseline, bootstrap) for name, baseline in baselines.items()},
        unanswered_as_wrong=with_unanswered.score(bootstrap) if with_unanswered else None,
    )


def _full_score(metric: Metric, prediction: Prediction, example: Example) -> bool:
    counts = metric.counts(prediction, example)
    return counts is not None and metric.value(counts) == 1.0


def _without_leaks(
    leaks: LeakedRows,
    tallies: Sequence[Tally],
    baselines: Mapping[str, Sequence[Tally]],
    bootstrap: Bootstrap,
) -> WithoutLeaks | None:
    """The metrics without leaked rows; None if there is none to leave out."""
    if not leaks.exact and not leaks.near and not leaks.same_group and not leaks.trained_on:
        return None
    ids = tallies[0].examples.ids
    exact, near = sum(id_ in leaks.exact for id_ in ids), sum(id_ in leaks.near for id_ in ids)
    same_group = sum(id_ in leaks.same_group for id_ in ids)
    if not exact and not near and not same_group and not leaks.trained_on:
        return None
    leaked = leaks.exact | leaks.near | leaks.same_group | (leaks.trained_on or frozenset())

    def remaining(counted: Tally) -> Tally:
        return counted.subset([row for row, id_ in enumerate(counted.examples.ids) if id_ not in leaked])

    return WithoutLeaks(
        exact_duplicates=exact,
        near_duplicates=near,
        same_group=same_group,
        near_duplicates_checked=leaks.near_duplicates_checked,
        trained_on=None if leaks.trained_on is None else sum(id_ in leaks.trained_on for id_ in ids),
        scores={counted.metric.name: remaining(counted).score(bootstrap) for counted in tallies},
        baselines={
            name: {counted.metric.name: remaining(counted).total() for counted in group}
            for name, group in baselines.items()
        },
    )


def _details(
    headline: Metric,
    answered: AnsweredQuestions,
    tables: tuple[AnswerTable, Mapping[str, AnswerTable]],
    settings: ScoringSettings,
) -> dict[str, Any]:
    """The fields of `Results` that a report shows and a headline does not; `tables` are of the model and baselines."""
    scored, (table, baselines) = answered.scored, tables
    additional = []
    for name in registry.names("metrics"):
        if name in ("em", "f1"):  # the headline's
            continue
        counted = table.tally(registry.create("metrics", name))
        if counted.examples:
            of_baselines = {baseline: of.tally(counted.metric) for baseline, of in baselines.items()}
            additional.append(_metric_result(counted, of_baselines, settings.bootstrap))
    return {
        "additional_metrics": additional,
        "findings": finding_scores(scored, answered.answers, settings.bootstrap),
        "calibration": calibrate(
            judge(headline, answered),
            risk=settings.risk,
            temperature=settings.temperature,
            temperature_source=settings.temperature_source,
            threshold=settings.threshold,
        ),
        "consistency": consistency(scored, {row.id: answered.answers[row.id].answer for row in scored}),
    }

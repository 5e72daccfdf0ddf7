"""The same predictions under published rules, side by side: why two numbers from two papers do not compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from medical_vqa.evaluation.extraction import NAME
from medical_vqa.evaluation.joining import AnsweredQuestions
from medical_vqa.evaluation.metrics.base import Mean
from medical_vqa.evaluation.protocols.base import Context, Protocol, ProtocolMetric
from medical_vqa.evaluation.statistics.tally import AnswerTable, Tally
from medical_vqa.schema.codes import Codes
from medical_vqa.schema.prediction_table import AnswersById, PredictionTable
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.schema.results import Bootstrap, ProtocolScore

MAX_IDS = 20


def protocol_scores(
    protocols: Iterable[Protocol],
    answered: AnsweredQuestions,
    *,
    baseline: Mapping[str, Prediction] | None,
    training_rows: Sequence[Example],
    bootstrap: Bootstrap,
    extracted: Mapping[str, Prediction] | None = None,
) -> list[ProtocolScore]:
    """Score the same answers by protocols, as published and repaired.

    Published rules receive the text with the spaces around it, which some of them count.

    Args:
        protocols: The protocols.
        answered: The questions with the model's answers.
        baseline: Example id -> the baseline's answer.
        training_rows: Training rows, for the rules that need labels.
        bootstrap: How intervals are resampled.
        extracted: Example id -> answer without reasoning, which repaired rules score; None where no answer had any.
    """
    context = Context(training_rows, answered.scored)
    complete_texts = untrimmed(answered.answers)
    table = AnswerTable(answered.scored, complete_texts)
    trimmed = answered.answers if extracted is None else extracted
    to_repair = table if trimmed is complete_texts else AnswerTable(answered.scored, trimmed, like=table)
    of_baseline = AnswerTable(answered.scored, baseline, like=table) if baseline else None

    def score(protocol: Protocol, metric: ProtocolMetric) -> ProtocolScore:
        published = table.tally(metric.published)
        published_score = published.score(bootstrap)
        rule = metric.repaired
        if rule is not None and extracted is not None and isinstance(rule, Mean):
            rule = replace(rule, rule=f"{NAME}|{rule.rule}")
        as_published = rule is metric.published and to_repair is table
        repaired = published if as_published else to_repair.tally(rule) if rule else None
        repaired_score = published_score if as_published else repaired.score(bootstrap) if repaired else None
        changed = changed_rows(published, repaired) if repaired else None
        return ProtocolScore(
            protocol=protocol.name,
            metric=metric.published.name,
            label=metric.published.label,
            signature=metric.published.signature(),
            published=published_score,
            baseline=of_baseline.tally(metric.published).total() if of_baseline else None,
            repaired=repaired_score,
            repaired_signature=rule.signature() if rule else None,
            defect=metric.defect,
            published_here=protocol.is_published_on(context.dataset),
            changed=None if changed is None else len(changed),
            changed_ids=tuple((changed or ())[:MAX_IDS]),
        )

    return [score(protocol, metric) for protocol in protocols for metric in protocol.build(context)]


def untrimmed(answers: AnswersById) -> AnswersById:
    """The same answers with the spaces around them; the argument itself where there are none."""
    table = answers.predictions
    texts, raw = table.answers, table.raw
    if texts.values == raw.values and np.array_equal(texts.index, raw.index):
        return answers
    pairs, pair_of = np.unique(texts.index * len(raw.values) + raw.index, return_inverse=True)
    complete: list[str] = []
    for pair in pairs.tolist():
        text, before = texts.values[pair // len(raw.values)], raw.values[pair % len(raw.values)]
        complete.append(before if before.strip() == text else text)
    if complete == [texts.values[pair // len(raw.values)] for pair in pairs.tolist()]:
        return answers
    rows = PredictionTable(table.ids, Codes(complete, pair_of), raw, table.confidence, table.alternatives)
    rows.further = {row: replace(one, answer=complete[pair_of[row]]) for row, one in table.further.items()}
    return AnswersById(answers.examples, rows)


def changed_rows(published: Tally, repaired: Tally) -> list[str] | None:
    """Ids of the rows whose score the repair changes, or that only one of the two counts.

    None for a metric that has no score of a single row.
    """
    if any(len(counted.counts) and counted.counts.shape[1] != 2 for counted in (repaired, published)):
        return None
    if published.examples is repaired.examples:
        differs = published.counts[:, :1] != repaired.counts[:, :1]
        return [published.examples.ids[row] for row in np.flatnonzero(differs).tolist()]
    by_id: list[dict[str, float]] = []
    for counted in (repaired, published):
        by_id.append(dict(zip(counted.examples.ids, counted.counts[:, 0].tolist(), strict=True)))
    after, before = by_id
    return [id_ for id_ in dict.fromkeys([*after, *before]) if before.get(id_) != after.get(id_)]

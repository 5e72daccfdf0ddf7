"""Predictions joined to a dataset and scored: what results.json holds, and the one line that sums it up.

``headline(results)``::

    EM 82.3 [80.1, 84.4] · n=1,053 questions on 96 images · question-only baseline 54.1 · squad_v2

A question is scored only if it has an accepted answer and exactly one prediction. Every other one is set
aside, counted and named: it is neither right nor wrong, and the headline says how many were scored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from medical_vqa import registry
from medical_vqa.errors import ConfigError, DataError
from medical_vqa.evaluation.answers import judge
from medical_vqa.evaluation.metrics.base import Metric
from medical_vqa.evaluation.metrics.consistency import Consistency, consistency
from medical_vqa.evaluation.metrics.tally import Bootstrap, Score, Tally, tally
from medical_vqa.evaluation.protocols.base import Context, Protocol
from medical_vqa.evaluation.protocols.table import ProtocolScore, protocol_scores
from medical_vqa.evaluation.reporting.wording import bounds, count, percent
from medical_vqa.evaluation.statistics.breakdown import Breakdown, Facts, break_down, check_facts, usual_facts
from medical_vqa.evaluation.statistics.calibration import RISK, Calibration, calibrate
from medical_vqa.schema.prediction_card import AnsweringModel
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.text import plain_letters

FORMAT: Final = 1
NAMED_IDS = 100
_EMPTY = "empty answer, scored as wrong"
_ALIKE = "scored as wrong, yet looks like the reference: other characters that look the same, or that cannot be seen"
_NO_PREDICTION = "no prediction"
_NO_ANSWER = "no accepted answer in the dataset"
_TWICE = "predicted more than once"
_NO_EXAMPLE = "prediction for a question that is not in this split"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DatasetRef(_Part):
    """Which questions were asked."""

    name: str
    """The dataset's name: ``slake``."""
    split: str
    """``train``, ``validation`` or ``test``."""
    where: dict[str, str] = {}
    """Facts that selected the rows: ``{"language": "en"}``."""
    drawn: str = ""
    """How the split was drawn, where it is not the one that was published."""
    manifest: str = ""
    """SHA-256 of the prepared dataset's manifest, lower-case hex."""
    title: str = ""
    """The dataset's own name."""
    license: str = ""
    """Under which it may be used."""
    citation: str = ""
    """How its authors want to be cited."""
    homepage: str = ""
    """Where a person reads about it."""


class ProtocolRef(_Part):
    """By which rule the answers were scored."""

    name: str
    """``squad_v2``."""
    rule: str
    """What the rule does, in one sentence."""
    citation: str
    """Where it was published."""


class Counts(_Part):
    """How much was scored."""

    examples: int
    """Questions in the split."""
    predictions: int
    """Predictions given, all of them."""
    scored: int
    """Questions with an accepted answer and exactly one prediction."""
    images: int
    """Images the scored questions are about."""
    groups: int
    """Groups (patients where known, else images) they belong to: what is resampled whole."""


class SetAside(_Part):
    """Questions or predictions that were not scored, and why."""

    reason: str
    """Why, as a short phrase."""
    n: int
    """How many."""
    ids: list[str]
    """Which: the first hundred ids, sorted."""


class Noted(_Part):
    """Answers that are scored, but that a reader should know of."""

    what: str
    """What about them, as a short phrase."""
    n: int
    """How many."""
    ids: list[str]
    """Which: the first hundred ids, sorted."""


class MetricResult(_Part):
    """One metric: the model, the baselines under it, and the distance between them."""

    name: str
    """``em``."""
    label: str
    """``EM``."""
    signature: str
    """Everything that moves the number."""
    score: Score
    """The model's."""
    baselines: dict[str, Score]
    """Baseline name -> its score on the same questions."""
    differences: dict[str, Score]
    """Baseline name -> model minus baseline, resampled as pairs."""


class Clean(_Part):
    """The same metrics on the rows that training cannot have shown."""

    exact: int
    """Scored rows left out because their image is in a training part, in any language."""
    near: int
    """Scored rows left out because a near-duplicate of their image is."""
    looked: bool
    """Whether near-duplicates were looked for; otherwise only equal files are known."""
    learned: int | None = None
    """Scored rows whose image the model's card says it was trained on; None where no card says."""
    scores: dict[str, Score]
    """Metric name -> score on what is left."""
    baselines: dict[str, dict[str, float | None]]
    """Baseline name -> metric name -> value on what is left."""


class Results(_Part):
    """Everything that results.json holds."""

    format: Literal[1] = FORMAT
    """Version of this layout."""
    dataset: DatasetRef
    """Which questions were asked."""
    model: AnsweringModel | None = None
    """Model that answered, as the predictions' card names it; null for a file of another program."""
    protocol: ProtocolRef
    """By which rule the answers were scored."""
    bootstrap: Bootstrap
    """How the intervals were drawn."""
    counts: Counts
    """How much was scored."""
    set_aside: list[SetAside]
    """What was not scored; empty when everything was."""
    noted: list[Noted] = []
    """Answers that count as wrong for a reason that is no judgement: empty ones, and look-alike characters."""
    metrics: list[MetricResult]
    """One per metric of the protocol; the first is the headline."""
    breakdowns: list[Breakdown]
    """The same metrics by fact."""
    more: list[MetricResult] = []
    """Metrics beside the protocol's: closed accuracy, open recall, BLEU, ROUGE-L, lists, wrong sides."""
    protocols: list[ProtocolScore] = []
    """The same predictions under the protocols that were asked for, as published and repaired."""
    calibration: Calibration | None = None
    """How far confidence can be trusted; None where the model gives none."""
    consistency: Consistency | None = None
    """How far the model agrees with itself."""
    clean: Clean | None = None
    """Scores without leaked rows; None where no training part is known to share an image."""

    def to_json(self) -> str:
        """The text of results.json."""
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str) -> Results:
        """Read back what `to_json` wrote; raises `DataError` if it is not that."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise DataError(f"not a results.json of format {FORMAT}: {where}: {first['msg']}; score again") from error


@dataclass(frozen=True, slots=True)
class Leaks:
    """Ids of rows that training may have shown."""

    exact: frozenset[str]
    """Rows whose image is in a training part."""
    near: frozenset[str]
    """Rows whose image is nearly the same as one there."""
    looked: bool
    """Whether near-duplicates were looked for."""
    learned: frozenset[str] | None = None
    """Rows whose image is among those that the model's card says it was trained on; None where no card says."""


def evaluate(
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    *,
    baselines: Mapping[str, Sequence[Prediction]],
    dataset: DatasetRef,
    model: AnsweringModel | None = None,
    facts: Sequence[str | Facts] | None = None,
    crossed: Sequence[Facts] = (),
    protocol: str = "squad_v2",
    protocols: Sequence[str] = (),
    train: Sequence[Example] = (),
    leaks: Leaks | None = None,
    temperature: float | None = None,
    temperature_from: str = "",
    risk: float = RISK,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Results:
    """Join predictions to examples by id and score them beside their baselines.

    Args:
        examples: The rows of one split.
        predictions: What the model answered; rows that match nothing are counted and named.
        baselines: Baseline name (``question-only``) -> its predictions of at least the questions that are scored.
        dataset: Which questions these are.
        model: Model that answered, as the predictions' card names it.
        facts: Breakdowns to make, a fact or a tuple of facts to be crossed; by default every fact that takes
            2 to 40 values here.
        crossed: Further breakdowns, beside those.
        protocol: Name of the scoring rule.
        protocols: Names of rules to score the same predictions by beside it.
        train: Training rows, for the rules that take their labels from them.
        leaks: Rows that training may have shown, to be scored without.
        temperature: Of the confidence, from the model's bundle.
        temperature_from: What it was fitted on.
        risk: The share of wrong answers among those given that is tolerated when the model may abstain.
        resamples: Of the bootstrap over groups.
        level: Nominal coverage of the intervals.
        seed: Of the bootstrap; equal input and seed give an equal file.

    Raises:
        DataError: If two examples share an id, nothing can be scored, a baseline lacks a question or a fact is
            unknown.
        ConfigError: If the protocol is unknown, or `resamples` or `level` is out of range.
    """
    rule: Protocol = registry.find("protocols", protocol)
    how = Bootstrap(resamples, level, seed)
    scored, answers, set_aside = _join(examples, predictions)
    under = {name: _baseline(name, given, scored) for name, given in baselines.items()}
    metrics = rule.published_metrics(Context(train, scored))
    tallies = [tally(metric, scored, answers) for metric in metrics]
    baseline_tallies = {name: [tally(metric, scored, given) for metric in metrics] for name, given in under.items()}
    chosen = usual_facts(scored) if facts is None else check_facts(facts, scored)
    chosen += [names for names in check_facts(crossed, scored) if names not in chosen]
    return Results(
        dataset=dataset,
        model=model,
        protocol=ProtocolRef(name=rule.name, rule=rule.rule, citation=rule.citation),
        bootstrap=how,
        counts=_counts(examples, predictions, scored),
        set_aside=set_aside,
        noted=noted(metrics[0], scored, answers),
        metrics=[
            _metric(ours, {name: given[number] for name, given in baseline_tallies.items()}, how)
            for number, ours in enumerate(tallies)
        ],
        breakdowns=[break_down(names, tallies, baseline_tallies, how) for names in chosen],
        more=_more(scored, answers, under, how),
        protocols=protocol_scores(
            [registry.find("protocols", name) for name in protocols],
            scored,
            answers,
            train=train,
            baseline=next(iter(under.values()), None),
            bootstrap=how,
        ),
        calibration=calibrate(
            judge(metrics[0], scored, [answers[example.id] for example in scored]),
            risk=risk,
            temperature=temperature,
            source=temperature_from,
        ),
        consistency=consistency(scored, {example.id: answers[example.id].answer for example in scored}),
        clean=_clean(leaks, tallies, baseline_tallies, how) if leaks else None,
    )


def headline(results: Results) -> str:
    """The result in one line: metrics with intervals, questions and images, the first baseline, protocol."""
    scores = [f"{m.label} {percent(m.score.value)} {bounds(m.score.interval)}" for m in results.metrics]
    first = results.metrics[0]
    baselines = [f"{name} baseline {percent(score.value)}" for name, score in list(first.baselines.items())[:1]]
    return " · ".join([*scores, f"n={scope(results)}", *baselines, results.protocol.name])


def scope(results: Results) -> str:
    """What the numbers rest on: ``1,053 questions on 96 images``, or ``1,000 of 1,053 questions on ...``."""
    counts = results.counts
    of = f"{counts.scored:,} of " if counts.scored < counts.examples else ""
    return f"{of}{count(counts.examples, 'question')} on {count(counts.images, 'image')}"


def _join(
    examples: Sequence[Example], predictions: Sequence[Prediction]
) -> tuple[list[Example], dict[str, Prediction], list[SetAside]]:
    _check_unique(examples)
    times = Counter(prediction.id for prediction in predictions)
    answers = {prediction.id: prediction for prediction in predictions}
    reasons = {example.id: _reason(example, times[example.id]) for example in examples}
    scored = [example for example in examples if reasons[example.id] is None]
    if not scored:
        raise DataError(
            f"none of {len(predictions)} predictions answers one of {len(examples)} questions with an "
            f"accepted answer; check that dataset, split and filter are those the predictions were made for"
        )
    extra = {id_: _NO_EXAMPLE for id_ in times if id_ not in reasons}
    return scored, answers, _set_aside({id_: reason for id_, reason in reasons.items() if reason} | extra)


def _reason(example: Example, times: int) -> str | None:
    if not example.answers:
        return _NO_ANSWER
    return None if times == 1 else _NO_PREDICTION if times == 0 else _TWICE


def _set_aside(reasons: Mapping[str, str]) -> list[SetAside]:
    found = []
    for reason in (_NO_PREDICTION, _NO_ANSWER, _TWICE, _NO_EXAMPLE):
        ids = sorted(id_ for id_, why in reasons.items() if why == reason)
        if ids:
            found.append(SetAside(reason=reason, n=len(ids), ids=ids[:NAMED_IDS]))
    return found


def noted(metric: Metric, scored: Sequence[Example], answers: Mapping[str, Prediction]) -> list[Noted]:
    """Wrong answers that are empty, and those that only differ from the reference in characters that look alike."""
    empty = [e.id for e in scored if not answers[e.id].answer.strip() and any(gold.strip() for gold in e.answers)]
    alike = [e.id for e in scored if _looks_right(metric, answers[e.id], e)]
    found = ((_EMPTY, empty), (_ALIKE, alike))
    return [Noted(what=what, n=len(ids), ids=sorted(ids)[:NAMED_IDS]) for what, ids in found if ids]


def _looks_right(metric: Metric, prediction: Prediction, example: Example) -> bool:
    """Whether a wrong answer becomes right when characters that look alike are made one."""
    if prediction.answer.isascii() and all(map(str.isascii, example.answers)):
        return False
    plain = replace(prediction, answer=plain_letters(prediction.answer))
    counts = metric.counts(prediction, example), metric.counts(plain, _plain_answers(example))
    before, after = (None if one is None else metric.value(one) for one in counts)
    return before != 1.0 and after == 1.0


def _plain_answers(example: Example) -> Example:
    return replace(example, answers=tuple(map(plain_letters, example.answers)))


def _check_unique(examples: Sequence[Example]) -> None:
    times = Counter(example.id for example in examples)
    if twice := next((id_ for id_, n in times.items() if n > 1), None):
        raise DataError(f"two examples have the id {twice!r}; ids must be unique, so prepare the dataset again")


def _baseline(name: str, predictions: Sequence[Prediction], scored: Sequence[Example]) -> dict[str, Prediction]:
    found = {prediction.id: prediction for prediction in predictions}
    if missing := next((example.id for example in scored if example.id not in found), None):
        raise DataError(f"the {name} baseline has no prediction for {missing!r}; compute it over the same questions")
    return found


def _counts(examples: Sequence[Example], predictions: Sequence[Prediction], scored: Sequence[Example]) -> Counts:
    return Counts(
        examples=len(examples),
        predictions=len(predictions),
        scored=len(scored),
        images=len({example.image_id for example in scored}),
        groups=len({example.group for example in scored}),
    )


def _clean(
    leaks: Leaks, tallies: Sequence[Tally], baselines: Mapping[str, Sequence[Tally]], how: Bootstrap
) -> Clean | None:
    """The metrics without leaked rows; None where there is none to leave out."""
    ids = [example.id for example in tallies[0].examples]
    exact, near = sum(id_ in leaks.exact for id_ in ids), sum(id_ in leaks.near for id_ in ids)
    if not exact and not near and not leaks.learned:
        return None
    left = leaks.exact | leaks.near | (leaks.learned or frozenset())

    def without(given: Tally) -> Tally:
        return given.subset([n for n, example in enumerate(given.examples) if example.id not in left])

    return Clean(
        exact=exact,
        near=near,
        looked=leaks.looked,
        learned=None if leaks.learned is None else sum(id_ in leaks.learned for id_ in ids),
        scores={one.metric.name: without(one).score(how) for one in tallies},
        baselines={name: {one.metric.name: without(one).total() for one in given} for name, given in baselines.items()},
    )


def find_metric(name: str, *, train: Sequence[Example] = (), rows: Sequence[Example] = ()) -> Metric:
    """A metric by name: a registered one (``em``, ``laterality``), or a number of a protocol (``helm.bleu1``).

    Raises `ConfigError` with the known names.
    """
    protocol_name, _, metric_name = name.rpartition(".")
    if not protocol_name:
        metric: Metric = registry.create("metrics", metric_name)
        return metric
    protocol: Protocol = registry.find("protocols", protocol_name)
    known = {metric.name: metric for metric in protocol.published_metrics(Context(train, rows))}
    if metric_name not in known:
        raise ConfigError(f"unknown metric {metric_name!r} of {protocol_name}; known: {', '.join(known)}")
    return known[metric_name]


def more_metrics() -> list[Metric]:
    """The registered metrics other than the headline's."""
    return [registry.create("metrics", name) for name in registry.names("metrics") if name not in ("em", "f1")]


def _more(
    scored: Sequence[Example],
    answers: Mapping[str, Prediction],
    baselines: Mapping[str, Mapping[str, Prediction]],
    how: Bootstrap,
) -> list[MetricResult]:
    """The metrics beside the protocol's that apply to any of these questions."""
    tallies = [tally(metric, scored, answers) for metric in more_metrics()]
    return [
        _metric(ours, {name: tally(ours.metric, scored, given) for name, given in baselines.items()}, how)
        for ours in tallies
        if ours.examples
    ]


def _metric(ours: Tally, baselines: Mapping[str, Tally], how: Bootstrap) -> MetricResult:
    return MetricResult(
        name=ours.metric.name,
        label=ours.metric.label,
        signature=ours.metric.signature(),
        score=ours.score(how),
        baselines={name: baseline.score(how) for name, baseline in baselines.items()},
        differences={name: ours.difference(baseline, how) for name, baseline in baselines.items()},
    )

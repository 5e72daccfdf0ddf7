"""From the answers of a probe to fractions with intervals, clustered by image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from medical_vqa.evaluation.probing.pictures import MIRRORED, ORIGINAL, REPLACED, SHUFFLED
from medical_vqa.evaluation.probing.questions import Plan, QuestionPair, mirrored_text, names_side
from medical_vqa.evaluation.statistics.intervals import clustered_bootstrap, wilson_of_groups
from medical_vqa.models.guards.contradiction import disagreement
from medical_vqa.models.guards.pictures.reference import FINDING_TYPES
from medical_vqa.models.questions.claims import claim_of
from medical_vqa.schema.probe import ProbeCheck, ProbeGroup, ProbePair
from medical_vqa.schema.records import Example
from medical_vqa.schema.results import Bootstrap, Interval, Score
from medical_vqa.text import squad_normalize

_FACTS = ("answer_type", "content_type", "modality")
"""Facts whose values are groups of their own."""
_MOST_EXAMPLES = 12
FEWEST_QUESTIONS = 10
"""A group with fewer questions is left out: its interval says nothing."""


def groups_of(plan: Plan, answers: Mapping[str, str], bootstrap: Bootstrap) -> list[ProbeGroup]:
    """All rows, those that ask for findings, and those of each fact's value, with enough questions.

    Args:
        plan: What was asked.
        answers: Id of a probe's question -> the answer.
        bootstrap: How intervals are resampled.
    """
    members: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for row in plan.rows:
        members["all", ""].append(row)
        if asks_for_finding(row):
            members["finding", "yes"].append(row)
        for fact in _FACTS:
            if value := row.facts.get(fact):
                members[fact, value].append(row)
    order = {"all": 0, "finding": 1} | {fact: 2 + place for place, fact in enumerate(_FACTS)}
    return [
        group_of(fact, value, rows, plan, answers, bootstrap)
        for (fact, value), rows in sorted(members.items(), key=lambda item: (order[item[0][0]], item[0][1]))
        if fact == "all" or len(rows) >= FEWEST_QUESTIONS
    ]


def asks_for_finding(row: Example) -> bool:
    """Whether a row asks if something is abnormal: by its words, or by its published type."""
    return claim_of(row.question) is not None or row.facts.get("content_type", "").lower() in FINDING_TYPES


def group_of(
    fact: str, value: str, rows: Sequence[Example], plan: Plan, answers: Mapping[str, str], bootstrap: Bootstrap
) -> ProbeGroup:
    """How the answers to rows change with replaced pictures.

    Args:
        fact: What groups the rows.
        value: Value of the fact.
        rows: The rows.
        plan: What was asked.
        answers: Id of a probe's question -> the answer.
        bootstrap: How intervals are resampled.
    """

    def texts(row: Example, picture: str) -> list[str]:
        return [answers[question.id] for question in plan.replaced[row.id, picture]]

    def mean(judge: Callable[[Example, str], float], row: Example, picture: str) -> float:
        return float(np.mean([judge(row, text) for text in texts(row, picture)]))

    def compared(judge: Callable[[Example, str], float], picture: str) -> Score:
        members = [row for row in rows if texts(row, picture)]
        return score([mean(judge, row, picture) for row in members], [row.group for row in members], bootstrap)

    def changes(row: Example, text: str) -> float:
        return float(squad_normalize(text) != squad_normalize(texts(row, ORIGINAL)[0]))

    def right(row: Example, text: str) -> float:
        return float(squad_normalize(text) in {squad_normalize(gold) for gold in row.answers})

    shuffled = [row for row in rows if texts(row, SHUFFLED)]
    clusters = [row.group for row in shuffled]
    uses = [max(changes(row, text) for text in texts(row, SHUFFLED)) for row in shuffled]
    gains = [mean(right, row, ORIGINAL) - mean(right, row, SHUFFLED) for row in shuffled]
    return ProbeGroup(
        fact=fact,
        value=value,
        uses_image=score(uses, clusters, bootstrap),
        changed={picture: compared(changes, picture) for picture in REPLACED},
        accuracy=compared(right, ORIGINAL),
        accuracy_of={picture: compared(right, picture) for picture in REPLACED},
        benefit=score(gains, clusters, bootstrap, difference=True),
    )


def score(values: Sequence[float], groups: Sequence[str], bootstrap: Bootstrap, *, difference: bool = False) -> Score:
    """The mean of values with its interval, resampled over groups.

    Args:
        values: One value per question, in [0, 1]; in [-1, 1] for a difference.
        groups: The patient or image of each question.
        bootstrap: How it is resampled.
        difference: Whether the values are differences.
    """
    if not values:
        nothing = Interval(low=None, high=None, level=bootstrap.level, method="", reason="nothing to count")
        return Score(value=None, interval=nothing, n=0, clusters=0)
    counts = np.array([[value, 1.0] for value in values])
    mean, clusters = float(np.mean(values)), len(set(groups))
    interval = clustered_bootstrap(
        counts,
        list(groups),
        lambda totals: totals[:, 0] / totals[:, 1],
        resamples=bootstrap.resamples,
        level=bootstrap.level,
        seed=bootstrap.seed,
    )
    if not difference and mean in (0.0, 1.0):
        interval = wilson_of_groups(mean == 1.0, clusters, bootstrap.level)
    return Score(value=mean, interval=interval, n=len(values), clusters=clusters)


def contradictions_in(plan: Plan, answers: Mapping[str, str], bootstrap: Bootstrap) -> ProbeCheck:
    """How many questions and their opposites get answers that exclude each other."""
    judged: list[tuple[QuestionPair, bool]] = []
    for pair in plan.opposites:
        first, second = answers[pair.first.id], answers[pair.second.id]
        claim, other = claim_of(pair.first.question), claim_of(pair.second.question)
        if claim and other and None not in (claim.says_normal(first), other.says_normal(second)):
            excluded = disagreement(pair.first.question, first, pair.second.question, second) is not None
            judged.append((pair, excluded))
    return _check(plan, judged, answers, bootstrap, not_judged=len(plan.opposites) - len(judged))


def paraphrases_in(plan: Plan, answers: Mapping[str, str], bootstrap: Bootstrap) -> ProbeCheck:
    """How many questions in other words get another answer."""
    judged = [
        (pair, squad_normalize(answers[pair.first.id]) != squad_normalize(answers[pair.second.id]))
        for pair in plan.paraphrases
    ]
    return _check(plan, judged, answers, bootstrap)


def mirrored_in(plan: Plan, answers: Mapping[str, str], bootstrap: Bootstrap) -> tuple[ProbeCheck, ProbeCheck]:
    """What mirroring the picture does, to questions with a side and to those without.

    Where question or answer names a side, left and right of both must be exchanged; elsewhere nothing may change.
    """
    with_side: list[tuple[QuestionPair, bool]] = []
    without: list[tuple[QuestionPair, bool]] = []
    for row in plan.rows:
        pair = QuestionPair(plan.replaced[row.id, ORIGINAL][0], plan.replaced[row.id, MIRRORED][0])
        first, second = answers[pair.first.id], answers[pair.second.id]
        fails = squad_normalize(mirrored_text(first)) != squad_normalize(second)
        sided = names_side(row.question) or names_side(first) or any(map(names_side, row.answers))
        (with_side if sided else without).append((pair, fails))
    return _check(plan, with_side, answers, bootstrap), _check(plan, without, answers, bootstrap)


def _check(
    plan: Plan,
    judged: Sequence[tuple[QuestionPair, bool]],
    answers: Mapping[str, str],
    bootstrap: Bootstrap,
    *,
    not_judged: int = 0,
) -> ProbeCheck:
    group_of_image = {row.image_id: row.group for row in plan.rows}
    examples: dict[tuple[str, str], ProbePair] = {}
    for pair, fails in judged:
        if fails:
            wording = (pair.first.question, pair.second.question)
            examples.setdefault(
                wording,
                ProbePair(
                    image_id=pair.first.image_id,
                    first=pair.first.question,
                    first_answer=answers[pair.first.id],
                    second=pair.second.question,
                    second_answer=answers[pair.second.id],
                ),
            )
    groups = [group_of_image[pair.first.image_id] for pair, _ in judged]
    return ProbeCheck(
        score=score([float(fails) for _, fails in judged], groups, bootstrap),
        not_judged=not_judged,
        examples=tuple(examples.values())[:_MOST_EXAMPLES],
    )

"""Sensitivity and specificity of each finding that questions for yes or no ask about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from medical_vqa.evaluation.metrics.base import Mean
from medical_vqa.evaluation.statistics.breakdown import is_small
from medical_vqa.evaluation.statistics.tally import Tally, tally
from medical_vqa.models.questions.claims import Claim, claim_of
from medical_vqa.schema.example_table import ExampleTable
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.schema.results import Bootstrap, FindingScores

FEWEST_QUESTIONS = 5
"""Findings with fewer questions have no row."""


def finding_scores(
    examples: Sequence[Example], predictions: Mapping[str, Prediction], bootstrap: Bootstrap | None = None
) -> list[FindingScores]:
    """A row for each finding with enough questions, the most frequent first, then by name.

    A question is about a finding if it asks for yes or no whether something is abnormal, of abnormal size, or present,
    in English or Chinese. Wordings that ask for the opposite (``Is the lung healthy?``) are turned round. An answer
    that is neither counts as wrong. Intervals resample whole groups.

    Args:
        examples: The scored rows.
        predictions: Example id -> prediction.
        bootstrap: How intervals are resampled.
    """
    table = ExampleTable.of(examples)
    claims = list(map(claim_of, table.questions.values))
    rows_of: defaultdict[str, list[Example]] = defaultdict(list)
    for row, question in enumerate(table.questions.index.tolist()):
        claim = claims[question]
        if claim is None:
            continue
        example = table[row]
        if example.id in predictions and _says_normal(claim, example) is not None:
            rows_of[_name(claim)].append(example)
    bootstrap = bootstrap or Bootstrap()
    scores = []
    for name, rows in sorted(rows_of.items(), key=lambda item: (-len(item[1]), item[0])):
        if len(rows) >= FEWEST_QUESTIONS:
            fractions = [tally(metric, rows, predictions) for metric in (_SENSITIVITY, _SPECIFICITY)]
            sensitivity, specificity = (counted.score(bootstrap) for counted in fractions)
            scores.append(
                FindingScores(
                    name=name,
                    sensitivity=sensitivity,
                    specificity=specificity,
                    small=any(map(_is_small, fractions)),
                )
            )
    return scores


def _name(claim: Claim) -> str:
    if claim.attribute == "finding":
        return claim.finding
    return f"{claim.subject.removeprefix('the ')}: {'size' if claim.attribute == 'size' else 'state'}"


def _says_normal(claim: Claim, example: Example) -> bool | None:
    return claim.says_normal(example.answers[0]) if example.answers else None


def _fraction(name: str, *, normal: bool) -> Mean:
    """The fraction of right answers where the reference says that nothing is wrong, or that something is."""

    def score(prediction: Prediction, example: Example) -> float | None:
        claim = claim_of(example.question)
        if claim is None or _says_normal(claim, example) is not normal:
            return None
        return float(claim.says_normal(prediction.answer) is normal)

    return Mean(name, name, f"rows:claims|reference:{'absent' if normal else 'present'}|v:1", score)


def _is_small(counted: Tally) -> bool:
    return is_small(len(counted.examples), counted.examples.groups.distinct())


_SENSITIVITY = _fraction("sensitivity", normal=False)
_SPECIFICITY = _fraction("specificity", normal=True)

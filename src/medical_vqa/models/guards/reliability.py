"""Reliability of each type of question: whether a model is better there than answering without the picture.

A row compares the model's accuracy on validation questions of one type with that of the question-only baseline, by a
bootstrap that resamples whole images. For yes/no questions it also has the area under the ROC curve (AUC) of the
probability of yes, which is 0.5 for guessing. Answers to finding questions of a type that is not above its baseline are
withheld.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medical_vqa.schema.bundle_card import TypeReliability
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.text import squad_normalize

FEWEST_QUESTIONS = 20
"""Types with fewer validation questions have no row: too few to withhold answers by."""
FEWEST_OF_EACH_ANSWER = 5
"""An AUC of fewer questions with the answer yes, or with no, is not stated: one pair decides about 0.00 or 1.00."""
_RESAMPLES = 1000
_AREA_RESAMPLES = 300
_ONE_SIDED = 0.10
"""A type counts as above its baseline when the difference is above 0, and the AUC above 0.5 where there is one, each
with 90 % confidence, one-sided. The AUC counts for this where it is not stated, too."""


def reliability_rows(
    examples: Sequence[Example],
    predictions: Mapping[str, Prediction],
    baseline: Mapping[str, Prediction],
    types: Mapping[str, str],
    *,
    kind: str,
) -> list[TypeReliability]:
    """One row per type with enough questions.

    Args:
        examples: Validation rows with an answer.
        predictions: Example id -> the model's prediction.
        baseline: Example id -> the question-only baseline's prediction.
        types: Example id -> its type; examples that are missing are left out.
        kind: What a type is: ``question type`` or ``finding``.
    """
    rows = []
    for name in sorted(set(types.values())):
        members = [e for e in examples if types.get(e.id) == name and e.id in predictions and e.id in baseline]
        if len(members) >= FEWEST_QUESTIONS:
            rows.append(_row(name, kind, members, predictions, baseline))
    return rows


def area_under_roc(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """Probability that a positive's score is above a negative's, ties counted half; None where one is missing.

    Source: Hanley and McNeil 1982, Radiology 143 (1).
    """
    if not positive or not negative:
        return None
    difference = np.subtract.outer(np.asarray(positive), np.asarray(negative))
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def _row(
    name: str,
    kind: str,
    examples: Sequence[Example],
    predictions: Mapping[str, Prediction],
    baseline: Mapping[str, Prediction],
) -> TypeReliability:
    right = np.array([is_right(predictions[e.id], e) for e in examples], float)
    without_picture = np.array([is_right(baseline[e.id], e) for e in examples], float)
    groups = np.unique([e.group for e in examples], return_inverse=True)[1]
    sums, counts = np.bincount(groups, right - without_picture), np.bincount(groups)
    draws = np.random.default_rng(0).integers(0, len(sums), (_RESAMPLES, len(sums)))
    differences = sums[draws].sum(1) / counts[draws].sum(1)
    area, area_low = _area_with_bound(examples, predictions, groups, draws)
    stated = _fewest_of_an_answer(examples) >= FEWEST_OF_EACH_ANSWER
    above = bool(np.quantile(differences, _ONE_SIDED) > 0) and (area_low is None or area_low > 0.5)
    low, high = np.quantile(differences, [0.025, 0.975])
    return TypeReliability(
        name=name,
        kind=kind,
        questions=len(examples),
        images=len(sums),
        accuracy=round(float(right.mean()), 4),
        baseline_accuracy=round(float(without_picture.mean()), 4),
        difference_low=round(float(low), 4),
        difference_high=round(float(high), 4),
        auc=round(area, 4) if area is not None and stated else None,
        above_baseline=above,
    )


def _area_with_bound(
    examples: Sequence[Example],
    predictions: Mapping[str, Prediction],
    groups: NDArray[np.int64],
    draws: NDArray[np.int64],
) -> tuple[float | None, float | None]:
    """AUC of the probability of yes, and its one-sided lower bound over resampled groups; None for other questions."""
    gold = [squad_normalize(example.answers[0]) for example in examples]
    scores = np.array([_probability_of_yes(predictions[example.id]) for example in examples])
    yes, no = (np.array([answer == word for answer in gold]) for word in ("yes", "no"))
    area = area_under_roc(scores[yes].tolist(), scores[no].tolist())
    if area is None:
        return None, None
    members = [np.flatnonzero(groups == group) for group in range(groups.max() + 1)]
    areas = []
    for draw in draws[:_AREA_RESAMPLES]:
        rows = np.concatenate([members[group] for group in draw])
        resampled = area_under_roc(scores[rows][yes[rows]].tolist(), scores[rows][no[rows]].tolist())
        areas += [] if resampled is None else [resampled]
    return area, float(np.quantile(areas, _ONE_SIDED)) if areas else None


def _fewest_of_an_answer(examples: Sequence[Example]) -> int:
    """Number of questions whose answer is yes, or of those with no, whichever is smaller."""
    gold = [squad_normalize(example.answers[0]) for example in examples]
    return min(gold.count("yes"), gold.count("no"))


def is_right(prediction: Prediction, example: Example) -> bool:
    """Whether a prediction is one of the accepted answers, after SQuAD's normalization."""
    return squad_normalize(prediction.answer) in {squad_normalize(answer) for answer in example.answers}


def _probability_of_yes(prediction: Prediction) -> float:
    probabilities = {prediction.answer: prediction.confidence or 0.0, **dict(prediction.alternatives)}
    by_name = {squad_normalize(name): probability for name, probability in probabilities.items()}
    yes, no = by_name.get("yes", 0.0), by_name.get("no", 0.0)
    return yes / (yes + no) if yes + no else 0.5

"""Predictions joined to the questions they answer, by id.

A question is scored only if it has an accepted answer and exactly one prediction. Every other one is excluded, counted
and named: it is neither right nor wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medical_vqa.errors import DataError
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.schema.results import NamedRows

MAX_IDS = 100
_NO_PREDICTION = "no prediction"
_NO_ANSWER = "no accepted answer in the dataset"
_DUPLICATE = "predicted more than once"
_NO_EXAMPLE = "prediction for a question that is not in this split"


@dataclass(frozen=True, slots=True)
class AnsweredQuestions:
    """The questions of a split with the predictions of one model."""

    examples: Sequence[Example]
    """All rows of the split."""
    predictions: Sequence[Prediction]
    """All predictions of the file."""
    scored: list[Example]
    """The rows with an accepted answer and exactly one prediction, in order."""
    answers: Mapping[str, Prediction]
    """Example id -> its prediction; of the scored rows, and of no other row of the split."""
    excluded: list[NamedRows]
    """The other rows and predictions, by reason."""

    def require_scored(self) -> None:
        """Raise `DataError` if no question can be scored."""
        if not self.scored:
            file_ids, split_ids = ([row.id for row in rows[:3]] for rows in (self.predictions, self.examples))
            raise DataError(
                f"none of {len(self.predictions)} predictions answers one of {len(self.examples)} questions with an "
                f"accepted answer: the file's ids are like {_quoted(file_ids)}, those of the split like "
                f"{_quoted(split_ids)}; check that dataset, split and filter are those of the predictions, or "
                "join by image and question, or by the order of the rows (--map position=#,answer=...)"
            )


def _quoted(ids: Sequence[str]) -> str:
    return ", ".join(repr(id_[:60]) for id_ in ids) or "none"


def join(examples: Sequence[Example], predictions: Sequence[Prediction]) -> AnsweredQuestions:
    """Join predictions to examples; raises `DataError` if two examples share an id."""
    answers: dict[str, Prediction] = {}
    duplicates: set[str] = set()
    for prediction in predictions:
        if prediction.id in answers:
            duplicates.add(prediction.id)
        answers[prediction.id] = prediction
    scored: list[Example] = []
    excluded: dict[str, list[str]] = {reason: [] for reason in (_NO_PREDICTION, _NO_ANSWER, _DUPLICATE, _NO_EXAMPLE)}
    for example in examples:
        if not example.answers:
            excluded[_NO_ANSWER].append(example.id)
        elif example.id in duplicates:
            excluded[_DUPLICATE].append(example.id)
        elif example.id not in answers:
            excluded[_NO_PREDICTION].append(example.id)
        else:
            scored.append(example)
    ids = {example.id for example in examples}
    if len(ids) < len(examples):
        repeated, _ = Counter(example.id for example in examples).most_common(1)[0]
        raise DataError(f"two examples have the id {repeated!r}; ids must be unique, so prepare the dataset again")
    excluded[_NO_EXAMPLE] = [id_ for id_ in answers if id_ not in ids]
    named = [named_rows(reason, rows) for reason, rows in excluded.items() if rows]
    scored_answers = {example.id: answers[example.id] for example in scored}
    return AnsweredQuestions(examples, predictions, scored, scored_answers, named)


def named_rows(reason: str, ids: Sequence[str]) -> NamedRows:
    """Rows by their ids, of which the first hundred are kept."""
    return NamedRows(reason=reason, n=len(ids), ids=sorted(ids)[:MAX_IDS])

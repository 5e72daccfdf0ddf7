"""Predictions joined to the questions they answer, by id.

A question is scored only if it has an accepted answer and exactly one prediction. Every other one is excluded, counted
and named: it is neither right nor wrong.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medical_vqa.errors import DataError
from medical_vqa.schema.example_table import ExampleTable
from medical_vqa.schema.prediction_table import AnswersById, PredictionTable
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

    examples: ExampleTable
    """All rows of the split."""
    predictions: PredictionTable
    """All predictions of the file."""
    scored: ExampleTable
    """The rows with an accepted answer and exactly one prediction, in order."""
    answers: AnswersById
    """Example id -> its prediction; of the scored rows, and of no other row of the split."""
    excluded: list[NamedRows]
    """The other rows and predictions, by reason."""

    def require_scored(self, file: str = "") -> None:
        """Raise `DataError` if no question can be scored.

        Args:
            file: What the message begins with, where it may be one of several.
        """
        if not self.predictions:
            raise DataError(f"{file}has no answers; write one row per question")
        if not self.scored:
            repeated = next((part for part in self.excluded if part.reason == _DUPLICATE), None)
            if repeated is not None:
                times = self.predictions.ids.count(repeated.ids[0])
                raise DataError(
                    f"{file}every question it answers has several predictions ({repeated.ids[0]} has {times}); keep "
                    "one for each question, such as those of one epoch, trial or filter"
                )
            file_ids, split_ids = ([row.id for row in rows[:3]] for rows in (self.predictions, self.examples))
            raise DataError(
                f"{file}none of {len(self.predictions)} predictions answers one of {len(self.examples)} questions with "
                f"an accepted answer: the file's ids are like {_quoted(file_ids)}, those of the split like "
                f"{_quoted(split_ids)}; check that dataset, split and filter are those of the predictions, or "
                "join by image and question, or by the order of the rows (--map position=#,answer=...)"
            )


def _quoted(ids: Sequence[str]) -> str:
    return ", ".join(repr(id_[:60]) for id_ in ids) or "none"


def join(
    examples: Sequence[Example], predictions: Sequence[Prediction], where: Mapping[str, str] | None = None
) -> AnsweredQuestions:
    """Join predictions to examples.

    Args:
        examples: The rows of a split.
        predictions: Predictions, also of other rows.
        where: Facts by which the rows of the split were selected.

    Raises:
        DataError: Two examples share an id.
    """
    rows, table = ExampleTable.of(examples), PredictionTable.of(predictions)
    ids = set(rows.ids)
    if len(ids) < len(rows):
        repeated_id, _ = Counter(rows.ids).most_common(1)[0]
        raise DataError(f"two examples have the id {repeated_id!r}; ids must be unique, so prepare the dataset again")
    has_answer = rows.has_answer()
    twice = np.zeros(len(rows), bool)
    unknown: list[str] = []
    if table.ids == rows.ids:  # the same order, in which `predict` writes
        position_of = np.arange(len(rows))
    else:
        position = dict(zip(table.ids, range(len(table)), strict=True))
        position_of = np.fromiter(map(position.get, rows.ids, itertools.repeat(-1)), np.intp, len(rows))
        if len(position) < len(table):
            repeated = {id_ for id_, times in Counter(table.ids).items() if times > 1}
            twice = np.fromiter(map(repeated.__contains__, rows.ids), bool, len(rows))
        if (position_of >= 0).sum() < len(position):
            unknown = [id_ for id_ in table.ids if id_ not in ids]
    is_scored = has_answer & ~twice & (position_of >= 0)
    excluded = {
        _NO_PREDICTION: _ids_where(rows, has_answer & ~twice & (position_of < 0)),
        _NO_ANSWER: _ids_where(rows, ~has_answer),
        _DUPLICATE: _ids_where(rows, has_answer & twice),
        _NO_EXAMPLE + _with_facts(where or {}): unknown,
    }
    scored, answer_of = rows, position_of
    if not is_scored.all():
        scored, answer_of = rows.take(np.flatnonzero(is_scored)), position_of[is_scored]
    named = [named_rows(reason, of_reason) for reason, of_reason in excluded.items() if of_reason]
    return AnsweredQuestions(rows, table, scored, AnswersById(scored, table.take(answer_of)), named)


def _with_facts(where: Mapping[str, str]) -> str:
    return f" with {', '.join(f'{fact}={value}' for fact, value in where.items())}" if where else ""


def _ids_where(rows: ExampleTable, mask: NDArray[np.bool_]) -> list[str]:
    return [rows.ids[row] for row in np.flatnonzero(mask).tolist()]


def named_rows(reason: str, ids: Sequence[str]) -> NamedRows:
    """Rows by their ids, of which the first hundred are kept."""
    return NamedRows(reason=reason, n=len(ids), ids=sorted(ids)[:MAX_IDS])

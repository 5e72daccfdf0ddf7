"""Answers by column, as `schema.example_table` keeps questions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from medical_vqa.schema.codes import Codes, Numbering, Numbers
from medical_vqa.schema.example_table import ExampleTable
from medical_vqa.schema.lazy_rows import Rows, is_all
from medical_vqa.schema.records import Prediction


class PredictionTable(Rows[Prediction]):
    """Answers by column."""

    def __init__(
        self,
        ids: Sequence[str],
        answers: Codes[str],
        raw: Codes[str],
        confidence: Sequence[float | None],
        alternatives: Sequence[tuple[tuple[str, float], ...]] | None = None,
        further: Mapping[int, Prediction] | None = None,
    ) -> None:
        """Keep columns of equal length.

        Args:
            ids: Ids of the questions.
            answers: The answers.
            raw: The texts before trimming.
            confidence: Confidence of each answer.
            alternatives: Next best answers of each row; None where no row has any.
            further: Predictions with fields that have no column, by position.
        """
        self.ids = ids
        self.answers = answers
        self.raw = raw
        self.confidence = confidence
        self.alternatives = alternatives
        self.further = further or {}

    @classmethod
    def of(cls, predictions: Sequence[Prediction]) -> PredictionTable:
        """The columns of some predictions; a table is returned as it is."""
        if isinstance(predictions, PredictionTable):
            return predictions
        columns = PredictionColumns()
        columns.add(predictions)
        table = columns.table()
        table._objects = tuple(predictions)
        return table

    @classmethod
    def repeated(cls, ids: Sequence[str], predictions: Sequence[Prediction], index: Numbers) -> PredictionTable:
        """Some predictions given again and again under other ids: row `i` is `predictions[index[i]]` for `ids[i]`."""
        once = cls.of(predictions)
        positions = index.tolist()
        has_alternatives = once.alternatives is not None
        return cls(
            ids,
            once.answers.take(index),
            once.raw.take(index),
            [once.confidence[row] for row in positions],
            [once.alternatives[row] for row in positions] if has_alternatives else None,  # type: ignore[index]
        )

    def _make(self, row: int) -> Prediction:
        if row in self.further:
            return self.further[row]
        return Prediction(
            self.ids[row],
            self.answers.values[self.answers.index[row]],
            self.raw.values[self.raw.index[row]],
            self.confidence[row],
            self.alternatives[row] if self.alternatives is not None else (),
        )

    def take(self, rows: Numbers) -> PredictionTable:
        """The table of some rows, in the given order."""
        if is_all(rows, len(self)):
            return self
        positions = rows.tolist()
        further = {
            new: self.further[old] for new, old in enumerate(positions) if old in self.further
        } if self.further else {}  # fmt: skip
        table = PredictionTable(
            list(map(self.ids.__getitem__, positions)),
            self.answers.take(rows),
            self.raw.take(rows),
            list(map(self.confidence.__getitem__, positions)),
            None if self.alternatives is None else [self.alternatives[row] for row in positions],
            further,
        )
        if self._objects is not None:
            table._objects = tuple([self._objects[row] for row in positions])
        return table

    def with_answers(self, answer: Callable[[str], str]) -> PredictionTable:
        """The same predictions with other answers, each a function of the present one."""
        new = Numbering[str]()
        new.extend(list(map(answer, self.answers.values)))
        codes = new.codes()
        further = {row: replace(one, answer=answer(one.answer)) for row, one in self.further.items()}
        return PredictionTable(
            self.ids,
            Codes(codes.values, codes.index[self.answers.index]),
            self.raw,
            self.confidence,
            self.alternatives,
            further,
        )


class PredictionColumns:
    """The columns of a table, to which rows are added."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.answers = Numbering[str]()
        self.raw = self.answers
        """The numbering of the answers as long as every row's text before trimming is its answer."""
        self.confidence: list[float | None] = []
        self.alternatives: list[tuple[tuple[str, float], ...]] = []
        self.further: dict[int, Prediction] = {}

    def add(self, rows: Sequence[Prediction]) -> None:
        """Add rows."""
        first = len(self.ids)
        self.add_columns(
            [row.id for row in rows],
            [row.answer for row in rows],
            [row.raw for row in rows],
            [row.confidence for row in rows],
            [row.alternatives for row in rows],
        )
        self.further |= {
            number: row
            for number, row in enumerate(rows, first)
            if row.judged_right is not None or row.confidence_basis is not None or row.guards is not None or row.cut_off
        }

    def add_columns(
        self,
        ids: Sequence[str],
        answers: Sequence[str],
        raw: Sequence[str],
        confidence: Sequence[float | None],
        alternatives: Sequence[tuple[tuple[str, float], ...]],
    ) -> None:
        """Add rows by column; they have no other fields than these."""
        self.ids += ids
        if self.raw is self.answers and raw != answers:
            self.raw = self.answers.copy()
        if self.raw is not self.answers:
            self.raw.extend(raw)
        self.answers.extend(answers)
        self.confidence += confidence
        self.alternatives += alternatives

    def table(self) -> PredictionTable:
        """The table of the rows."""
        answers = self.answers.codes()
        raw = answers if self.raw is self.answers else self.raw.codes()
        alternatives = self.alternatives if any(self.alternatives) else None
        return PredictionTable(self.ids, answers, raw, self.confidence, alternatives, self.further)


class AnswersById(Mapping[str, Prediction]):
    """The predictions of exactly the rows of a table, by id, in their order."""

    def __init__(self, examples: ExampleTable, predictions: PredictionTable) -> None:
        """Keep two tables of the same ids."""
        self.examples = examples
        self.predictions = predictions
        self._by_id: dict[str, Prediction] | None = None

    def of_rows(self, rows: ExampleTable) -> AnswersById:
        """The predictions of some of the rows, which it must have."""
        if rows is self.examples:
            return self
        position = dict(zip(self.examples.ids, range(len(self.examples)), strict=True))
        index = np.fromiter(map(position.__getitem__, rows.ids), np.intp, len(rows))
        return AnswersById(rows, self.predictions.take(index))

    def __getitem__(self, id_: str) -> Prediction:
        if self._by_id is None:
            self._by_id = dict(zip(self.examples.ids, self.predictions, strict=True))
        return self._by_id[id_]

    def __iter__(self) -> Iterator[str]:
        return iter(self.examples.ids)

    def __len__(self) -> int:
        return len(self.examples)

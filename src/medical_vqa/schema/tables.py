"""Rows by column: what scores a million answers without a million objects.

`ExampleTable` and `PredictionTable` are sequences of `Example` and `Prediction` whose fields lie in columns. Fields
that repeat (answers, questions, images, facts) are numbered, so that work is done once for each different value::

    table = read_examples(path)
    table[3].question                                # an object, made when it is needed
    table.answers.values, table.answers.index       # the different answers, and the number of each row's
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from medical_vqa.errors import DataError
from medical_vqa.schema.records import Example, Prediction, Record, read_record

Value = TypeVar("Value")
Numbers = NDArray[np.intp]
"""A number for each row, (rows,)."""
_CHUNK = 1 << 18  # characters parsed at once
_EXAMPLE = ("id", "image_id", "question", "answers", "group", "facts")
_PREDICTION = ("id", "answer", "raw", "confidence", "alternatives")


@dataclass(frozen=True, slots=True)
class Codes(Generic[Value]):
    """A column whose values repeat."""

    values: Sequence[Value]
    """The different values; may hold some that no row has."""
    index: Numbers
    """For each row the position of its value in `values`, (rows,)."""

    def __iter__(self) -> Iterator[Value]:
        """The value of each row."""
        return map(self.values.__getitem__, self.index.tolist())

    def take(self, rows: Numbers) -> Codes[Value]:
        """The column of some rows."""
        return Codes(self.values, self.index[rows])

    def followed_by(self, other: Codes[Value]) -> Codes[Value]:
        """The column of these rows and then of others, which have the same `values`."""
        return Codes(self.values, np.concatenate([self.index, other.index]))

    def used(self) -> list[Value]:
        """The different values that rows have, in the order of their first appearance."""
        first = np.full(len(self.values), len(self.index))
        first[self.index[::-1]] = np.arange(len(self.index))[::-1]  # the last assignment stays: that of the first row
        positions = np.argsort(first, kind="stable")[: self.distinct()]
        return [self.values[position] for position in positions.tolist()]

    def distinct(self) -> int:
        """Number of different values that rows have."""
        return int(np.count_nonzero(np.bincount(self.index, minlength=1)))

    def per_row(self, of_value: Callable[[Value], bool]) -> NDArray[np.bool_]:
        """A fact about each row's value, computed once for each different value, (rows,)."""
        return np.fromiter(map(of_value, self.values), bool, len(self.values))[self.index]


class _Numbering(Generic[Value]):
    """Numbers for values, in the order of their first appearance."""

    def __init__(self) -> None:
        self.numbers: dict[Hashable, int] = {}
        self.values: list[Value] = []
        self.parts: list[Numbers] = []

    def extend(self, values: Sequence[Value], keys: Sequence[Hashable] | None = None) -> None:
        """Number further rows; `keys` are equal where the values are, for values that cannot be hashed."""
        numbers = self.numbers
        of_rows: Sequence[Hashable] = values if keys is None else keys
        try:
            index = np.fromiter(map(numbers.__getitem__, of_rows), np.intp, len(of_rows))
        except KeyError:  # a value that is new; later in a file most are known
            for key, value in dict(zip(of_rows, values, strict=True)).items():
                if key not in numbers:
                    numbers[key] = len(self.values)
                    self.values.append(value)
            index = np.fromiter(map(numbers.__getitem__, of_rows), np.intp, len(of_rows))
        self.parts.append(index)

    def copy(self) -> _Numbering[Value]:
        """The same numbers and rows so far, to be continued with other rows."""
        other = _Numbering[Value]()
        other.numbers, other.values, other.parts = dict(self.numbers), list(self.values), list(self.parts)
        return other

    def codes(self) -> Codes[Value]:
        return Codes(self.values, np.concatenate(self.parts) if self.parts else np.zeros(0, np.intp))


class _Rows(Sequence[Record]):
    """A sequence whose objects are made when one is needed, and kept when all are."""

    ids: Sequence[str]
    _objects: tuple[Record, ...] | None = None

    @abstractmethod
    def _make(self, row: int) -> Record:
        """The object of a row."""

    @abstractmethod
    def take(self, rows: Numbers) -> Any:
        """The table of some rows, in the given order."""

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, row: int) -> Record: ...
    @overload
    def __getitem__(self, row: slice) -> list[Record]: ...
    def __getitem__(self, row: int | slice) -> Record | list[Record]:
        if isinstance(row, slice):
            return [self[position] for position in range(*row.indices(len(self)))]
        position = range(len(self))[row]
        return self._objects[position] if self._objects is not None else self._make(position)

    def __iter__(self) -> Iterator[Record]:
        if self._objects is None:
            self._objects = tuple(map(self._make, range(len(self))))
        return iter(self._objects)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return self is other or (len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True)))

    __hash__ = None  # type: ignore[assignment]


def _is_all(rows: Numbers, n: int) -> bool:
    return len(rows) == n and bool((rows == np.arange(n)).all())


class ExampleTable(_Rows[Example]):
    """Questions by column."""

    def __init__(
        self,
        ids: Sequence[str],
        images: Codes[str],
        questions: Codes[str],
        answers: Codes[tuple[str, ...]],
        groups: Codes[str],
        facts: Codes[Mapping[str, str]],
        others: Mapping[int, tuple[str, ...]] | None = None,
    ) -> None:
        """Keep columns of equal length; `others` are further images of the rows at these positions."""
        self.ids = ids
        self.images = images
        self.questions = questions
        self.answers = answers
        self.groups = groups
        self.facts = facts
        self.others = others or {}

    @classmethod
    def of(cls, examples: Sequence[Example]) -> ExampleTable:
        """The columns of some rows; a table is returned as it is."""
        if isinstance(examples, ExampleTable):
            return examples
        columns = _ExampleColumns()
        columns.add_objects(examples)
        table = columns.table()
        table._objects = tuple(examples)
        return table

    def _make(self, row: int) -> Example:
        return Example(
            self.ids[row],
            self.images.values[self.images.index[row]],
            self.questions.values[self.questions.index[row]],
            self.answers.values[self.answers.index[row]],
            self.groups.values[self.groups.index[row]],
            self.facts.values[self.facts.index[row]],
            self.others.get(row, ()),
        )

    def take(self, rows: Numbers) -> ExampleTable:
        """The table of some rows, in the given order."""
        if _is_all(rows, len(self)):
            return self
        positions = rows.tolist()
        others = {
            new: self.others[old] for new, old in enumerate(positions) if old in self.others
        } if self.others else {}  # fmt: skip
        table = ExampleTable(
            [self.ids[row] for row in positions],
            self.images.take(rows),
            self.questions.take(rows),
            self.answers.take(rows),
            self.groups.take(rows),
            self.facts.take(rows),
            others,
        )
        if self._objects is not None:
            table._objects = tuple([self._objects[row] for row in positions])
        return table

    def followed_by(self, other: ExampleTable) -> ExampleTable:
        """These rows and then those of another part of the same table."""
        if self.facts.values is not other.facts.values:
            return ExampleTable.of([*self, *other])
        others = {**self.others, **{len(self) + row: images for row, images in other.others.items()}}
        return ExampleTable(
            [*self.ids, *other.ids],
            self.images.followed_by(other.images),
            self.questions.followed_by(other.questions),
            self.answers.followed_by(other.answers),
            self.groups.followed_by(other.groups),
            self.facts.followed_by(other.facts),
            others,
        )

    def has_answer(self) -> NDArray[np.bool_]:
        """Whether each row has an accepted answer, (rows,)."""
        return self.answers.per_row(bool)


class PredictionTable(_Rows[Prediction]):
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
        columns = _PredictionColumns()
        columns.add_objects(predictions)
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
        if _is_all(rows, len(self)):
            return self
        positions = rows.tolist()
        further = {
            new: self.further[old] for new, old in enumerate(positions) if old in self.further
        } if self.further else {}  # fmt: skip
        table = PredictionTable(
            [self.ids[row] for row in positions],
            self.answers.take(rows),
            self.raw.take(rows),
            [self.confidence[row] for row in positions],
            None if self.alternatives is None else [self.alternatives[row] for row in positions],
            further,
        )
        if self._objects is not None:
            table._objects = tuple([self._objects[row] for row in positions])
        return table

    def with_answers(self, answer: Callable[[str], str]) -> PredictionTable:
        """The same predictions with other answers, each a function of the present one."""
        new = _Numbering[str]()
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


class AnswersById(Mapping[str, Prediction]):
    """The predictions of exactly the rows of a table, by id, in their order."""

    def __init__(self, examples: ExampleTable, predictions: PredictionTable) -> None:
        """Keep two tables of the same ids."""
        self.examples = examples
        self.predictions = predictions
        self._by_id: dict[str, Prediction] | None = None

    def __getitem__(self, id_: str) -> Prediction:
        if self._by_id is None:
            self._by_id = dict(zip(self.examples.ids, self.predictions, strict=True))
        return self._by_id[id_]

    def __iter__(self) -> Iterator[str]:
        return iter(self.examples.ids)

    def __len__(self) -> int:
        return len(self.examples)


# --- reading ----------------------------------------------------------------------------------------------------------


def _types(values: Iterable[Any]) -> set[type]:
    return set(map(type, values))


def _columns(rows: Sequence[Any], required: Sequence[str], optional: Sequence[str] = ()) -> list[list[Any]] | None:
    """The fields of objects that all have the required ones and as many of the optional ones, in that order.

    None if one of them is no object, lacks a field or has another.
    """
    if _types(rows) != {dict} or len(lengths := set(map(len, rows))) != 1:
        return None
    names = (*required, *optional)[: max(lengths.pop(), len(required))]
    try:
        columns = [list(map(itemgetter(name), rows)) for name in names]
    except KeyError:
        return None
    return columns if len(names) == len(rows[0]) else None


class _ExampleColumns:
    def __init__(self) -> None:
        self.ids: list[str] = []
        self.images, self.questions = _Numbering[str](), _Numbering[str]()
        self.groups = self.images
        """The numbering of the images as long as every row's group is its image."""
        self.answers = _Numbering[tuple[str, ...]]()
        self.facts = _Numbering[Mapping[str, str]]()
        self.fact_names: tuple[str, ...] | None = None
        """Names of the facts of the first row, which nearly all rows have."""
        self.others: dict[int, tuple[str, ...]] = {}

    def add(self, rows: Sequence[Any]) -> bool:
        """Add rows of JSON if all are as they should be."""
        columns = _columns(rows, _EXAMPLE)
        if columns is None:
            return False
        ids, images, questions, answers, groups, facts = columns
        is_usual = (
            all(_types(column) <= {str} for column in (ids, images, questions, groups))
            and _types(answers) == {list}
            and _types(chain.from_iterable(answers)) <= {str}
            and _types(facts) == {dict}
        )
        if not is_usual:
            return False
        keys = self._fact_keys(facts)
        if new := set(keys).difference(self.facts.numbers):
            rows_with_new = [one for key, one in zip(keys, facts, strict=True) if key in new]
            if not _types(chain.from_iterable(map(dict.values, rows_with_new))) <= {str}:
                return False
        self.ids += ids
        self._extend_images(images, groups)
        self.questions.extend(questions)
        self.answers.extend(list(map(tuple, answers)))
        self.facts.extend(facts, keys)
        return True

    def _extend_images(self, images: Sequence[str], groups: Sequence[str]) -> None:
        if self.groups is self.images and groups != images:
            self.groups = self.images.copy()
        if self.groups is not self.images:
            self.groups.extend(groups)
        self.images.extend(images)

    def _fact_keys(self, facts: Sequence[Mapping[str, str]]) -> list[Hashable]:
        """A key for the facts of each row, equal where names, order and values are."""
        names = set(map(tuple, facts))
        if self.fact_names is None:
            self.fact_names = tuple(facts[0])
        if names == {self.fact_names}:  # nearly always: the values alone tell them apart
            return list(map(tuple, map(dict.values, facts)))  # type: ignore[arg-type]
        return [self._fact_key(one) for one in facts]

    def _fact_key(self, facts: Mapping[str, str]) -> Hashable:
        names, values = tuple(facts), tuple(facts.values())
        try:
            hash(values)
        except TypeError:  # a list, in a row that was written by hand
            return id(facts)
        return values if names == self.fact_names else (names, values)

    def add_objects(self, rows: Sequence[Example]) -> None:
        first = len(self.ids)
        self.ids += [row.id for row in rows]
        self._extend_images([row.image_id for row in rows], [row.group for row in rows])
        self.questions.extend([row.question for row in rows])
        self.answers.extend([row.answers for row in rows])
        self.facts.extend([row.facts for row in rows], [self._fact_key(row.facts) for row in rows])
        self.others |= {
            number: row.other_image_ids for number, row in enumerate(rows, first) if row.other_image_ids
        }  # fmt: skip

    def table(self) -> ExampleTable:
        return ExampleTable(
            self.ids,
            self.images.codes(),
            self.questions.codes(),
            self.answers.codes(),
            self.groups.codes(),
            self.facts.codes(),
            self.others,
        )


class _PredictionColumns:
    def __init__(self) -> None:
        self.ids: list[str] = []
        self.answers, self.raw = _Numbering[str](), _Numbering[str]()
        self.confidence: list[float | None] = []
        self.alternatives: list[tuple[tuple[str, float], ...]] = []
        self.further: dict[int, Prediction] = {}

    def add(self, rows: Sequence[Any]) -> bool:
        """Add rows of JSON if all are as they should be."""
        columns = _columns(rows, _PREDICTION[:2], _PREDICTION[2:])
        if columns is None:
            return False
        ids, answers, *rest = columns
        raw = rest[0] if rest else answers
        confidence = rest[1] if len(rest) > 1 else [None] * len(ids)
        alternatives = rest[2] if len(rest) > 2 else []
        is_usual = (
            all(_types(column) <= {str} for column in (ids, answers, raw))
            and _types(confidence) <= {float, int, type(None)}
            and all(0 <= value <= 1 for value in confidence if value is not None)
            and _types(alternatives) <= {list}
            and _are_alternatives(chain.from_iterable(alternatives))
        )
        if not is_usual:
            return False
        self.ids += ids
        self.answers.extend(answers)
        self.raw.extend(raw)
        self.confidence += [float(value) if type(value) is int else value for value in confidence]
        self.alternatives += (
            [tuple([(text, float(value)) for text, value in row]) for row in alternatives]
            if alternatives else [()] * len(ids)
        )  # fmt: skip
        return True

    def add_objects(self, rows: Sequence[Prediction]) -> None:
        first = len(self.ids)
        self.ids += [row.id for row in rows]
        self.answers.extend([row.answer for row in rows])
        self.raw.extend([row.raw for row in rows])
        self.confidence += [row.confidence for row in rows]
        self.alternatives += [row.alternatives for row in rows]
        self.further |= {
            number: row
            for number, row in enumerate(rows, first)
            if row.judged_right is not None or row.confidence_basis is not None or row.guards is not None
        }

    def table(self) -> PredictionTable:
        alternatives = self.alternatives if any(self.alternatives) else None
        codes = self.answers.codes(), self.raw.codes()
        return PredictionTable(self.ids, *codes, self.confidence, alternatives, self.further)


def _are_alternatives(rows: Iterable[Any]) -> bool:
    return all(
        type(row) is list and len(row) == 2 and type(row[0]) is str and type(row[1]) in (float, int)
        and math.isfinite(row[1])
        for row in rows
    )  # fmt: skip


def read_examples(path: Path) -> ExampleTable:
    """The questions of a file that `write_jsonl` wrote; raises `DataError` as `read_records` does."""
    columns = _ExampleColumns()
    _read(path, columns, Example)
    return columns.table()


def read_prediction_table(path: Path) -> PredictionTable:
    """All predictions of a file, in its order; raises `DataError` as `read_predictions` does."""
    if not path.is_file():
        raise DataError(f"no predictions at {path}; expected a predictions.jsonl written by `medical-vqa predict`")
    columns = _PredictionColumns()
    _read(path, columns, Prediction)
    table = columns.table()
    if len(set(table.ids)) < len(table):
        ids: set[str] = set()
        for id_ in table.ids:
            if id_ in ids:
                raise DataError(f"{path}: id {id_!r} occurs twice; keep one prediction per question")
            ids.add(id_)
    return table


def _read(path: Path, columns: _ExampleColumns | _PredictionColumns, kind: type[Example] | type[Prediction]) -> None:
    """Fill columns from a file: many lines at once where all are as usual, else line by line."""
    number = 0
    with path.open(encoding="utf-8-sig") as file:
        while lines := file.readlines(_CHUNK):
            try:
                rows = from_json("[" + ",".join(lines) + "]", cache_strings="keys")
                is_usual = len(rows) == len(lines) and columns.add(rows)
            except (ValueError, TypeError):  # not JSON; a list where a text is expected
                is_usual = False
            if not is_usual:
                records = [
                    read_record(line, kind, f"{path}:{position}")  # type: ignore[type-var]
                    for position, line in enumerate(lines, number + 1)
                    if not line.isspace()
                ]
                columns.add_objects(records)  # type: ignore[arg-type]
            number += len(lines)

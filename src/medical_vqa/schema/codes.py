"""Columns whose values repeat: each different value once, and its number for each row.

Work on such a column is done once for each different value instead of once for each row::

    answers.values, answers.index       # the different answers, and the number of each row's
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value")
Numbers = NDArray[np.intp]
"""A number for each row, (rows,)."""


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


class Numbering(Generic[Value]):
    """Numbers for values, in the order of their first appearance."""

    def __init__(self) -> None:
        self.numbers: dict[Hashable, int] = {}
        """Key of a value -> its number."""
        self.values: list[Value] = []
        self.parts: list[Numbers] = []
        """Numbers of the rows so far, in parts."""
        self._encoded: dict[bytes, int] = {}

    def extend(self, values: Sequence[Value], keys: Sequence[Hashable] | None = None) -> None:
        """Number further rows; `keys` are equal where the values are, for values that cannot be hashed."""
        numbers = self.numbers
        of_rows: Sequence[Hashable] = values if keys is None else keys
        try:
            index = np.fromiter(map(numbers.__getitem__, of_rows), np.intp, len(of_rows))
        except KeyError:  # a value that is new; later in a file most are known
            for key, value in dict(zip(of_rows, values, strict=True)).items():
                self._number(key, value)
            index = np.fromiter(map(numbers.__getitem__, of_rows), np.intp, len(of_rows))
        self.parts.append(index)

    def extend_encoded(
        self, texts: Sequence[bytes], decode: Callable[[bytes], Value], key: Callable[[Value], Hashable]
    ) -> None:
        """Number further rows by encoded values, of which each different one is decoded once.

        Args:
            texts: The encoded value of each row.
            decode: Text -> value. Where it raises, no row is added.
            key: Value -> what is equal where values are.
        """
        encoded = self._encoded
        try:
            index = np.fromiter(map(encoded.__getitem__, texts), np.intp, len(texts))
        except KeyError:
            for text in dict.fromkeys(texts):
                if text not in encoded:
                    value = decode(text)
                    encoded[text] = self._number(key(value), value)
            index = np.fromiter(map(encoded.__getitem__, texts), np.intp, len(texts))
        self.parts.append(index)

    def _number(self, key: Hashable, value: Value) -> int:
        number = self.numbers.setdefault(key, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number

    def copy(self) -> Numbering[Value]:
        """The same numbers and rows so far, to be continued with other rows."""
        other = Numbering[Value]()
        other.numbers, other.values, other.parts = dict(self.numbers), list(self.values), list(self.parts)
        return other

    def codes(self) -> Codes[Value]:
        """The column of the rows so far."""
        return Codes(self.values, np.concatenate(self.parts) if self.parts else np.zeros(0, np.intp))

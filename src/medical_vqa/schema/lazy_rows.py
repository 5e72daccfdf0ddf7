"""The base of tables by column: a sequence of records, each of which is made when it is needed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

from medical_vqa.schema.codes import Numbers
from medical_vqa.schema.records import Record


class Rows(Sequence[Record]):
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


def is_all(rows: Numbers, n: int) -> bool:
    """Whether some positions are those of all `n` rows, in order."""
    return len(rows) == n and bool((rows == np.arange(n)).all())

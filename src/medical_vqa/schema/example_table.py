"""Questions by column: what scores a million answers without a million objects.

`ExampleTable` is a sequence of `Example` whose fields lie in columns::

    table = read_examples(path)
    table[3].question                                # an object, made when it is needed
    table.answers.values, table.answers.index       # the different answers, and the number of each row's
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medical_vqa.schema.codes import Codes, Numbering, Numbers
from medical_vqa.schema.lazy_rows import Rows, is_all
from medical_vqa.schema.records import Example


class ExampleTable(Rows[Example]):
    """Questions by column."""

    def __init__(
        self,
        ids: Sequence[str],
        images: Codes[str],
        questions: Codes[str],
        answers: Codes[tuple[str, ...]],
        groups: Codes[str],
        facts: Codes[Mapping[str, str]],
        further: Mapping[int, Example] | None = None,
    ) -> None:
        """Keep columns of equal length; `further` are the rows with fields that have no column, by position."""
        self.ids = ids
        self.images = images
        self.questions = questions
        self.answers = answers
        self.groups = groups
        self.facts = facts
        self.further = further or {}

    @classmethod
    def of(cls, examples: Sequence[Example]) -> ExampleTable:
        """The columns of some rows; a table is returned as it is."""
        if isinstance(examples, ExampleTable):
            return examples
        columns = ExampleColumns()
        columns.add(examples)
        table = columns.table()
        table._objects = tuple(examples)
        return table

    def _make(self, row: int) -> Example:
        if row in self.further:
            return self.further[row]
        return Example(
            self.ids[row],
            self.images.values[self.images.index[row]],
            self.questions.values[self.questions.index[row]],
            self.answers.values[self.answers.index[row]],
            self.groups.values[self.groups.index[row]],
            self.facts.values[self.facts.index[row]],
        )

    def take(self, rows: Numbers) -> ExampleTable:
        """The table of some rows, in the given order."""
        if is_all(rows, len(self)):
            return self
        positions = rows.tolist()
        further = {
            new: self.further[old] for new, old in enumerate(positions) if old in self.further
        } if self.further else {}  # fmt: skip
        table = ExampleTable(
            list(map(self.ids.__getitem__, positions)),
            self.images.take(rows),
            self.questions.take(rows),
            self.answers.take(rows),
            self.groups.take(rows),
            self.facts.take(rows),
            further,
        )
        if self._objects is not None:
            table._objects = tuple([self._objects[row] for row in positions])
        return table

    def followed_by(self, other: ExampleTable) -> ExampleTable:
        """These rows and then those of another part of the same table."""
        if self.facts.values is not other.facts.values:
            return ExampleTable.of([*self, *other])
        further = {**self.further, **{len(self) + row: example for row, example in other.further.items()}}
        return ExampleTable(
            [*self.ids, *other.ids],
            self.images.followed_by(other.images),
            self.questions.followed_by(other.questions),
            self.answers.followed_by(other.answers),
            self.groups.followed_by(other.groups),
            self.facts.followed_by(other.facts),
            further,
        )

    def image_ids(self) -> list[str]:
        """The different images of all rows, further ones included."""
        further = (image for row in self.further.values() for image in row.other_image_ids)
        return list(dict.fromkeys([*self.images.used(), *further]))

    def has_answer(self) -> NDArray[np.bool_]:
        """Whether each row has an accepted answer, (rows,)."""
        return self.answers.per_row(bool)


class ExampleColumns:
    """The columns of a table, to which rows are added."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.images, self.questions = Numbering[str](), Numbering[str]()
        self.groups = self.images
        """The numbering of the images as long as every row's group is its image."""
        self.answers = Numbering[tuple[str, ...]]()
        self.facts = Numbering[Mapping[str, str]]()
        self.further: dict[int, Example] = {}

    def add(self, rows: Sequence[Example]) -> None:
        """Add rows."""
        self.further |= {
            number: row
            for number, row in enumerate(rows, len(self.ids))
            if row.other_image_ids or row.turns or row.system or row.image_places
        }
        self.facts.extend([row.facts for row in rows], [fact_key(row.facts) for row in rows])
        self.add_all_but_facts(rows)

    def add_all_but_facts(self, rows: Sequence[Example]) -> None:
        """Add the fields of rows other than their facts, which are added already; they have no others than columns."""
        self.ids += [row.id for row in rows]
        self._extend_images([row.image_id for row in rows], [row.group for row in rows])
        self.questions.extend([row.question for row in rows])
        self.answers.extend([row.answers for row in rows])

    def _extend_images(self, images: Sequence[str], groups: Sequence[str]) -> None:
        if self.groups is self.images and groups != images:
            self.groups = self.images.copy()
        if self.groups is not self.images:
            self.groups.extend(groups)
        self.images.extend(images)

    def table(self) -> ExampleTable:
        """The table of the rows."""
        images = self.images.codes()
        return ExampleTable(
            self.ids,
            images,
            self.questions.codes(),
            self.answers.codes(),
            images if self.groups is self.images else self.groups.codes(),
            self.facts.codes(),
            self.further,
        )


def fact_key(facts: Mapping[str, str]) -> Hashable:
    """What is equal for facts with equal names and values in the same order."""
    return tuple(facts.items())

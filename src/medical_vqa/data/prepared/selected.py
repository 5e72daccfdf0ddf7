"""The rows of a prepared dataset that a `Selection` chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medical_vqa.data.cache.pictures import ImageSource
from medical_vqa.data.prepared.dataset import PreparedDataset, default_root
from medical_vqa.data.prepared.manifest import Manifest
from medical_vqa.data.prepared.splits import split_by_group
from medical_vqa.errors import DataError
from medical_vqa.schema.example_table import ExampleTable
from medical_vqa.schema.records import Example, Split
from medical_vqa.schema.selection import Selection


class SelectedDataset:
    """A prepared dataset and which of its rows are used; passed along, so that nothing is read or selected twice."""

    def __init__(self, dataset: PreparedDataset, selection: Selection) -> None:
        self.dataset = dataset
        self.selection = selection.model_copy(update={"root": dataset.root})
        """The selection, with the root where the dataset is."""
        self._tables: dict[Split, ExampleTable] = {}

    @classmethod
    def open(cls, selection: Selection) -> SelectedDataset:
        """Open the dataset of a selection; raises `DataError` when it has not been prepared."""
        return cls(PreparedDataset.open(selection.dataset, selection.root), selection)

    def reselect(self, selection: Selection) -> SelectedDataset:
        """Another selection, of this dataset without reading it again where it is the same, else of its own."""
        place = selection.dataset, selection.root or default_root()
        same = place == (self.selection.dataset, self.selection.root)
        return SelectedDataset(self.dataset, selection) if same else SelectedDataset.open(selection)

    @property
    def manifest(self) -> Manifest:
        """Manifest of the dataset."""
        return self.dataset.manifest

    @property
    def images(self) -> ImageSource:
        """Images of the dataset, by id."""
        return self.dataset.images

    def rows(self, split: Split) -> list[Example]:
        """The selected rows of a split, in published order; raises `DataError` when there are none."""
        return list(self.table(split))

    def table(self, split: Split) -> ExampleTable:
        """`rows` by column."""
        if split in self._tables:
            return self._tables[split]
        selection = self.selection
        held_out_of_train = selection.validation is None and split != "test"
        published = selection.learned_splits if split == "train" or held_out_of_train else (split,)
        rows = self._published(published, selection.where)
        if held_out_of_train:
            train, validation = split_by_group(list(rows), selection.validation_fraction, selection.seed)
            rows = ExampleTable.of(train if split == "train" else validation)
        if split == "train" and selection.also:
            groups = {row.group for row in rows}
            ids = {row.id for row in rows}
            further = self._published(published, selection.also)
            rows = ExampleTable.of([*rows, *(row for row in further if row.group in groups and row.id not in ids)])
        if not rows:
            facts = dict(selection.where) or "all facts"
            raise DataError(f"{selection.dataset} has no {split} rows for {facts}; choose another split")
        self._tables[split] = rows
        return rows

    def _published(self, splits: Sequence[Split], where: Mapping[str, str]) -> ExampleTable:
        """The rows of published splits that have these facts, one split after the other."""
        if len(splits) == 1:
            return self.dataset.table(splits[0], where)
        return ExampleTable.of([row for split in splits for row in self.dataset.examples(split, where)])

    def baseline_rows(self) -> list[Example]:
        """The training rows with an answer, from which baselines and labels are counted; empty where there are none.

        A fact of the selection that no training row has, such as ``phrase_type=test_freeform``, selects only what is
        scored and is left out here.
        """
        splits = self.selection.learned_splits
        if not set(splits) <= set(self.dataset.splits):
            return []
        facts = self.selection.where
        published = [row for split in splits for row in self.dataset.table(split).facts.used()]
        present = {fact: value for fact, value in facts.items() if any(row.get(fact) == value for row in published)}
        selection = self.selection.model_copy(update={"where": present})
        return [row for row in SelectedDataset(self.dataset, selection).rows("train") if row.answers]

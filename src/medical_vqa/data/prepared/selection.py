"""Which rows of which prepared dataset: what a bundle and a predictions file note down, to find the same rows again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from medical_vqa.data.prepared.dataset import PreparedDataset, default_root
from medical_vqa.data.prepared.splits import split_by_group
from medical_vqa.errors import DataError
from medical_vqa.schema.records import Example, Split


@dataclass(frozen=True, slots=True)
class Selection:
    """Rows of a prepared dataset, by split."""

    dataset: str
    """The name it was prepared under."""
    root: Path
    """Where it was prepared."""
    where: Mapping[str, str] = field(default_factory=dict)
    """Facts that rows must have."""
    train: Split = "train"
    """The split that is learned from, and that the baseline is counted on."""
    validation: Split | None = "validation"
    """The split that chooses; None when a share of the training groups is held out for it."""
    validation_fraction: float = 0.15
    """That share."""
    seed: int = 0
    """Of the choice of that share."""
    also: Mapping[str, str] = field(default_factory=dict)
    """Facts of further rows to learn from, of the training split and about its selected images alone."""

    def open(self) -> PreparedDataset:
        """The prepared dataset; raises `DataError` when it has not been prepared."""
        return PreparedDataset(self.root, self.dataset)

    def rows(self, split: Split) -> list[Example]:
        """The rows of a split, in published order; raises `DataError` when there are none."""
        carved = self.validation is None and split != "test"
        published = self.train if split == "train" or carved else split
        rows = self.open().examples(published, dict(self.where))
        if carved:
            learned, held_out = split_by_group(rows, self.validation_fraction, self.seed)
            rows = list(learned if split == "train" else held_out)
        if split == "train" and self.also:
            known, seen = {row.group for row in rows}, {row.id for row in rows}
            more = self.open().examples(published, dict(self.also))
            rows += [row for row in more if row.group in known and row.id not in seen]
        if not rows:
            raise DataError(
                f"{self.dataset} has no {split} rows for {dict(self.where) or 'all facts'}; choose another split"
            )
        return rows

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the fields above."""
        return {**asdict(self), "root": str(self.root), "where": dict(self.where), "also": dict(self.also)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read back what `to_json` wrote; raises `DataError` on a field that is unknown or missing.

        A root that is null, as in a bundle that travels, is where datasets are prepared by default.
        """
        try:
            return cls(**{**row, "root": Path(row["root"] or default_root())})
        except (KeyError, TypeError) as error:
            raise DataError(f"expected a selection of rows, got {dict(row)} ({error}); write the file again") from error

"""Which rows of which prepared dataset: what a bundle and a predictions file record, to find the same rows again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from medical_vqa.schema.document import SchemaModel
from medical_vqa.schema.records import Split

POOLED = "train+validation"
"""Name of all published rows but the test rows, in `Selection.train`."""


class Selection(SchemaModel):
    """Rows of a prepared dataset, by split; `SelectedDataset` reads them."""

    dataset: str
    """Name under which the dataset was prepared."""
    root: Path | None = None
    """Folder of prepared datasets; null for the default one, as in a bundle that is copied to other machines."""
    where: Mapping[str, str] = {}
    """Facts that rows must have: ``{"language": "en"}``."""
    train: Split | Literal["train+validation"] = "train"
    """Split that models learn from and baselines are counted on; ``train+validation``: both, with nothing held out."""
    validation: Split | None = "validation"
    """Split that chooses the checkpoint; null when a fraction of the training groups is held out for it."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Fraction of the training groups that is held out when `validation` is null."""
    seed: int = 0
    """Seed of the choice of the groups that are held out."""
    also: Mapping[str, str] = {}
    """Facts of further training rows, limited to images of the rows that `where` selects."""

    @property
    def learned_splits(self) -> tuple[Split, ...]:
        """The published splits that models learn from."""
        return ("train", "validation") if self.train == "train+validation" else (self.train,)

    @property
    def learns_validation(self) -> bool:
        """Whether the validation rows are learned from, so that none is held out."""
        return self.train == POOLED

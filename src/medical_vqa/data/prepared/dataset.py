"""Reading a dataset that `medical-vqa prepare` has written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medical_vqa import registry
from medical_vqa.data.cache.regions import RegionStore
from medical_vqa.data.imaging.raster import open_image_file
from medical_vqa.data.prepared.manifest import MANIFEST_NAME, Manifest, read_manifest
from medical_vqa.errors import ConfigError, DataError
from medical_vqa.runtime.environment import home
from medical_vqa.schema.audit import Audit, read_audit
from medical_vqa.schema.example_table import ExampleTable
from medical_vqa.schema.records import SPLITS, Example, Split
from medical_vqa.schema.table_files import read_examples
from medical_vqa.text import did_you_mean, nearest

if TYPE_CHECKING:
    from PIL import Image


def default_root() -> Path:
    """Default folder of prepared datasets: ``$MEDICAL_VQA_HOME/data``."""
    return home() / "data"


@dataclass(frozen=True, slots=True)
class PreparedImages:
    """Images of a prepared dataset; an `ImageSource`."""

    folder: Path
    """Folder of the prepared dataset."""
    manifest: Manifest
    """Manifest of the prepared dataset."""

    def load(self, image_id: str) -> Image.Image:
        """The image, RGB, upright; raises `ImageError`, or `DataError` for an unknown id."""
        return open_image_file(self.path(image_id))

    def digest(self, image_id: str) -> str:
        """SHA-256 of the file's bytes; raises `DataError` for an unknown id."""
        try:
            return self.manifest.images[image_id].sha256
        except KeyError:
            raise self._unknown(image_id) from None

    def path(self, image_id: str) -> Path:
        """Path of the image's file; raises `DataError` for an unknown id."""
        if image_id not in self.manifest.images:
            raise self._unknown(image_id)
        return self.folder / self.manifest.images[image_id].file

    def _unknown(self, image_id: str) -> DataError:
        return DataError(f"{self.folder}: has no image {image_id!r}; prepare the dataset that it belongs to")


class PreparedDataset:
    """A prepared dataset; its manifest, and each split, audit and regions on first use, are read once."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.root = folder.parent
        """Folder of prepared datasets."""
        self.manifest = manifest
        self.images = PreparedImages(folder, manifest)
        """Images of the dataset, by id."""
        self._tables: dict[Split, ExampleTable] = {}

    @classmethod
    def open(cls, name: str, root: Path | None = None) -> PreparedDataset:
        """Open the dataset that was prepared under a name; raises `DataError` when there is none, or it is damaged."""
        root = root or default_root()
        if not (root / name / MANIFEST_NAME).is_file():
            similar = nearest(name, [manifest.parent.name for manifest in root.glob(f"*/{MANIFEST_NAME}")])
            hint = f" (there is {similar!r})" if similar else ""
            raise DataError(
                f"{name} is not prepared under {root}{hint}; run: medical-vqa prepare {_arguments(name)} --root {root}"
            )
        return cls(root / name, read_manifest(root / name))

    @property
    def name(self) -> str:
        """Name that it was prepared under."""
        return self.folder.name

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        counts = ", ".join(f"{rows:,} {split}" for split, rows in self.manifest.counts.items())
        return f"<medical_vqa.PreparedDataset {self.name!r}: {counts} questions, {len(self.manifest.images):,} images>"

    @property
    def splits(self) -> tuple[Split, ...]:
        """Splits of the dataset, in the usual order."""
        return tuple(split for split in SPLITS if split in self.manifest.splits)

    @cached_property
    def regions(self) -> RegionStore:
        """Regions in the images; raises `DataError` when the dataset has none."""
        return RegionStore(self.folder)

    @cached_property
    def audit(self) -> Audit | None:
        """The saved audit of exactly these rows and images; None where there is none."""
        try:
            audit = read_audit(self.folder)
        except DataError:
            return None
        return audit if audit.manifest == self.manifest.digest else None

    def examples(self, split: Split, where: Mapping[str, str] | None = None) -> list[Example]:
        """Rows of a split, in published order.

        Args:
            split: One of `splits`.
            where: Facts that a row must have: ``{"language": "en"}``; None for all rows.

        Raises:
            DataError: The dataset has no such split, or its file is damaged.
            ConfigError: No row of the split has such a fact or value.
        """
        return list(self.table(split, where))

    def table(self, split: Split, where: Mapping[str, str] | None = None) -> ExampleTable:
        """`examples` by column."""
        if split not in self._tables:
            if split not in self.manifest.splits:
                raise DataError(
                    f"{self.manifest.name} was prepared without a {split} split; it has "
                    f"{', '.join(self.splits)}; name one of these, or a dataset that has it"
                )
            file = self.manifest.splits[split]
            path = self.folder / file.file
            if not path.is_file():
                raise DataError(f"{path}: is missing; prepare {self.manifest.name} again")
            rows = read_examples(path)
            if len(rows) != file.rows:
                raise DataError(f"{path}: has {len(rows)} of {file.rows} rows; prepare {self.manifest.name} again")
            self._tables[split] = rows
        return select(self._tables[split], where or {})


def select(examples: ExampleTable, where: Mapping[str, str]) -> ExampleTable:
    """The examples that have all these facts; raises `ConfigError` for a fact or value that none of them has."""
    if not where:
        return examples
    present = examples.facts.used()
    for fact, value in where.items():
        values = {facts[fact] for facts in present if fact in facts}
        if not values:
            known = sorted({key for facts in present for key in facts})
            raise ConfigError(f"no question has the fact {fact!r}; {did_you_mean(fact, known)}")
        if value not in values:
            raise ConfigError(f"no question has {fact} {value!r}; {did_you_mean(value, sorted(values))}")
    matches = examples.facts.per_row(lambda facts: all(facts.get(fact) == value for fact, value in where.items()))
    return examples if matches.all() else examples.take(np.flatnonzero(matches))


def _arguments(name: str) -> str:
    """What `medical-vqa prepare` takes for a dataset of this name; one of no known name is a person's own."""
    published = name.removesuffix("-clean")
    if published not in registry.names("datasets"):
        return f"folder --source DIR --as {name}"
    source = "" if registry.create("datasets", published).bundled() is not None else " --source DIR"
    return f"{published}{source}{' --resplit clean' if name != published else ''}"

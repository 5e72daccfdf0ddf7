"""Reading a dataset that `medical-vqa prepare` has laid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa.data.imaging.pictures import open_image_file
from medical_vqa.data.prepared.manifest import MANIFEST_NAME, Manifest, read_manifest
from medical_vqa.errors import ConfigError, DataError
from medical_vqa.runtime import home
from medical_vqa.schema.records import SPLITS, Example, Split, read_jsonl
from medical_vqa.text import did_you_mean

if TYPE_CHECKING:
    from PIL import Image

    from medical_vqa.data.formats.base import ImageSource


def default_root() -> Path:
    """Where prepared datasets live when nobody says otherwise: ``$MEDICAL_VQA_HOME/data``."""
    return home() / "data"


@dataclass(frozen=True, slots=True)
class PreparedImages:
    """Images of a prepared dataset; an `ImageSource`."""

    folder: Path
    """The prepared folder."""
    manifest: Manifest
    """Its manifest."""

    def load(self, image_id: str) -> Image.Image:
        """The picture, RGB, upright; raises `ImageError`, or `DataError` for an unknown id."""
        return open_image_file(self.path(image_id))

    def digest(self, image_id: str) -> str:
        """SHA-256 of the file's bytes; raises `DataError` for an unknown id."""
        self.path(image_id)
        return self.manifest.images[image_id].sha256

    def path(self, image_id: str) -> Path:
        """The image's file; raises `DataError` for an unknown id."""
        if image_id not in self.manifest.images:
            raise DataError(f"{self.folder}: has no image {image_id!r}; prepare the dataset that it belongs to")
        return self.folder / self.manifest.images[image_id].file


class PreparedDataset:
    """A dataset under a root, read through its manifest."""

    def __init__(self, root: Path, name: str) -> None:
        self.folder = root / name
        if not (self.folder / MANIFEST_NAME).is_file():
            raise DataError(
                f"{name} is not prepared under {root}; run: medical-vqa prepare {name} --source DIR --root {root}"
            )
        self.manifest = read_manifest(self.folder)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that are there, in the usual order."""
        return tuple(split for split in SPLITS if split in self.manifest.splits)

    @property
    def images(self) -> ImageSource:
        """The dataset's images, by id."""
        return PreparedImages(self.folder, self.manifest)

    def examples(self, split: Split, where: Mapping[str, str] | None = None) -> list[Example]:
        """Rows of a split, in published order.

        Args:
            split: One of `splits`.
            where: Facts that a row must have: ``{"language": "en"}``; None keeps all rows.

        Raises:
            DataError: The split is not there, or its file is damaged.
            ConfigError: No row of the split has such a fact or value.
        """
        if split not in self.manifest.splits:
            raise DataError(
                f"{self.manifest.name} was prepared without a {split} split; it has {', '.join(self.splits)}"
            )
        file = self.manifest.splits[split]
        path = self.folder / file.file
        if not path.is_file():
            raise DataError(f"{path}: is missing; prepare {self.manifest.name} again")
        rows = [Example.from_json(row) for row in read_jsonl(path)]
        if len(rows) != file.rows:
            raise DataError(f"{path}: has {len(rows)} of {file.rows} rows; prepare {self.manifest.name} again")
        return select(rows, where or {})


def select(examples: Sequence[Example], where: Mapping[str, str]) -> list[Example]:
    """The examples that have all these facts; raises `ConfigError` for a fact or value that none of them has."""
    for fact, value in where.items():
        values = {example.facts[fact] for example in examples if fact in example.facts}
        if not values:
            known = sorted({key for example in examples for key in example.facts})
            raise ConfigError(f"no question has the fact {fact!r}; {did_you_mean(fact, known)}")
        if value not in values:
            raise ConfigError(f"no question has {fact} {value!r}; {did_you_mean(value, sorted(values))}")
    return [e for e in examples if all(e.facts.get(fact) == value for fact, value in where.items())]

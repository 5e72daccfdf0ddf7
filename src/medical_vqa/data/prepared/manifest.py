"""What a prepared dataset says about itself: counts, hashes, license, and what is missing from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from medical_vqa.errors import DataError
from medical_vqa.io import atomic_write, sha256
from medical_vqa.schema.records import Split

FORMAT = 1
"""Version of the layout of a prepared folder."""
MANIFEST_NAME = "manifest.json"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class SplitFile(_Part):
    """One split, written as JSON lines."""

    file: str
    """Name inside the prepared folder: ``train.jsonl``."""
    rows: int
    """Questions in it."""
    sha256: str
    """Of the file's bytes."""


class ImageFile(_Part):
    """One image, kept under its content's hash; ids with the same content share one file."""

    file: str
    """Name inside the prepared folder: ``images/ab/ab12….jpg``."""
    sha256: str
    """Of the file's bytes, which are the published ones."""
    width: int
    """Pixels, upright."""
    height: int
    """Pixels, upright."""
    bytes: int
    """Size of the file."""


class Manifest(_Part):
    """The content of ``manifest.json``, which is written last: a folder without one is not prepared."""

    format: int = FORMAT
    """Version of the layout."""
    name: str
    """Name of the prepared folder; the dataset's name, or the one it was prepared under."""
    dataset: str
    """Name of the dataset's format: ``slake``."""
    title: str
    """The dataset's own name, with its year."""
    license: str
    """License, with where it is stated."""
    citation: str
    """How the authors want to be cited."""
    homepage: str
    """Where a person reads about it."""
    partial: bool
    """Whether it was prepared although part of it may be missing."""
    official_rows: Mapping[Split, int]
    """Rows of the whole dataset; empty where there is no official count."""
    official_images: int | None
    """Images of the whole dataset."""
    default_where: Mapping[str, str]
    """Facts that select the usual subset."""
    splits: Mapping[Split, SplitFile]
    """The splits that are there."""
    images: Mapping[str, ImageFile]
    """Image id -> file."""
    missing: tuple[str, ...]
    """What the whole dataset has and this one has not, each a short phrase."""
    notes: tuple[str, ...]
    """Known quirks met while reading."""
    source_digest: str
    """SHA-256 over all rows and image hashes as they were read: tells whether the source has changed."""

    @property
    def digest(self) -> str:
        """SHA-256 over rows and images, whatever the folder's name or the notes; it goes into run folders."""
        content = {
            "dataset": self.dataset,
            "splits": {split: file.sha256 for split, file in sorted(self.splits.items())},
            "images": {image_id: image.sha256 for image_id, image in sorted(self.images.items())},
        }
        return sha256(json.dumps(content, sort_keys=True).encode())

    @property
    def counts(self) -> dict[Split, int]:
        """Rows per split."""
        return {split: file.rows for split, file in self.splits.items()}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``; it appears whole or not at all."""
    atomic_write(folder / MANIFEST_NAME, manifest.model_dump_json(indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Read ``manifest.json``; raises `DataError` where it is damaged or of another version."""
    path = folder / MANIFEST_NAME
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        found = row.get("format") if isinstance(row, dict) else None
        if found != FORMAT:
            raise DataError(f"{path}: has format {found}, this version reads {FORMAT}; prepare the dataset again")
        return Manifest.model_validate(row)
    except (OSError, ValueError, ValidationError) as error:
        raise DataError(f"{path}: is damaged; delete {folder} and prepare the dataset again") from error

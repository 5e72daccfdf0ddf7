"""The manifest of a prepared dataset: counts, hashes, license, and what is missing from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from medical_vqa.errors import DataError
from medical_vqa.io import atomic_write, sha256
from medical_vqa.schema.document import SchemaModel, read_document
from medical_vqa.schema.records import Split

FORMAT: Final = 1
MANIFEST_NAME: Final = "manifest.json"


class SplitFile(SchemaModel):
    """One split, stored as JSON lines."""

    file: str
    """Path in the prepared folder: ``train.jsonl``."""
    rows: int
    """Number of questions."""
    sha256: str
    """SHA-256 of the file, lower-case hex."""


class ImageFile(SchemaModel):
    """One image, stored under the hash of its content; ids with the same content share one file."""

    file: str
    """Path in the prepared folder: ``images/ab/ab12….jpg``."""
    sha256: str
    """SHA-256 of the file, which has the published bytes; lower-case hex."""
    width: int
    """Width in pixels, upright."""
    height: int
    """Height in pixels, upright."""
    bytes: int
    """Size of the file."""


class Manifest(SchemaModel):
    """The content of ``manifest.json``, which is written last: a folder without one is not prepared."""

    format: Literal[1] = FORMAT
    """Version of the layout of a prepared folder."""
    name: str
    """Name of the prepared folder; that of the dataset, or the one it was prepared under."""
    dataset: str
    """Name of the dataset's format: ``slake``."""
    title: str
    """Title of the dataset, with its year."""
    license: str
    """License, with where it is stated."""
    citation: str
    """Citation that the authors ask for."""
    homepage: str
    """Web page of the dataset."""
    partial: bool
    """Whether it was prepared although part of it may be missing."""
    official_rows: Mapping[Split, int]
    """Rows of the complete dataset; empty where there is no official count."""
    official_images: int | None
    """Images of the complete dataset."""
    default_where: Mapping[str, str]
    """Facts that select the usual subset."""
    splits: Mapping[Split, SplitFile]
    """Files of the splits."""
    images: Mapping[str, ImageFile]
    """Image id -> file."""
    missing: tuple[str, ...]
    """Parts of the complete dataset that this one lacks, each a short phrase."""
    notes: tuple[str, ...]
    """Known irregularities of the source."""
    source_digest: str
    """SHA-256 over all rows and image hashes of the source; changes when the source does."""

    @property
    def digest(self) -> str:
        """SHA-256 over rows and images, whatever the folder's name or the notes; recorded in run folders."""
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
    """Write ``manifest.json``; raises `DataError` where the disk cannot take it."""
    atomic_write(folder / MANIFEST_NAME, manifest.model_dump_json(indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Read ``manifest.json``; raises `DataError` when there is none or it is damaged or of another format."""
    advice = f"delete {folder} and prepare the dataset again"
    try:
        return read_document(folder / MANIFEST_NAME, Manifest, advice=advice, error=DataError)
    except FileNotFoundError:
        raise DataError(f"{folder} has no {MANIFEST_NAME}; prepare the dataset again") from None

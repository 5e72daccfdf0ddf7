"""Check a published dataset and write it in the prepared layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa import registry
from medical_vqa.data.prepared.manifest import Manifest
from medical_vqa.data.prepared.prepare import prepare
from medical_vqa.runtime import StageCallback

if TYPE_CHECKING:
    from medical_vqa.data.formats.base import VqaDataset


def prepare_dataset(
    name: str,
    *,
    source: Path | None,
    root: Path,
    partial: bool = False,
    under: str | None = None,
    download: bool = False,
    progress: StageCallback | None = None,
) -> Manifest:
    """Check a published dataset and lay it out under ``root/NAME``.

    Without a `source` the shipped sample is taken where there is one; otherwise, or with `download`, the hub is asked.
    Raises `IncompleteError` when part of it is missing and `partial` is not set, `OfflineError` without a network.
    """
    dataset: VqaDataset = registry.create("datasets", name)
    folder = source or (None if download else dataset.bundled())
    if folder is None:
        from medical_vqa.data.formats.download import download as from_hub

        folder = from_hub(dataset.card, root / f"{name}.download")
    return prepare(dataset, folder, root, partial=partial, name=under, progress=progress)

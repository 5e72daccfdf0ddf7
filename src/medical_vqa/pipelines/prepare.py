"""Check a published dataset and write it in the prepared layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medical_vqa import registry
from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.data.prepared.prepare import prepare

if TYPE_CHECKING:
    from medical_vqa.data.formats.base import VqaDataset
    from medical_vqa.runtime import StageCallback


def prepare_dataset(
    dataset: str,
    *,
    root: Path,
    source: Path | Literal["hub"] | None = None,
    partial: bool = False,
    name: str | None = None,
    progress: StageCallback | None = None,
) -> PreparedDataset:
    """Check a published dataset and write it to ``root/NAME``.

    Args:
        dataset: The dataset's name in the registry.
        root: Folder of prepared datasets.
        source: Folder of the published files, or ``"hub"`` to download them; by default the shipped sample where there
            is one, else the hub.
        partial: Whether to continue although part of the dataset is missing.
        name: Name to prepare it under; by default the dataset's own.
        progress: Receives each stage with its progress.

    Raises:
        ConfigError: The dataset is unknown.
        DataError: A file of it is damaged.
        IncompleteError: Part of it is missing and `partial` is not set.
        OfflineError: It must be downloaded and the network is not available.
    """
    published: VqaDataset = registry.create("datasets", dataset)
    folder = published.bundled() if source is None else source
    if folder is None or folder == "hub":
        from medical_vqa.data.formats.download import download

        folder = download(published.card, root / f"{dataset}.download")
    manifest = prepare(published, folder, root, partial=partial, name=name, progress=progress)
    return PreparedDataset(root / manifest.name, manifest)

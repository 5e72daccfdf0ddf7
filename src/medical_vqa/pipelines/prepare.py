"""Check a published dataset and write it in the prepared layout."""

from __future__ import annotations

from collections.abc import Mapping
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
    skip_unreadable: bool = False,
    name: str | None = None,
    columns: Mapping[str, str] | None = None,
    resplit: Literal["clean"] | None = None,
    progress: StageCallback | None = None,
) -> PreparedDataset:
    """Check a published dataset and write it to ``root/NAME``.

    Args:
        dataset: The dataset's name in the registry.
        root: Folder of prepared datasets.
        source: Folder of the published files, or ``"hub"`` to download them; by default the shipped sample where there
            is one, else the hub.
        partial: Whether to continue although part of the dataset is missing.
        skip_unreadable: Whether to leave out the rows whose image cannot be read.
        name: Name to prepare it under; by default the dataset's own.
        columns: Columns of a table, for a format that guesses them.
        resplit: ``clean`` to write a second dataset ``NAME-clean`` as well, whose splits share no image, near-duplicate
            or group, and to return that one.
        progress: Receives each stage with its progress.

    Raises:
        ConfigError: The dataset is unknown.
        DataError: A file of it is damaged.
        IncompleteError: Part of it is missing and `partial` is not set.
        OfflineError: It must be downloaded and the network is not available.
    """
    published: VqaDataset = registry.create("datasets", dataset, **({"columns": columns} if columns else {}))
    folder = published.bundled() if source is None else source
    if folder is None or folder == "hub":
        from medical_vqa.data.formats.download import download

        folder = download(published.card, root / f"{dataset}.download")
    manifest = prepare(
        published, folder, root, partial=partial, skip_unreadable=skip_unreadable, name=name, progress=progress
    )
    prepared = PreparedDataset(root / manifest.name, manifest)
    return prepared if resplit is None else _clean_split(prepared, progress)


def _clean_split(dataset: PreparedDataset, progress: StageCallback | None) -> PreparedDataset:
    """The dataset with splits that share no image, near-duplicate or group, prepared next to it."""
    from medical_vqa.data.prepared.resplit import CLEAN, CleanSplit
    from medical_vqa.pipelines.audit import audit

    audited = dataset.audit
    if audited is None or not audited.images_compared:
        audited = audit(dataset, progress=progress)
    reader = CleanSplit(dataset, audited)
    manifest = prepare(reader, dataset.folder, dataset.root, name=f"{dataset.name}-{CLEAN}", progress=progress)
    return PreparedDataset(dataset.root / manifest.name, manifest)

"""Prepare a dataset and search it for leaks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa.api.arguments import (
    StrPath,
    as_dataset,
    as_name,
    as_resplit,
    as_root,
    as_texts,
    optional_output,
    optional_path,
)
from medical_vqa.api.calls import public

if TYPE_CHECKING:
    from medical_vqa.data.prepared.dataset import PreparedDataset
    from medical_vqa.schema.audit import Audit


@public
def prepare(
    dataset: str,
    *,
    source: StrPath | None = None,
    root: StrPath | None = None,
    partial: bool = False,
    skip_unreadable: bool = False,
    name: str | None = None,
    columns: Mapping[str, str] | None = None,
    resplit: str | None = None,
    progress: bool = True,
) -> PreparedDataset:
    """Check a published dataset and write it in the prepared layout.

    Args:
        dataset: ``slake-mini`` (the shipped sample), a published dataset such as ``slake``, ``vqa-rad`` or
            ``path-vqa``, a layout such as ``folder``, ``table`` or ``llava-json`` (your own questions and images), or a
            dataset of another package.
        source: Folder of the published files, or ``"hub"`` to download them; by default the shipped sample, or the hub.
        root: Folder of prepared datasets; by default ``~/.cache/medical-vqa/data``.
        partial: Whether to continue although part of the dataset is missing.
        skip_unreadable: Whether to leave out the rows whose image cannot be read; the manifest notes them.
        name: Name to prepare it under, for ``folder``; by default the dataset's own.
        columns: Columns of a ``table``, where the guess is not right: ``{"question": "frage"}``.
        resplit: ``"clean"`` to write ``NAME-clean`` as well, whose splits share no image, near-duplicate or group, and
            to return that one.
        progress: Whether to show progress bars on a terminal.

    Returns:
        The prepared dataset.

    Raises:
        MedicalVqaError: The dataset is unknown, incomplete or damaged, or the network is not available.

    Examples:
        >>> data = mv.prepare("slake-mini")
        >>> data.splits, len(data.examples("validation"))
        (('train', 'validation'), 424)
    """
    from medical_vqa.pipelines.prepare import prepare_dataset
    from medical_vqa.progress import stages

    with stages(enabled=progress) as report_stage:
        return prepare_dataset(
            as_name(dataset, "dataset"),
            root=as_root(root),
            source="hub" if isinstance(source, str) and source == "hub" else optional_path(source, "source"),
            partial=partial,
            skip_unreadable=skip_unreadable,
            name=None if name is None else as_name(name, "name"),
            columns=None if columns is None else as_texts(columns, "columns", "question"),
            resplit=as_resplit(resplit),
            progress=report_stage,
        )


@public
def audit(
    dataset: StrPath,
    *,
    root: StrPath | None = None,
    page: StrPath | None = None,
    compare_images: bool = True,
    progress: bool = True,
) -> Audit:
    """Search a prepared dataset for images shared between splits, near-duplicates and contradictions.

    The findings are kept with the dataset; `score` and `report` then also score without the leaked rows.

    Args:
        dataset: A prepared dataset: its name, its folder, or what `prepare` returned.
        root: Folder of prepared datasets, for a name.
        page: HTML page to write; none by default.
        compare_images: Whether to search for near-duplicates, which decodes every image; otherwise files are compared.
        progress: Whether to show a progress bar on a terminal.

    Returns:
        The findings.

    Raises:
        MedicalVqaError: The dataset is not prepared or damaged.

    Examples:
        >>> mv.audit("slake-mini").leaks
        []
    """
    from medical_vqa.data.prepared.dataset import PreparedDataset
    from medical_vqa.pipelines import audit as stage
    from medical_vqa.pipelines.runs import PAGE, require_outside_dataset, require_replaceable
    from medical_vqa.progress import stages

    page_path = optional_output(page, "page")
    prepared = PreparedDataset.open(*as_dataset(dataset, root))
    if page_path is not None:
        require_outside_dataset(page_path, prepared.folder)
        require_replaceable(page_path, PAGE)
    with stages(enabled=progress) as report_stage:
        findings = stage.audit(prepared, compare_images=compare_images, progress=report_stage)
    if page_path is not None:
        stage.audit_page(findings, prepared, page_path)
    return findings


@public
def convert(dataset: StrPath, layout: str, out: StrPath, *, root: StrPath | None = None) -> list[Path]:
    """Write a prepared dataset in the layout of another program.

    Args:
        dataset: A prepared dataset: its name, its folder, or what `prepare` returned.
        layout: ``llava-json``, ``sharegpt``, ``messages``, ``coco-vqa``, ``csv``, ``hub-parquet``, ``vlmevalkit`` or
            ``lmms-eval``.
        out: Folder to write into.
        root: Folder of prepared datasets, for a name.

    Returns:
        The files with rows, one per split.

    Raises:
        MedicalVqaError: The dataset is not prepared, the layout is unknown, or the folder cannot be written.

    Examples:
        >>> mv.convert("slake-mini", "llava-json", "slake-mini-llava")
        [PosixPath('slake-mini-llava/train.json'), PosixPath('slake-mini-llava/validation.json')]
    """
    from medical_vqa.data.prepared.convert import convert as write
    from medical_vqa.data.prepared.dataset import PreparedDataset
    from medical_vqa.io import as_path
    from medical_vqa.pipelines.runs import require_outside_dataset

    prepared, path = PreparedDataset.open(*as_dataset(dataset, root)), as_path(out, "out")
    require_outside_dataset(path, prepared.folder)
    return write(prepared, layout, path)

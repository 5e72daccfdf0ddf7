"""Prepare a dataset and search it for leaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medical_vqa.api.arguments import StrPath, as_dataset, as_name, as_root, optional_output, optional_path

if TYPE_CHECKING:
    from medical_vqa.data.prepared.dataset import PreparedDataset
    from medical_vqa.schema.audit import Audit


def prepare(
    dataset: str,
    *,
    source: StrPath | None = None,
    root: StrPath | None = None,
    partial: bool = False,
    name: str | None = None,
    progress: bool = True,
) -> PreparedDataset:
    """Check a published dataset and write it in the prepared layout.

    Args:
        dataset: ``slake-mini`` (the shipped sample), ``slake``, ``vqa-rad``, ``folder`` (your own questions and
            images), or a dataset of another package.
        source: Folder of the published files, or ``"hub"`` to download them; by default the shipped sample, or the hub.
        root: Folder of prepared datasets; by default ``~/.cache/medical-vqa/data``.
        partial: Whether to continue although part of the dataset is missing.
        name: Name to prepare it under, for ``folder``; by default the dataset's own.
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
            source="hub" if source == "hub" else optional_path(source, "source"),
            partial=partial,
            name=None if name is None else as_name(name, "name"),
            progress=report_stage,
        )


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
    from medical_vqa.progress import counting

    page_path = optional_output(page, "page")
    prepared = PreparedDataset.open(*as_dataset(dataset, root))
    with counting(f"comparing the images of {prepared.name}", "images", enabled=progress) as count:
        findings = stage.audit(prepared, compare_images=compare_images, progress=count)
    if page_path is not None:
        stage.audit_page(findings, prepared, page_path)
    return findings

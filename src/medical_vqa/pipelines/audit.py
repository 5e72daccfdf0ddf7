"""Search a prepared dataset for leaks, near-duplicates and contradictions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa.runtime import ProgressCallback

if TYPE_CHECKING:
    from medical_vqa.data.audit.audit import Audit


def audit(name: str, root: Path, *, compare_images: bool = True, progress: ProgressCallback | None = None) -> Audit:
    """Look for leaks, twins and contradictions in a prepared dataset; keeps ``audit.json`` in its folder."""
    from medical_vqa.data.audit.audit import AUDIT_NAME
    from medical_vqa.data.audit.audit import audit as look_into
    from medical_vqa.data.prepared.dataset import PreparedDataset
    from medical_vqa.io import atomic_write

    prepared = PreparedDataset(root, name)
    found = look_into(prepared, compare_images=compare_images, progress=progress)
    if compare_images:
        atomic_write(prepared.folder / AUDIT_NAME, found.model_dump_json(indent=1) + "\n")
    return found


def audit_page(found: Audit, root: Path, path: Path) -> Path:
    """Write an audit as one HTML page with the pictures that are shared; returns its path."""
    from medical_vqa.data.prepared.dataset import PreparedDataset
    from medical_vqa.evaluation.reporting.audit_report import write_audit

    write_audit(path, found, PreparedDataset(root, found.dataset))
    return path

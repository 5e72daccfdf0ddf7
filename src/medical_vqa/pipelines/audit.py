"""Search a prepared dataset for leaks, near-duplicates and contradictions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa.runtime import StageCallback

if TYPE_CHECKING:
    from medical_vqa.data.prepared.dataset import PreparedDataset
    from medical_vqa.schema.audit import Audit


def audit(dataset: PreparedDataset, *, compare_images: bool = True, progress: StageCallback | None = None) -> Audit:
    """Search a prepared dataset for leaks, repeated questions and contradictions.

    Args:
        dataset: The dataset.
        compare_images: Whether to search for near-duplicates; only then ``audit.json`` is saved in its folder, unless
            that cannot be written. Called again after an interruption, it reads no image a second time.
        progress: Called with "reading images" and "comparing images", and how many images were.
    """
    from medical_vqa.data.audit.audit import audit as stage
    from medical_vqa.data.audit.fingerprint_store import FingerprintStore
    from medical_vqa.schema.audit import write_audit

    result = stage(dataset, compare_images=compare_images, progress=progress)
    if compare_images and os.access(dataset.folder, os.W_OK):
        write_audit(dataset.folder, result)
        FingerprintStore(dataset.folder).remove()
    return result


def audit_page(result: Audit, dataset: PreparedDataset, path: Path) -> Path:
    """Write an audit as one HTML page with the images that are shared; returns its path."""
    from medical_vqa.evaluation.reporting.audit_report import write_audit_page

    write_audit_page(path, result, dataset)
    return path

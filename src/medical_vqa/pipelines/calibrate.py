"""Fit temperature and abstention threshold on validation predictions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa.errors import DataError
from medical_vqa.pipelines.score import score

if TYPE_CHECKING:
    from medical_vqa.evaluation.statistics.calibration import Calibration


def calibrate(predictions: Path, *, risk: float) -> Calibration:
    """Fit temperature and abstention threshold on validation predictions, and keep both in the model's bundle.

    Raises `DataError` when the predictions have no confidence or are of another split, `BundleError` when the bundle
    that made them is gone.
    """
    from medical_vqa.models.bundle import read_card, update_card
    from medical_vqa.models.calibration import temperature_scaled

    scored = score(predictions, risk=risk)
    found = scored.results.calibration
    if scored.split != "validation":
        raise DataError(
            f"{predictions} answers {scored.split}; a temperature is fitted on validation rows: predict them"
        )
    if found is None:
        raise DataError(f"{predictions} gives no confidence; a temperature needs a model that does")
    folder = Path(scored.results.model.get("bundle", ""))
    card = read_card(folder)
    when = found.abstention
    kept = {
        "temperature": round(found.temperature, 4),
        "fitted_on": f"{scored.selection.dataset} validation, {found.n:,} answers",
        "risk": risk,
        "threshold": round(temperature_scaled(when.threshold, found.temperature), 4) if when else None,
        "coverage": round(when.coverage, 4) if when else None,
    }
    update_card(folder, dataclasses.replace(card, calibration=kept))
    return found

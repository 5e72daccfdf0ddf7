"""Fit temperature and abstention threshold on validation predictions."""

from __future__ import annotations

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
    from medical_vqa.models.calibration import temperature_scaled
    from medical_vqa.schema.bundle_card import ConfidenceCalibration, read_bundle_card, write_bundle_card

    scored = score(predictions, risk=risk)
    found = scored.results.calibration
    if scored.split != "validation":
        raise DataError(
            f"{predictions} answers {scored.split}; a temperature is fitted on validation rows: predict them"
        )
    if found is None:
        raise DataError(f"{predictions} gives no confidence; a temperature needs a model that does")
    folder = scored.results.model.bundle if scored.results.model else None
    if folder is None:
        raise DataError(f"{predictions} has no card that names a bundle; predict the rows with `medical-vqa predict`")
    card = read_bundle_card(folder)
    when = found.abstention
    fitted = ConfidenceCalibration(
        temperature=round(found.temperature, 4),
        fitted_on=f"{scored.data.selection.dataset} validation, {found.n:,} answers",
        risk=risk,
        threshold=round(temperature_scaled(when.threshold, found.temperature), 4) if when else None,
        coverage=round(when.coverage, 4) if when else None,
    )
    write_bundle_card(folder, card.model_copy(update={"calibration": fitted}))
    return found

"""Fit temperature and abstention threshold on validation predictions."""

from __future__ import annotations

from pathlib import Path

from medical_vqa.errors import DataError
from medical_vqa.evaluation.correctness import judge
from medical_vqa.evaluation.joining import join
from medical_vqa.evaluation.metrics.exact_match import exact_match
from medical_vqa.evaluation.statistics.calibration import calibrate as measure_calibration
from medical_vqa.models.calibration import temperature_scaled
from medical_vqa.pipelines.inputs import answered_rows
from medical_vqa.schema.bundle_card import ConfidenceCalibration, read_bundle_card, write_bundle_card
from medical_vqa.schema.records import read_predictions
from medical_vqa.schema.results import Calibration


def calibrate(predictions: Path, *, risk: float) -> Calibration:
    """Fit temperature and abstention threshold on validation predictions, and store both in the model's bundle.

    Raises `DataError` when the predictions have no confidence or are of another split, `BundleError` when the bundle
    that made them is gone.
    """
    answers = read_predictions(predictions)
    rows = answered_rows(predictions, None, None)
    if rows.split != "validation":
        raise DataError(f"{predictions} answers {rows.split}; a temperature is fitted on validation rows: predict them")
    bundle = rows.card.model.bundle if rows.card else None
    if bundle is None:
        raise DataError(f"{predictions} has no card that names a bundle; predict the rows with `medical-vqa predict`")
    answered = join(rows.examples(), answers)
    answered.require_scored()
    calibration = measure_calibration(judge(exact_match(), answered), risk=risk)
    if calibration is None:
        raise DataError(f"{predictions} gives no confidence; a temperature needs a model that does")
    temperature, abstention = calibration.temperature, calibration.abstention
    fitted = ConfidenceCalibration(
        temperature=round(temperature, 4),
        fitted_on=f"{rows.data.selection.dataset} validation, {calibration.n:,} answers",
        risk=risk,
        threshold=round(temperature_scaled(abstention.threshold, temperature), 4) if abstention else None,
        coverage=round(abstention.coverage, 4) if abstention else None,
    )
    card = read_bundle_card(bundle)
    write_bundle_card(bundle, card.model_copy(update={"calibration": fitted}))
    return calibration

"""Fit temperature and abstention threshold on validation predictions."""

from __future__ import annotations

from pathlib import Path

from medical_vqa.errors import DataError
from medical_vqa.evaluation.correctness import judge
from medical_vqa.evaluation.joining import join
from medical_vqa.evaluation.metrics.exact_match import exact_match
from medical_vqa.evaluation.statistics.abstention import choose_threshold
from medical_vqa.evaluation.statistics.calibration import calibrate as measure_calibration
from medical_vqa.models.bundle import write_bundle
from medical_vqa.models.calibration import temperature_scaled
from medical_vqa.models.remote.family import RemoteFamily, endpoint_of, write_endpoint
from medical_vqa.pipelines.guards import fit_guards
from medical_vqa.pipelines.inputs import answered_rows
from medical_vqa.schema.bundle_card import BundleCard, ConfidenceCalibration, read_bundle_card, write_bundle_card
from medical_vqa.schema.prediction_card import AnsweringModel
from medical_vqa.schema.records import read_predictions
from medical_vqa.schema.results import Calibration


def calibrate(predictions: Path, *, risk: float, guards: bool = True) -> Calibration:
    """Fit temperature, abstention threshold and guards on validation predictions, and store them in the bundle.

    Args:
        predictions: Predictions of the validation split, written by `predict` with the bundle.
        risk: Tolerated fraction of wrong answers among those that are given.
        guards: Whether to build the reference set from the training rows, and to measure by type of question where the
            model is above its question-only baseline; the threshold then counts only answers that pass the guards.

    Raises:
        DataError: The predictions have no confidence, are of another split, or name no bundle.
        BundleError: The bundle that made them is gone.
    """
    answers = read_predictions(predictions)
    rows = answered_rows(predictions, None, None)
    if rows.split != "validation":
        raise DataError(f"{predictions} answers {rows.split}; a temperature is fitted on validation rows: predict them")
    bundle = rows.card.model.bundle if rows.card else None
    if bundle is None and rows.card is not None and rows.card.model.family == RemoteFamily.family:
        bundle, guards = write_remote_bundle(predictions.parent / "bundle", rows.card.model), False
    if bundle is None:
        raise DataError(f"{predictions} has no card that names a bundle; predict the rows with `medical-vqa predict`")
    answered = join(rows.examples(), answers)
    answered.require_scored()
    judged = judge(exact_match(), answered)
    calibration = measure_calibration(judged, risk=risk)
    if calibration is None:
        raise DataError(f"{predictions} gives no confidence; a temperature needs a model that does")
    outcomes = [(a.confidence, a.correct, a.example.group) for a in judged if a.confidence is not None]
    temperature, abstention = calibration.temperature, choose_threshold(outcomes, risk)
    fitted = ConfidenceCalibration(
        temperature=round(temperature, 4),
        fitted_on=f"{rows.data.selection.dataset} validation, {calibration.n:,} answers",
        risk=risk,
        threshold=round(temperature_scaled(abstention.threshold, temperature), 4) if abstention else None,
        coverage=round(abstention.coverage, 4) if abstention else None,
    )
    card = read_bundle_card(bundle).model_copy(update={"calibration": fitted})
    write_bundle_card(bundle, card)
    if guards:
        fit_guards(bundle, rows, risk=risk)
    return calibration.model_copy(update={"abstention": abstention})


def write_remote_bundle(folder: Path, model: AnsweringModel) -> Path:
    """The bundle that keeps the calibration of a remote model: how it was asked, and no weights."""
    endpoint = endpoint_of(model.facts.model_dump(exclude_none=True))
    card = BundleCard(family=model.family, name=model.name, facts=model.facts, prompt=endpoint.prompt)
    write_bundle(folder, card, lambda new: write_endpoint(new, endpoint))
    return folder

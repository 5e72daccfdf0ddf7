"""Fit temperature and abstention threshold on validation predictions."""

from __future__ import annotations

from pathlib import Path

from medical_vqa.errors import DataError
from medical_vqa.evaluation.joining import join
from medical_vqa.evaluation.metrics.exact_match import exact_match
from medical_vqa.evaluation.statistics.abstention import choose_threshold, stored_threshold
from medical_vqa.evaluation.statistics.calibration import calibrate as measure_calibration
from medical_vqa.evaluation.statistics.correctness import judge
from medical_vqa.models.bundle import write_bundle
from medical_vqa.models.calibration import temperature_scaled
from medical_vqa.models.remote.family import RemoteFamily, endpoint_of, write_endpoint
from medical_vqa.pipelines.bundles import find_bundle
from medical_vqa.pipelines.guards import fit_guards, store_reference_set
from medical_vqa.pipelines.inputs import answered_rows
from medical_vqa.schema.bundle_card import (
    BundleCard,
    ConfidenceCalibration,
    MeasuredModel,
    read_bundle_card,
    write_bundle_card,
)
from medical_vqa.schema.prediction_card import AnsweringModel, card_path
from medical_vqa.schema.records import read_predictions
from medical_vqa.schema.results import Calibration
from medical_vqa.schema.selection import POOLED

_FACTS_OF_THE_ROWS = {"parameters", "trainable", "answers", "words", "exported_from"}
"""Facts of a model that differ with its training rows: a classifier's answers, and the words that it knows."""


def calibrate(predictions: Path, *, risk: float, guards: bool = True, refit: Path | None = None) -> Calibration:
    """Fit temperature, abstention threshold and guards on validation predictions, and store them in the bundle.

    Args:
        predictions: Predictions of the validation split, written by `predict` with the bundle.
        risk: Tolerated fraction of wrong answers among those that are given.
        guards: Whether to build the reference set from the training rows, and to measure by type of question where the
            model is above its question-only baseline; the threshold then counts only answers that pass the guards.
        refit: A run or bundle of the same recipe that learned from the validation rows too; it receives the same
            (`calibrate_refit`).

    Raises:
        DataError: The predictions have no confidence, are of another split, or name no bundle.
        BundleError: The bundle that made them is gone.
    """
    if predictions.is_file() and not card_path(predictions).is_file():
        raise DataError(
            f"{predictions} has no card {card_path(predictions).name} next to it, which names the model to calibrate; "
            "predict the rows with `medical-vqa predict`"
        )
    answers = read_predictions(predictions)
    rows = answered_rows(predictions, None, None)
    if rows.split != "validation":
        raise DataError(f"{predictions} answers {rows.split}; a temperature is fitted on validation rows: predict them")
    model = rows.card.model if rows.card else None
    if model is not None and model.data is not None and model.data.selection.learns_validation:
        raise DataError(
            f"{model.name} learned from the validation rows, so nothing can be fitted on its answers to them; "
            "calibrate the model of the same recipe that learned from the training rows alone, and name this one with "
            "--refit"
        )
    bundle = rows.card.model.bundle if rows.card else None
    if bundle is None and rows.card is not None and rows.card.model.family == RemoteFamily.family:
        bundle, guards = write_remote_bundle(predictions.parent / "bundle", rows.card.model), False
    if bundle is None:
        raise DataError(f"{predictions} has no card that names a bundle; predict the rows with `medical-vqa predict`")
    if refit is not None:
        require_refit(find_bundle(refit), bundle)
    answered = join(rows.examples(), answers)
    answered.require_scored()
    judged = judge(exact_match(), answered)
    calibration = measure_calibration(judged, risk=risk)
    if calibration is None:
        raise DataError(f"{predictions} gives no confidence; a temperature needs a model that does")
    outcomes = [(a.confidence, a.correct, a.example.group) for a in judged if a.confidence is not None]
    temperature, abstention = round(calibration.temperature, 4), choose_threshold(outcomes, risk)
    fitted = ConfidenceCalibration(
        temperature=temperature,
        fitted_on=f"{rows.data.selection.dataset} validation, {calibration.n:,} answers",
        risk=risk,
        threshold=stored_threshold(temperature_scaled(abstention.threshold, temperature)) if abstention else None,
        coverage=round(abstention.coverage, 4) if abstention else None,
    )
    card = read_bundle_card(bundle).model_copy(update={"calibration": fitted})
    write_bundle_card(bundle, card)
    if guards:
        fit_guards(bundle, rows, risk=risk)
    if refit is not None:
        calibrate_refit(find_bundle(refit), bundle, rows.data.selection.root)
    return calibration.model_copy(update={"abstention": abstention})


def calibrate_refit(bundle: Path, measured_bundle: Path, root: Path | None = None) -> BundleCard:
    """Give a model that learned from all rows the calibration of the one that its recipe was chosen by.

    Temperature, thresholds, reliability and localization are those of the chosen model, which never saw the rows that
    they were measured on; the reference set of the guards is built from the rows of the refitted model itself.

    Args:
        bundle: The bundle of the refitted model (``data.train: train+validation``), which receives them.
        measured_bundle: The calibrated bundle of the same recipe, trained on the training rows alone.
        root: Folder of prepared datasets; None for that of the refitted model's rows.

    Returns:
        The new card of the refitted model.

    Raises:
        DataError: One of them is not what it must be, or they are not of one recipe.
    """
    require_refit(bundle, measured_bundle)
    card, measured = read_bundle_card(bundle), read_bundle_card(measured_bundle)
    assert card.data is not None and measured.data is not None
    if measured.calibration is None:
        raise DataError(
            f"{measured_bundle} is not calibrated; run `medical-vqa calibrate` with its validation predictions first"
        )
    scores = measured.checkpoint_selection
    refit = card.model_copy(
        update={
            "calibration": measured.calibration,
            "reliability": measured.reliability,
            "localization": measured.localization,
            "refit_of": MeasuredModel(
                name=measured.name,
                created=measured.created,
                rows=measured.data.rows,
                images=measured.data.images,
                scores=scores.scores if scores else {},
                files=measured.files,
            ),
        }
    )
    write_bundle_card(bundle, refit)
    return store_reference_set(bundle, root or card.data.selection.root)


def require_refit(bundle: Path, measured_bundle: Path) -> None:
    """Raise `DataError` unless `bundle` has the recipe of `measured_bundle` and learned the validation rows too."""
    card, measured = read_bundle_card(bundle), read_bundle_card(measured_bundle)
    if card.data is None or not card.data.selection.learns_validation:
        raise DataError(
            f"{bundle} did not learn from the validation rows (data.train: {POOLED}), so it needs no calibration of "
            "another model; calibrate it with its own predictions"
        )
    if measured.data is None or measured.data.selection.learns_validation:
        raise DataError(
            f"{measured_bundle} did not learn from the training rows alone, so the validation rows do not measure it; "
            "train the recipe with data.train: train first"
        )
    facts, measured_facts = _recipe_facts(card), _recipe_facts(measured)
    if different := [name for name, fact in facts.items() if fact != measured_facts[name]]:
        raise DataError(
            f"{bundle} and {measured_bundle} are not of one recipe: they differ in {', '.join(different)}; train both "
            "by the same one, with no difference but data.train"
        )


def _recipe_facts(card: BundleCard) -> dict[str, object]:
    """What the bundles of one recipe share, `data.train` left out: rows, family, sizes, epochs."""
    assert card.data is not None
    selected = card.checkpoint_selection
    return {
        "name": card.name,
        "family": card.family,
        "rows": card.data.selection.model_copy(update={"train": "train", "root": None}),
        "sizes": card.facts.model_dump(exclude=_FACTS_OF_THE_ROWS),
        "epochs": selected.epoch if selected and selected.metric == "last" else None,
    }


def write_remote_bundle(folder: Path, model: AnsweringModel) -> Path:
    """The bundle that keeps the calibration of a remote model: how it was asked, and no weights."""
    endpoint = endpoint_of(model.facts.model_dump(exclude_none=True))
    card = BundleCard(family=model.family, name=model.name, facts=model.facts, prompt=endpoint.prompt)
    write_bundle(folder, card, lambda new: write_endpoint(new, endpoint))
    return folder

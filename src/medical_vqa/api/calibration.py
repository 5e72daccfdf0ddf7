"""Calibrate a model on its validation predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medical_vqa.api.arguments import RISK, StrPath, as_predictions, as_risk, optional_path
from medical_vqa.api.calls import public

if TYPE_CHECKING:
    from medical_vqa.schema.results import Calibration


@public
def calibrate(predictions: StrPath | None = None, *, risk: float = RISK, refit: StrPath | None = None) -> Calibration:
    """Fit temperature and abstention threshold on validation predictions, and keep both in the model's bundle.

    Args:
        predictions: Validation predictions: what `predict` returned, or a file; by default the newest under ``runs/``.
        risk: Tolerated fraction of wrong answers among those that the model then gives.
        refit: A run or bundle of the same recipe that learned from the validation rows too (``data.train:
            train+validation``): it receives the calibration, since nothing can be fitted on rows that it knows.

    Returns:
        The calibration; ``ask`` and reports on other splits use it from now on.

    Raises:
        MedicalVqaError: The predictions are of another split or have no confidence, their bundle is gone, or `refit`
            is of another recipe or did not learn from the validation rows.

    Examples:
        >>> mv.calibrate("runs/demo/predictions-validation.jsonl", risk=0.2).temperature
        1.31
    """
    from medical_vqa.pipelines.calibrate import calibrate as stage
    from medical_vqa.pipelines.runs import newest_predictions

    default = "predictions-validation.jsonl"
    return stage(
        newest_predictions(default) if predictions is None else as_predictions(predictions),
        risk=as_risk(risk),
        refit=optional_path(refit, "refit"),
    )

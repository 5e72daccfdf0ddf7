"""Medical-VQA: prepare, fine-tune, evaluate and serve models that answer questions about medical images.

    import medical_vqa as mv

    answer = mv.load("shipped").ask("scan.png", "Is there a pleural effusion?")

The public names are imported when they are first used, so that ``import medical_vqa`` loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medical_vqa.api import Evaluation as Evaluation
    from medical_vqa.api import Examination as Examination
    from medical_vqa.api import Exported as Exported
    from medical_vqa.api import Leaderboard as Leaderboard
    from medical_vqa.api import Model as Model
    from medical_vqa.api import Report as Report
    from medical_vqa.api import audit as audit
    from medical_vqa.api import calibrate as calibrate
    from medical_vqa.api import compare as compare
    from medical_vqa.api import convert as convert
    from medical_vqa.api import evaluate as evaluate
    from medical_vqa.api import export as export
    from medical_vqa.api import judge as judge
    from medical_vqa.api import leaderboard as leaderboard
    from medical_vqa.api import load as load
    from medical_vqa.api import load_recipe as load_recipe
    from medical_vqa.api import predict as predict
    from medical_vqa.api import prepare as prepare
    from medical_vqa.api import probe as probe
    from medical_vqa.api import referee as referee
    from medical_vqa.api import report as report
    from medical_vqa.api import score as score
    from medical_vqa.api import train as train
    from medical_vqa.config import Recipe as Recipe
    from medical_vqa.data.prepared.dataset import PreparedDataset as PreparedDataset
    from medical_vqa.errors import MedicalVqaError as MedicalVqaError
    from medical_vqa.evaluation.statistics.comparison import Comparison as Comparison
    from medical_vqa.pipelines.ask import Answer as Answer
    from medical_vqa.pipelines.ask import AttentionMap as AttentionMap
    from medical_vqa.pipelines.ask import ImageView as ImageView
    from medical_vqa.pipelines.judge import Judged as Judged
    from medical_vqa.pipelines.predict import Predictions as Predictions
    from medical_vqa.pipelines.probe import WrittenProbe as WrittenProbe
    from medical_vqa.pipelines.score import Estimate as Estimate
    from medical_vqa.pipelines.score import Scores as Scores
    from medical_vqa.pipelines.train import TrainedRun as TrainedRun
    from medical_vqa.schema.audit import Audit as Audit
    from medical_vqa.schema.records import Example as Example
    from medical_vqa.schema.records import Prediction as Prediction
    from medical_vqa.schema.results import Calibration as Calibration

    __version__: str

__all__ = [
    "Answer", "AttentionMap", "Audit", "Calibration", "Comparison", "Estimate", "Evaluation", "Examination", "Example",
    "Exported", "ImageView", "Judged", "Leaderboard", "MedicalVqaError", "Model", "Prediction", "Predictions",
    "PreparedDataset", "Recipe", "Report", "Scores", "TrainedRun", "WrittenProbe", "audit", "calibrate", "compare",
    "convert", "evaluate", "export", "judge", "leaderboard", "load", "load_recipe", "predict", "prepare", "probe",
    "referee", "report", "score", "train",
]  # fmt: skip

_OUTSIDE_API = {
    "Answer": "pipelines.ask",
    "AttentionMap": "pipelines.ask",
    "Audit": "schema.audit",
    "Calibration": "schema.results",
    "Comparison": "evaluation.statistics.comparison",
    "Estimate": "pipelines.score",
    "Example": "schema.records",
    "ImageView": "pipelines.ask",
    "Judged": "pipelines.judge",
    "MedicalVqaError": "errors",
    "Prediction": "schema.records",
    "Predictions": "pipelines.predict",
    "PreparedDataset": "data.prepared.dataset",
    "Recipe": "config",
    "Scores": "pipelines.score",
    "TrainedRun": "pipelines.train",
    "WrittenProbe": "pipelines.probe",
}
"""Modules of the types that the functions of `medical_vqa.api` return."""

if not TYPE_CHECKING:  # otherwise a type checker would accept any name

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from medical_vqa.runtime.environment import package_version  # noqa: PLC0415

            return package_version()
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"medical_vqa.{_OUTSIDE_API.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

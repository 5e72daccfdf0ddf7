"""Medical-VQA: prepare, fine-tune, evaluate and serve models that answer questions about medical images.

The public names below are imported when they are first used, so that ``import medical_vqa`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medical_vqa.config import Recipe as Recipe
    from medical_vqa.config import load_recipe as load_recipe
    from medical_vqa.errors import MedicalVqaError as MedicalVqaError
    from medical_vqa.pipelines.ask import ask as ask
    from medical_vqa.pipelines.predict import predict as predict
    from medical_vqa.pipelines.prepare import prepare_dataset as prepare_dataset
    from medical_vqa.pipelines.report import report as report
    from medical_vqa.pipelines.score import score as score
    from medical_vqa.pipelines.train import train as train
    from medical_vqa.schema.records import Example as Example
    from medical_vqa.schema.records import Prediction as Prediction

_HOME = {
    "Example": "schema.records",
    "MedicalVqaError": "errors",
    "Prediction": "schema.records",
    "Recipe": "config",
    "ask": "pipelines.ask",
    "load_recipe": "config",
    "predict": "pipelines.predict",
    "prepare_dataset": "pipelines.prepare",
    "report": "pipelines.report",
    "score": "pipelines.score",
    "train": "pipelines.train",
}
__all__ = sorted(_HOME)  # noqa: PLE0605 - a list of literals, kept in one place


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from medical_vqa.runtime.environment import package_version  # noqa: PLC0415

        return package_version()
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"medical_vqa.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

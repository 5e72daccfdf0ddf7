"""What a package imports to add a dataset, a model family, a metric, a protocol or an image store to this one.

These names stay where they are when modules move. Each is imported when it is first used, so that a package that adds
a metric loads no model. ``docs/how-to/extend.md`` shows one of each.
"""

# ruff: noqa: PLC0414 - explicit re-exports

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medical_vqa.config import ModelOptions as ModelOptions
    from medical_vqa.config import Section as Section
    from medical_vqa.data.formats.base import DatasetCard as DatasetCard
    from medical_vqa.data.formats.base import Published as Published
    from medical_vqa.data.imaging.preprocessing import PictureSpec as PictureSpec
    from medical_vqa.errors import BundleError as BundleError
    from medical_vqa.errors import ConfigError as ConfigError
    from medical_vqa.errors import DataError as DataError
    from medical_vqa.errors import ImageError as ImageError
    from medical_vqa.errors import ModelError as ModelError
    from medical_vqa.evaluation.metrics.base import Mean as Mean
    from medical_vqa.evaluation.metrics.base import Metric as Metric
    from medical_vqa.evaluation.protocols.base import Context as Context
    from medical_vqa.evaluation.protocols.base import Protocol as Protocol
    from medical_vqa.evaluation.protocols.base import ProtocolMetric as ProtocolMetric
    from medical_vqa.models.base import ModelFamily as ModelFamily
    from medical_vqa.models.base import Query as Query
    from medical_vqa.models.vocabulary import AnswerVocabulary as AnswerVocabulary
    from medical_vqa.schema.bundle_card import Decoding as Decoding
    from medical_vqa.schema.records import Example as Example
    from medical_vqa.schema.records import Prediction as Prediction
    from medical_vqa.schema.records import Split as Split
    from medical_vqa.serving.errors import ApiError as ApiError

_HOME = {
    "ApiError": "serving.errors",
    "AnswerVocabulary": "models.vocabulary",
    "BundleError": "errors",
    "ConfigError": "errors",
    "Context": "evaluation.protocols.base",
    "DataError": "errors",
    "DatasetCard": "data.formats.base",
    "Decoding": "schema.bundle_card",
    "Example": "schema.records",
    "ImageError": "errors",
    "Mean": "evaluation.metrics.base",
    "Metric": "evaluation.metrics.base",
    "ModelError": "errors",
    "ModelFamily": "models.base",
    "ModelOptions": "config",
    "PictureSpec": "data.imaging.preprocessing",
    "Prediction": "schema.records",
    "Protocol": "evaluation.protocols.base",
    "ProtocolMetric": "evaluation.protocols.base",
    "Published": "data.formats.base",
    "Query": "models.base",
    "Section": "config",
    "Split": "schema.records",
}
__all__ = sorted(_HOME)  # noqa: PLE0605 - a list of literals, kept in one place


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"medical_vqa.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__

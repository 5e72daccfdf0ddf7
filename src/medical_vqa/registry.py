"""Names -> "module:attribute" of datasets, models, metrics and protocols; other packages add theirs by entry points.

A package that declares ``[project.entry-points."medical_vqa.datasets"] mine = "my_package:MyDataset"`` is found here
by the name ``mine``; models use the group ``medical_vqa.models``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Literal

from medical_vqa.errors import ConfigError, MissingDependencyError
from medical_vqa.text import did_you_mean

Kind = Literal["datasets", "models", "metrics", "protocols"]

_BUILT_IN: dict[Kind, dict[str, str]] = {
    "datasets": {
        "slake": "medical_vqa.data.formats.slake:Slake",
        "slake-mini": "medical_vqa.data.formats.slake_mini:SlakeMini",
        "vqa-rad": "medical_vqa.data.formats.vqa_rad:VqaRad",
        "folder": "medical_vqa.data.formats.folder:Folder",
    },
    "models": {
        "question-only": "medical_vqa.models.baselines:QuestionLookup",
        "majority": "medical_vqa.models.baselines:Majority",
        "compact": "medical_vqa.models.compact.model:Compact",
        "compact-onnx": "medical_vqa.models.compact.onnx_model:CompactOnnx",
        "vilt": "medical_vqa.models.hf.vilt:Vilt",
        "blip2": "medical_vqa.models.hf.blip2:Blip2",
        "chat": "medical_vqa.models.hf.chat:ChatVlm",
    },
    "metrics": {  # callables that make a `Metric`
        "em": "medical_vqa.evaluation.metrics.exact_match:exact_match",
        "f1": "medical_vqa.evaluation.metrics.token_overlap:token_f1",
        "closed": "medical_vqa.evaluation.metrics.exact_match:closed_accuracy",
        "open_recall": "medical_vqa.evaluation.metrics.token_overlap:open_recall",
        "list": "medical_vqa.evaluation.metrics.lists:list_match",
        "laterality": "medical_vqa.evaluation.metrics.laterality:laterality_errors",
        "rouge_l": "medical_vqa.evaluation.metrics.rouge:rouge_l",
        "bleu1": "medical_vqa.evaluation.metrics.bleu:bleu_1",
        "bleu4": "medical_vqa.evaluation.metrics.bleu:bleu_4",
    },
    "protocols": {  # `Protocol` objects; the first is the default
        name: f"medical_vqa.evaluation.protocols.{name}:PROTOCOL"
        for name in (
            "squad_v2",
            "llava_med",
            "medevalkit",
            "lmms_eval",
            "m2i2",
            "mevf",
            "qcr",
            "medvint",
            "multimedeval",
            "helm",
            "vila_m3",
        )
    },
}
_EXTRAS = {"torch": "train", "safetensors": "train", "transformers": "hub", "peft": "hub"}


def names(kind: Kind) -> list[str]:
    """Every known name: the built-in ones in their order, then those from entry points, sorted."""
    built_in = list(_BUILT_IN[kind])
    return built_in + sorted(set(_table(kind)) - set(built_in))


def find(kind: Kind, name: str) -> Any:
    """The class behind a name; raises `ConfigError` that names the nearest known one.

    Raises `MissingDependencyError` when a package that it needs is not installed.
    """
    table = _table(kind)
    if name not in table:
        raise ConfigError(f"unknown {kind[:-1]} {name!r}; {did_you_mean(name, sorted(table))}")
    module, _, attribute = table[name].partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if (extra := _EXTRAS.get((error.name or "").partition(".")[0])) is None:
            raise
        raise MissingDependencyError(
            f"{name} needs {error.name}, which is not installed; run: pip install 'medical-vqa[{extra}]'"
        ) from error


def _table(kind: Kind) -> dict[str, str]:
    others = {point.name: point.value for point in entry_points(group=f"medical_vqa.{kind}")}
    return others | _BUILT_IN[kind]

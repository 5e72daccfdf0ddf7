"""Names -> datasets, models, metrics, protocols and image stores; other packages add theirs through entry points.

A package that declares ``[project.entry-points."medical_vqa.models"] mine = "my_package:MyModel"`` adds the model
family ``mine``; the groups are ``medical_vqa.`` and one of `GROUPS`. ``docs/how-to/extend.md`` shows one of each.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from operator import attrgetter
from typing import Any, Literal

from medical_vqa.errors import ConfigError, MissingDependencyError
from medical_vqa.text import did_you_mean

Group = Literal["datasets", "models", "metrics", "protocols", "image_stores"]


@dataclass(frozen=True, slots=True)
class _Contents:
    """What one group holds."""

    noun: str
    """Name of one entry in messages."""
    required: tuple[str, ...]
    """Attributes that an entry (or what it constructs) must have."""
    built_in: Mapping[str, str]
    """Name -> ``module:attribute``."""
    own_name: str = ""
    """Attribute that holds the same name; empty where an entry has no name of its own."""
    called: str = ""
    """How `create` calls an entry; empty for entries that are used as they are."""

    @property
    def constructed(self) -> bool:
        """Whether `create` calls an entry, so that the result has the required attributes."""
        return bool(self.called)


GROUPS: dict[Group, _Contents] = {
    "datasets": _Contents(
        noun="dataset",
        called="Dataset()",
        own_name="card.name",
        required=("card", "read", "bundled"),
        built_in={
            "slake": "medical_vqa.data.formats.slake:Slake",
            "slake-mini": "medical_vqa.data.formats.slake_mini:SlakeMini",
            "vqa-rad": "medical_vqa.data.formats.vqa_rad:VqaRad",
            "vqa-rad-hub": "medical_vqa.data.formats.vqa_rad_copies:VqaRadHub",
            "vqa-rad-mevf": "medical_vqa.data.formats.vqa_rad_copies:VqaRadMevf",
            "vqa-med-2019": "medical_vqa.data.formats.vqa_med:vqa_med_2019",
            "vqa-med-2020": "medical_vqa.data.formats.vqa_med:vqa_med_2020",
            "vqa-med-2021": "medical_vqa.data.formats.vqa_med:vqa_med_2021",
            "path-vqa": "medical_vqa.data.formats.path_vqa:PathVqa",
            "kvasir-vqa": "medical_vqa.data.formats.kvasir_vqa:kvasir_vqa",
            "kvasir-vqa-x1": "medical_vqa.data.formats.kvasir_vqa:kvasir_vqa_x1",
            "pmc-vqa": "medical_vqa.data.formats.multiple_choice_sets:PmcVqa",
            "omnimedvqa": "medical_vqa.data.formats.multiple_choice_sets:OmniMedVqa",
            "medxpertqa-mm": "medical_vqa.data.formats.multiple_choice_sets:MedXpertQa",
            "medframeqa": "medical_vqa.data.formats.multiple_choice_sets:MedFrameQa",
            "chestx-ray14": "medical_vqa.data.formats.chestx_ray14:ChestXray14",
            "rad-restruct": "medical_vqa.data.formats.rad_restruct:RadReStruct",
            "folder": "medical_vqa.data.formats.folder:Folder",
            "table": "medical_vqa.data.formats.tables:Table",
            "llava-json": "medical_vqa.data.formats.conversations:llava_json",
            "sharegpt": "medical_vqa.data.formats.conversations:sharegpt",
            "messages": "medical_vqa.data.formats.conversations:messages",
            "coco-vqa": "medical_vqa.data.formats.coco_vqa:CocoVqa",
            "vlmevalkit": "medical_vqa.data.formats.multiple_choice_sets:VlmEvalKit",
        },
    ),
    "models": _Contents(
        noun="model family",
        own_name="family",
        required=("family", "Options", "trainable", "needs_torch", "model_class"),
        built_in={
            "question-only": "medical_vqa.models.baselines:QuestionLookup",
            "majority": "medical_vqa.models.baselines:Majority",
            "compact": "medical_vqa.models.compact.family:CompactFamily",
            "compact-onnx": "medical_vqa.models.compact.onnx_model:CompactOnnx",
            "vilt": "medical_vqa.models.hf.families:ViltFamily",
            "blip2": "medical_vqa.models.hf.families:Blip2Family",
            "chat": "medical_vqa.models.hf.families:ChatFamily",
            "openai": "medical_vqa.models.remote.family:RemoteFamily",
        },
    ),
    "metrics": _Contents(
        noun="metric",
        called="metric()",
        own_name="name",
        required=("name", "label", "counts", "value", "signature"),
        built_in={
            "em": "medical_vqa.evaluation.metrics.exact_match:exact_match",
            "f1": "medical_vqa.evaluation.metrics.token_overlap:token_f1",
            "closed": "medical_vqa.evaluation.metrics.exact_match:closed_accuracy",
            "open_recall": "medical_vqa.evaluation.metrics.token_overlap:open_recall",
            "list": "medical_vqa.evaluation.metrics.lists:list_match",
            "laterality": "medical_vqa.evaluation.metrics.laterality:laterality_errors",
            "rouge_l": "medical_vqa.evaluation.metrics.rouge:rouge_l",
            "bleu1": "medical_vqa.evaluation.metrics.bleu:bleu_1",
            "bleu4": "medical_vqa.evaluation.metrics.bleu:bleu_4",
            "choice": "medical_vqa.evaluation.metrics.multiple_choice:multiple_choice",
            "synonyms": "medical_vqa.evaluation.metrics.clinical:synonym_match",
            "sensitivity": "medical_vqa.evaluation.metrics.clinical:sensitivity",
            "specificity": "medical_vqa.evaluation.metrics.clinical:specificity",
            "numeric": "medical_vqa.evaluation.metrics.numeric:numeric_match",
            "vqa_soft": "medical_vqa.evaluation.protocols.soft_accuracy:soft_accuracy",
        },
    ),
    "protocols": _Contents(  # the first is the default
        noun="protocol",
        own_name="name",
        required=("name", "rule", "citation", "build"),
        built_in={
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
                "vqa_med",
                "path_vqa",
                "omnimedvqa",
                "medxpertqa",
                "vlmevalkit",
                "judge",
            )
        },
    ),
    "image_stores": _Contents(  # by URL scheme
        noun="image store",
        called="Store(url, ttl=SECONDS, max_bytes=BYTES)",
        required=("blocking", "put", "get", "contains", "delete", "sweep", "check"),
        built_in={
            "memory": "medical_vqa.serving.image_store.memory:MemoryStore.from_url",
            "file": "medical_vqa.serving.image_store.folder:FolderStore.from_url",
            "s3": "medical_vqa.serving.image_store.object_store:ObjectStore",
            "gs": "medical_vqa.serving.image_store.object_store:ObjectStore",
            "gcs": "medical_vqa.serving.image_store.object_store:ObjectStore",
            "redis": "medical_vqa.serving.image_store.redis_store:RedisStore",
            "rediss": "medical_vqa.serving.image_store.redis_store:RedisStore",
        },
    ),
}
_EXTRAS = {
    "accelerate": "train",
    "aiohttp": "remote",
    "dicomweb_client": "dicomweb",
    "fastapi": "serve",
    "highdicom": "dicomweb",
    "nibabel": "dicom",
    "openpyxl": "excel",
    "peft": "hub",
    "pyarrow": "parquet",
    "pydicom": "dicom",
    "safetensors": "train",
    "torch": "train",
    "transformers": "hub",
}
"""Modules of optional packages, and the extra that brings each."""


def extra_of(error: ModuleNotFoundError) -> str | None:
    """The extra that brings the module which could not be imported; None for a module that no extra brings."""
    return _EXTRAS.get((error.name or "").partition(".")[0])


def names(group: Group) -> list[str]:
    """Every known name: the built-in ones in their order, then those from entry points, sorted."""
    built_in = list(GROUPS[group].built_in)
    return built_in + sorted(set(_entry_points(group)) - set(built_in))


def find(group: Group, name: str) -> Any:
    """What a name stands for: a model family, a protocol, or the class (or function) that `create` calls.

    A built-in name cannot be replaced: a package that declares it too is warned of and ignored.

    Raises:
        ConfigError: The name is unknown, an entry point cannot be imported or lacks what the group requires, or two
            packages declare the name.
        MissingDependencyError: A package that it needs is not installed.
    """
    contents, others = GROUPS[group], _entry_points(group).get(name, ())
    packages = ", ".join(_package(point) for point in others)
    if name in contents.built_in:
        if others:
            warnings.warn(
                f"{packages} also declares a {contents.noun} {name!r}; the one of medical-vqa is used", stacklevel=2
            )
        return import_object(contents.built_in[name], name)
    if not others:
        raise ConfigError(f"unknown {contents.noun} {name!r}; {did_you_mean(name, sorted(names(group)))}")
    if len(others) > 1:
        raise ConfigError(
            f"{packages} each declare a {contents.noun} {name!r}; uninstall all but one of these packages"
        )
    described = f"the {contents.noun} {name!r} of the package {packages}"
    try:
        entry = import_object(others[0].value, name)
    except MissingDependencyError:
        raise
    except Exception as error:  # whatever the package does when it is imported
        raise ConfigError(
            f"{described} cannot be imported ({type(error).__name__}: {error}); repair or uninstall the package"
        ) from error
    if not contents.constructed:
        _check(entry, name, contents, described)
    return entry


def create(group: Group, name: str, *arguments: Any, **options: Any) -> Any:
    """What `find` finds, called with these arguments: a dataset, a metric or an image store; raises as `find` does."""
    entry, contents = find(group, name), GROUPS[group]
    target = contents.built_in.get(name) or _entry_points(group)[name][0].value
    made_by = f"the {contents.noun} {name!r} ({target})"
    try:
        instance = entry(*arguments, **options)
    except TypeError as error:
        raise ConfigError(f"{made_by} cannot be constructed ({error}); it is called as {contents.called}") from error
    _check(instance, name, contents, made_by)
    return instance


def package_of(group: Group, name: str) -> str | None:
    """The package that declares a name by an entry point; None for a built-in name."""
    others = () if name in GROUPS[group].built_in else _entry_points(group).get(name, ())
    return ", ".join(_package(point) for point in others) or None


def import_object(target: str, name: str) -> Any:
    """What ``module:attribute`` names.

    Raises `MissingDependencyError`, with the line that installs it, when a library of an extra is not installed; `name`
    is what needs it.
    """
    module, _, attribute = target.partition(":")
    try:
        return attrgetter(attribute)(import_module(module))
    except ModuleNotFoundError as error:
        if (extra := extra_of(error)) is None:
            raise
        raise MissingDependencyError(
            f"{name} needs {error.name}, which is not installed; run: pip install 'medical-vqa[{extra}]'"
        ) from error


def _check(entry: Any, name: str, contents: _Contents, described: str) -> None:
    """Raise `ConfigError` when an entry lacks attributes that its group requires, or has another name of its own."""
    if absent := [attribute for attribute in contents.required if not hasattr(entry, attribute)]:
        raise ConfigError(
            f"{described} lacks {', '.join(absent)}; a {contents.noun} has {', '.join(contents.required)}: add them, "
            "see docs/how-to/extend.md"
        )
    if contents.own_name and (own_name := attrgetter(contents.own_name)(entry)) != name:
        raise ConfigError(
            f"{described} names itself {own_name!r} in {contents.own_name}; give both the same name, by which files "
            "refer to it"
        )


@cache
def _entry_points(group: Group) -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of other packages by name; installed packages do not change while a process runs."""
    points: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=f"medical_vqa.{group}"):
        points[point.name] = (*points.get(point.name, ()), point)
    return points


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value

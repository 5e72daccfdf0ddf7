"""Arguments of the public functions: what a person may pass, and what the pipelines take."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa.errors import ConfigError, DataError
from medical_vqa.io import as_path

if TYPE_CHECKING:
    from medical_vqa.schema.records import Split
    from medical_vqa.schema.selection import Selection

StrPath = str | os.PathLike[str]
"""A path as text or as a path object; results that stand for a file or folder are path objects too."""
RISK = 0.1
"""Default of the tolerated fraction of wrong answers among those that are given."""


def optional_path(value: StrPath | None, what: str) -> Path | None:
    """A path, or None; `what` is the argument's name, for the message."""
    return None if value is None else as_path(value, what)


def as_root(root: StrPath | None) -> Path:
    """The folder of prepared datasets, absolute."""
    from medical_vqa.data.prepared.dataset import default_root

    return (default_root() if root is None else as_path(root, "root")).resolve()


def as_dataset(dataset: StrPath, root: StrPath | None) -> tuple[str, Path]:
    """Name and root of a prepared dataset that is passed by name or by folder."""
    if isinstance(dataset, str) and dataset.strip() and not {"/", os.sep} & set(dataset):
        return dataset, as_root(root)
    if root is not None:
        raise ConfigError(f"root belongs to the name of a dataset and not to the folder {dataset}; leave root out")
    folder = as_path(dataset, "dataset").resolve()
    return folder.name, folder.parent


def as_selection(dataset: StrPath | None, root: StrPath | None, where: Mapping[str, str] | None) -> Selection | None:
    """The rows that the three select; None without a dataset."""
    from medical_vqa.schema.selection import Selection

    if dataset is None:
        if where or root is not None:
            raise ConfigError("root and where need --dataset (dataset=), which names the rows they select from")
        return None
    name, folder = as_dataset(dataset, root)
    return Selection(dataset=name, root=folder, where=dict(where or {}))


def as_yaml(value: object) -> str:
    """A value as YAML; JSON is YAML."""
    try:
        return json.dumps(os.fspath(value) if isinstance(value, os.PathLike) else value)
    except TypeError as error:
        raise ConfigError(f"a recipe cannot hold {value!r}; pass text, numbers, lists or mappings") from error


def as_split(split: str) -> Split:
    """A split by any of its names."""
    from medical_vqa.config import where_split

    if not isinstance(split, str):
        raise ConfigError(f"split: expected train, validation or test, got {split!r}; pass one of them")
    return where_split(split)


def optional_split(split: str | None) -> Split | None:
    """A split by any of its names, or None."""
    return None if split is None else as_split(split)


def as_protocols(protocol: str | Sequence[str]) -> list[str]:
    """Names of published rules: one, several, or ``all``."""
    from medical_vqa import registry

    if protocol == "all":
        return registry.names("protocols")
    return [protocol] if isinstance(protocol, str) else list(protocol)


def as_columns(columns: str | Mapping[str, str] | None) -> Mapping[str, str] | None:
    """Columns of another program's file, also as the text of ``--map``."""
    from medical_vqa.evaluation.imports.tables import parse_map

    return parse_map(columns) if isinstance(columns, str) else columns


def as_fact_groups(by: Sequence[str | Sequence[str]]) -> list[tuple[str, ...]]:
    """Facts to cross, each group as text with commas or as a sequence."""
    groups = [by] if isinstance(by, str) else by
    return [tuple(fact.strip() for fact in (group.split(",") if isinstance(group, str) else group)) for group in groups]


def as_predictions(predictions: StrPath) -> Path:
    """A predictions file."""
    path = as_path(predictions, "predictions")
    if path.is_dir():
        raise DataError(f"{path} is a folder; expected a predictions file, such as predictions-validation.jsonl in it")
    return path


def as_files(predictions: StrPath | Sequence[StrPath]) -> list[Path]:
    """One or several predictions files."""
    if isinstance(predictions, str | bytes) or not isinstance(predictions, Sequence):
        return [as_predictions(predictions)]
    files = [as_predictions(file) for file in predictions]
    if not files:
        raise DataError("expected one predictions file or several, got none; pass what predict() returned")
    return files


def as_frame(frame: int | None) -> int | None:
    """A frame number, of any type of whole numbers."""
    if frame is not None and (isinstance(frame, bool) or not hasattr(frame, "__index__")):
        raise ConfigError(f"frame: expected a whole number from 0, got {frame!r}; correct it")
    return None if frame is None else int(frame)


def as_window(window: tuple[float, float] | None) -> tuple[float, float] | None:
    """Center and width, of any type of numbers."""
    if window is None:
        return None
    try:
        center, width = (float(value) for value in window)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"window: expected center and width, such as (40, 400), got {window!r}; correct it"
        ) from error
    return center, width

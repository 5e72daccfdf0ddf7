"""The folder ``runs/``: the newest run and the newest predictions in it are the defaults of several commands."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from medical_vqa.errors import ConfigError
from medical_vqa.io import describe_read_errors
from medical_vqa.schema.prediction_card import card_path

RUNS = Path("runs")


class FileKind(NamedTuple):
    """A kind of file that is written, for `require_replaceable`."""

    start: bytes
    """How every file of the kind begins."""
    name: str
    """What messages call it."""


PAGE = FileKind(b"<", "HTML page")
RESULTS = FileKind(b"{\n", "results file")


def newest_run() -> Path:
    """The newest finished run folder; raises `ConfigError` when there is none."""
    return _newest("*/finished.json", "finished run", "medical-vqa train recipes/slake-compact.yaml").parent


def newest_predictions(pattern: str = "predictions-*.jsonl") -> Path:
    """The newest predictions file of any run; raises `ConfigError` when there is none."""
    return _newest(f"*/{pattern}", "predictions", "medical-vqa predict")


def has_finished_run() -> bool:
    """Whether any run is finished."""
    return any(RUNS.glob("*/finished.json"))


def sibling(predictions: Path, word: str, suffix: str) -> Path:
    """A file next to a predictions file: ``results-dev.json`` of ``predictions-dev.jsonl``.

    Of ``gpt_predictions.csv`` it is ``gpt_predictions-results.json``; `leaderboard` finds both in a folder.
    """
    stem = predictions.stem
    name = stem.replace("predictions", word, 1) if stem.startswith("predictions") else f"{stem}-{word}"
    return predictions.with_name(name + suffix)


def output_path(predictions: Path, word: str, suffix: str) -> Path:
    """Where a result about a predictions file is written: next to one with a card, else in the current folder.

    In the current folder as well where the run folder cannot be written: a colleague's, or one on a read-only disk.
    """
    path = sibling(predictions, word, suffix)
    is_in_run = card_path(predictions).is_file() and os.access(path.parent, os.W_OK)
    return path if is_in_run else Path(path.name)


def require_other_file(path: Path, inputs: Iterable[Path]) -> None:
    """Raise `ConfigError` where a file to write is one of the inputs, which would be lost."""
    for file in inputs:
        if path.resolve() == file.resolve():
            raise ConfigError(f"{path} is a file that is read; name another file to write, or the input would be lost")


def require_replaceable(path: Path, kind: FileKind, advice: str = "name another file to write") -> None:
    """Raise `ConfigError` where a file exists that something of another kind would replace.

    Args:
        path: The file to write.
        kind: What is written.
        advice: What to do, for the message.
    """
    if not path.is_file():
        return
    with describe_read_errors(path), path.open("rb") as file:
        content = file.read(100).lstrip()
    if content and not content.startswith(kind.start):
        raise ConfigError(f"{path} exists, is no {kind.name} and would be lost; {advice}")


def require_outside_dataset(path: Path, folder: Path) -> None:
    """Raise `ConfigError` where a path to write is in the folder of a prepared dataset, which it could damage."""
    if path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"{path} is in the folder of the prepared dataset, {folder}; write elsewhere")


def _newest(pattern: str, content: str, command: str) -> Path:
    files = sorted(RUNS.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not files:
        raise ConfigError(f"no {content} under {RUNS}/; name one, or make one with `{command}`")
    return files[-1]

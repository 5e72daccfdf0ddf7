"""Collect results files into the tables of a leaderboard, and test the models of a table in pairs where possible."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from medical_vqa.errors import DataError, MedicalVqaError
from medical_vqa.evaluation.reporting.leaderboard import Board, Entry, boards, write_leaderboard
from medical_vqa.pipelines.compare import compare_files
from medical_vqa.pipelines.runs import PAGE, require_other_file, require_replaceable
from medical_vqa.schema.prediction_card import card_path
from medical_vqa.schema.result_files import read_results

_PREDICTIONS_MISSING = "Not tested in pairs: that needs the predictions next to every results file."
_PATTERNS = ("results*.json", "*-results.json")
"""Names of the files that `score` writes: of ``predictions-test.jsonl`` and of ``answers.csv``."""
_MAX_MODELS = 30  # models of a table that are compared in pairs: 435 pairs


def leaderboard(paths: Sequence[Path]) -> list[Board]:
    """The tables of results files.

    Args:
        paths: Results files, or folders that are searched for ``results*.json`` and ``*-results.json``.

    Raises:
        DataError: There is no results file, one is damaged, or two disagree on how many questions a split has.
    """
    files = results_files(paths)
    entries = _named([Entry("", read_results(file), file) for file in files])
    groups = boards(entries)
    for group in groups:
        _require_same_size(group)
    return [_tested(group) for group in groups]


def results_files(paths: Sequence[Path]) -> list[Path]:
    """The results files that are named or lie under a folder, each once, in order."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted({file for pattern in _PATTERNS for file in path.rglob(pattern)})
            if not inside:
                raise DataError(
                    f"{path}: expected {' or '.join(_PATTERNS)} under it, there is none; run `medical-vqa score` first"
                )
            files += inside
        else:
            files.append(path)
    different: dict[Path, Path] = {}
    for file in files:
        different.setdefault(file.resolve(), file)  # also by another path, or a link
    return list(different.values())


def leaderboard_page(tables: Sequence[Board], paths: Sequence[Path], path: Path) -> Path:
    """Write the tables as one HTML page; returns its path."""
    require_other_file(path, (entry.file for table in tables for entry in table.entries))
    require_replaceable(path, PAGE)
    command = shlex.join(["medical-vqa", "leaderboard", *map(str, paths), "--out", str(path)])
    write_leaderboard(path, tables, title="Leaderboard", reproduce=[command])
    return path


def _named(entries: Sequence[Entry]) -> list[Entry]:
    """The entries with the model's name, and the folder or file where that is not enough to tell two apart."""
    names = [entry.results.model.name if entry.results.model else entry.file.stem for entry in entries]
    places: tuple[Callable[[Path], str], ...] = (lambda file: file.resolve().parent.name, str)
    for place in places:
        data = [(entry.results.dataset.name, entry.results.dataset.split) for entry in entries]
        number = Counter(zip(names, data, strict=True))
        names = [
            f"{name} ({place(entry.file)})" if number[name, of] > 1 else name
            for name, of, entry in zip(names, data, entries, strict=True)
        ]
    return [Entry(name, entry.results, entry.file) for name, entry in zip(names, entries, strict=True)]


def _require_same_size(entries: Sequence[Entry]) -> None:
    """Raise `DataError` where results of the same rows disagree on how many there are."""
    first, *others = entries
    size = first.results.counts.examples
    for entry in others:
        other_size = entry.results.counts.examples
        if other_size != size and first.results.dataset.manifest:
            raise DataError(
                f"{first.file} is of {size:,} questions and {entry.file} of {other_size:,}, yet both name the same "
                "dataset, split and filter; one of them was changed: score its predictions again"
            )


def _tested(entries: Sequence[Entry]) -> Board:
    if len(entries) < 2:
        return Board(entries, untested="One model: nothing to compare.")
    files = {entry.name: predictions_of(entry.file) for entry in entries}
    present = {name: file for name, file in files.items() if file is not None}
    if len(present) < len(files):
        return Board(entries, untested=_PREDICTIONS_MISSING)
    if len(present) > _MAX_MODELS:
        return Board(entries, untested=f"Not tested in pairs: more than {_MAX_MODELS} models.")
    try:
        pairs = compare_files(present, metric=entries[0].headline.name)
    except MedicalVqaError as error:
        return Board(entries, untested=f"Not tested in pairs: {error}")
    return Board(entries, pairs)


def predictions_of(results: Path) -> Path | None:
    """The predictions file next to a results file that `score` wrote from it; None without one that has a card."""
    names = (results.name.replace("results", "predictions", 1), results.name.removesuffix("-results.json"))
    files = (results.with_name(name.removesuffix(".json") + ".jsonl") for name in names)
    return next((file for file in files if file.is_file() and card_path(file).is_file()), None)

"""What scoring starts from: which rows a predictions file answers, its answers, and what lies beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medical_vqa.data.audit.audit import AUDIT_NAME, Audit
from medical_vqa.data.audit.audit import audit as look_into
from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.data.prepared.selection import Selection
from medical_vqa.errors import ConfigError, DataError
from medical_vqa.evaluation.imports.tables import read_foreign
from medical_vqa.evaluation.predicting import card_path, read_prediction_card
from medical_vqa.evaluation.results import Leaks
from medical_vqa.schema.records import Example, Prediction, Split, read_predictions

SHUFFLED = "image-shuffled"
"""The baseline of one model: its own answers to the same questions about other rows' images."""


def asked_rows(
    predictions: Path, selection: Selection | None, split: Split | None
) -> tuple[Selection, Split, dict[str, Any]]:
    """Which rows a predictions file answers: as its card says, or as it was said; and the card, empty without one."""
    if selection is not None and split is not None and not card_path(predictions).is_file():
        return selection, split, {}
    card = read_prediction_card(predictions)
    return selection or Selection.from_json(card["selection"]), split or card["split"], card


def asked_of_all(
    files: Sequence[Path], selection: Selection | None, split: Split | None
) -> list[tuple[Selection, Split, dict[str, Any]]]:
    """`asked_rows` of files to be compared: one without a card answers the rows of the first that has one."""
    if selection is None and (known := next((path for path in files if card_path(path).is_file()), None)):
        chosen, of, _ = asked_rows(known, None, split)
        return [asked_rows(path, None, split) if card_path(path).is_file() else (chosen, of, {}) for path in files]
    return [asked_rows(path, selection, split) for path in files]


def read_answers(predictions: Path, columns: Mapping[str, str] | None, examples: Sequence[Example]) -> list[Prediction]:
    """The predictions in a file of ours, known by its card, or in another program's whose columns are named."""
    if columns is None or card_path(predictions).is_file():
        return read_predictions(predictions)
    return read_foreign(predictions, columns, examples)


def refuse_other_rows(files: Sequence[Path], asked: Sequence[tuple[Selection, Split, Any]]) -> None:
    """Raise `DataError` when two prediction files answer different datasets or splits."""
    seen = [(chosen.dataset, split) for chosen, split, _ in asked]
    for path, place in zip(files[1:], seen[1:], strict=True):
        if place != seen[0]:
            raise DataError(
                f"{files[0]} answers {' '.join(seen[0])} and {path} answers {' '.join(place)}; "
                "compare predictions of the same rows"
            )


def names(files: Sequence[Path]) -> list[str]:
    """A short name for each predictions file: its run's folder, or what it is called itself, where those differ."""
    folders = [path.resolve().parent.name for path in files]
    stems = [path.stem for path in files]
    usual = [a if b.startswith("predictions") else b for a, b in zip(folders, stems, strict=True)]
    for chosen in (usual, folders, stems, [f"{a}/{b}" for a, b in zip(folders, stems, strict=True)]):
        if len(set(chosen)) == len(files):
            return chosen
    return [f"{number}: {path}" for number, path in enumerate(files, 1)]


def shuffled_baseline(predictions: Path, examples: Sequence[Example]) -> dict[str, list[Prediction]]:
    """What the same model answers to these questions with other images, where `predict --shuffle-images` was run."""
    beside = predictions.with_name(predictions.name.replace("predictions", "shuffled"))
    if beside == predictions or not beside.is_file() or not card_path(beside).is_file():
        return {}
    mine, theirs = read_prediction_card(predictions), read_prediction_card(beside)
    answers = read_predictions(beside)
    same = all(mine.get(key) == theirs.get(key) for key in ("selection", "split", "manifest"))
    whole = {example.id for example in examples} <= {answer.id for answer in answers}
    same_model = all(mine.get("model", {}).get(key) == theirs.get("model", {}).get(key) for key in ("files", "model"))
    return {SHUFFLED: answers} if same and same_model and whole else {}


def leaks_of(selection: Selection, split: Split, card: Mapping[str, Any] | None = None) -> Leaks | None:
    """The rows of a split that some training part may have shown: by ``audit.json`` where it is, else by content.

    `card` is that of the predictions, which says what their model learned from.
    """
    if split == "train":
        return None
    prepared = selection.open()
    found = read_audit(prepared) or look_into(prepared, compare_images=False)
    parts = [leak for leak in found.leaks if leak.part.partition(" ")[0] == split]
    exact = frozenset(id_ for leak in parts for id_ in leak.exact)
    near = frozenset(id_ for leak in parts for id_ in leak.near)
    return Leaks(exact, near, looked=found.looked, learned=learned_rows(selection, split, card or {}))


def learned_rows(selection: Selection, split: Split, card: Mapping[str, Any]) -> frozenset[str] | None:
    """Ids of the rows whose image the model learned from, by content; None where no card says."""
    trained_on = card.get("model", {}).get("trained_on", {}).get("selection")
    if not trained_on:
        return None
    try:
        learned = Selection.from_json(trained_on)
        images, rows = learned.open().images, learned.rows("train")
    except (DataError, ConfigError):
        return None
    known = {images.digest(image) for image in {row.image_id for row in rows}}
    ours = selection.open().images
    return frozenset(row.id for row in selection.rows(split) if ours.digest(row.image_id) in known)


def read_audit(prepared: PreparedDataset) -> Audit | None:
    """The audit that was kept of these very rows and images; None where there is none."""
    path = prepared.folder / AUDIT_NAME
    if not path.is_file():
        return None
    try:
        found = Audit.from_json(path.read_text(encoding="utf-8"))
    except DataError:
        return None
    return found if found.manifest == prepared.manifest.digest else None

"""What scoring starts from: the rows that a predictions file answers, its answers, and sibling files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medical_vqa.data.formats.table_files import is_utf8
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.errors import ConfigError, DataError
from medical_vqa.evaluation.imports.tables import ImportedAnswers, import_answers
from medical_vqa.evaluation.joining import AnsweredQuestions, join, named_rows
from medical_vqa.evaluation.scoring import LeakedRows
from medical_vqa.schema.bundle_card import DIGEST_DIGITS, TrainingData
from medical_vqa.schema.example_table import ExampleTable
from medical_vqa.schema.prediction_card import PredictionCard, card_path, read_prediction_card
from medical_vqa.schema.records import Example, Prediction, Split, is_prediction, read_jsonl, read_predictions
from medical_vqa.schema.results import NamedRows
from medical_vqa.schema.selection import Selection
from medical_vqa.schema.table_files import read_prediction_table

SHUFFLED = "image-shuffled"
"""Name of a model's own baseline: its answers to the same questions about the images of other rows."""


@dataclass(frozen=True, slots=True)
class AnsweredRows:
    """The rows that a predictions file answers."""

    data: SelectedDataset
    """Dataset and selection of the rows."""
    split: Split
    """Split of the rows."""
    card: PredictionCard | None = None
    """Card of the predictions file; None for a file of another program."""

    def examples(self) -> ExampleTable:
        """The rows, in published order."""
        return self.data.table(self.split)

    def joined(self, predictions: Sequence[Prediction]) -> AnsweredQuestions:
        """The rows with the predictions that answer them."""
        return join(self.examples(), predictions, self.data.selection.where)


def answered_rows(
    predictions: Path,
    selection: Selection | None,
    split: Split | None,
    other: SelectedDataset | None = None,
    where: Mapping[str, str] | None = None,
) -> AnsweredRows:
    """The rows that a predictions file answers.

    Args:
        predictions: The file.
        selection: The rows; None for those in the file's card.
        split: The split; None for that in the file's card.
        where: Facts that the rows of the card must have in addition.
        other: A dataset that is open already, used where it is the same.

    Raises:
        DataError: There is no card and the rows are not named, or the dataset is not prepared.
    """
    card = None
    if selection is not None and split is None and predictions.is_file() and not card_path(predictions).is_file():
        raise DataError(
            f"{predictions}: nothing says which split of {selection.dataset} it answers; add --split (split=) with "
            "train, validation or test"
        )
    if selection is None or split is None or card_path(predictions).is_file():
        card = read_prediction_card(predictions)
        recorded = card.selection.model_copy(update={"where": {**card.selection.where, **(where or {})}})
        selection = selection or recorded
        split = split or card.split
    data = SelectedDataset.open(selection) if other is None else other.reselect(selection)
    return AnsweredRows(data, split, card)


def answered_rows_of_all(
    files: Sequence[Path],
    selection: Selection | None,
    split: Split | None,
    where: Mapping[str, str] | None = None,
) -> list[AnsweredRows]:
    """`answered_rows` of files to be compared: one without a card answers the rows of the first that has one."""
    with_card = [path for path in files if card_path(path).is_file()]
    if selection is None and with_card:
        first = answered_rows(with_card[0], None, split, where=where)
        return [
            answered_rows(path, None, split, first.data, where)
            if path in with_card
            else AnsweredRows(first.data, first.split)
            for path in files
        ]
    rows: list[AnsweredRows] = []
    for path in files:
        rows.append(answered_rows(path, selection, split, rows[0].data if rows else None, where))
    return rows


def is_own_file(predictions: Path, columns: Mapping[str, str] | None) -> bool:
    """Whether a predictions file is in this project's format: it has a card, or rows like those of `predict`."""
    if card_path(predictions).is_file():
        return True
    if columns is not None or not predictions.is_file():
        return columns is None
    if predictions.suffix.lower() != ".jsonl" or not is_utf8(predictions):  # what only the import reads
        return False
    try:
        return is_prediction(next(read_jsonl(predictions), {}))
    except DataError:  # reading it says which line is damaged
        return True


def read_answers(predictions: Path, columns: Mapping[str, str] | None, examples: Sequence[Example]) -> ImportedAnswers:
    """The predictions in a file.

    Args:
        predictions: A file written by `medical-vqa predict`, recognized by its card or its rows, or by another program.
        columns: Columns of another program's file; None to guess them.
        examples: The rows that the file answers.
    """
    if is_own_file(predictions, columns):
        return ImportedAnswers(read_prediction_table(predictions), {})
    return import_answers(predictions, columns, examples)


def require_same_rows(files: Sequence[Path], rows: Sequence[AnsweredRows]) -> None:
    """Raise `DataError` when two prediction files answer different datasets or splits."""
    names = [f"{one.data.selection.dataset} {one.split}" for one in rows]
    for path, name in zip(files[1:], names[1:], strict=True):
        if name != names[0]:
            raise DataError(
                f"{files[0]} answers {names[0]} and {path} answers {name}; compare predictions of the same rows"
            )


def of_another_preparation(rows: AnsweredRows, answered: AnsweredQuestions) -> list[NamedRows]:
    """The scored rows of a file whose dataset was prepared from other rows since; empty where it is the same."""
    card, data = rows.card, rows.data
    if card is None or card.selection.dataset != data.selection.dataset or card.manifest == data.manifest.digest:
        return []
    reason = (
        f"asked of another preparation of {data.selection.dataset}, in which an id may be that of another question; "
        "prepare that source again, or ask the model again"
    )
    return [named_rows(reason, answered.scored.ids)]


def display_names(files: Sequence[Path]) -> list[str]:
    """A short name for each predictions file: its run's folder, or its own name, whichever are distinct."""
    folders = [path.resolve().parent.name for path in files]
    stems = [path.stem for path in files]
    usual = [a if b.startswith("predictions") else b for a, b in zip(folders, stems, strict=True)]
    for names in (usual, folders, stems, [f"{a}/{b}" for a, b in zip(folders, stems, strict=True)]):
        if len(set(names)) == len(files):
            return names
    return [f"{number}: {path}" for number, path in enumerate(files, 1)]


def shuffled_baseline(predictions: Path, rows: AnsweredRows) -> list[Prediction]:
    """The same model's answers about other images, if `predict --shuffle-images` was run; otherwise empty.

    Args:
        predictions: The predictions file; the baseline is next to it, ``shuffled-….jsonl``.
        rows: The rows that it answers; without its card there is no baseline.
    """
    card = rows.card
    shuffled = predictions.with_name(predictions.name.replace("predictions", "shuffled"))
    if card is None or shuffled == predictions or not shuffled.is_file() or not card_path(shuffled).is_file():
        return []
    other = read_prediction_card(shuffled)
    if (card.selection, card.split, card.manifest) != (other.selection, other.split, other.manifest):
        return []
    if (card.model.files, card.model.facts) != (other.model.files, other.model.facts):
        return []
    answers = read_predictions(shuffled)
    complete = set(rows.examples().ids) <= {answer.id for answer in answers}
    return answers if complete else []


def leaked_rows(rows: AnsweredRows) -> LeakedRows | None:
    """The rows whose image a training part shows; None for training rows.

    The saved audit of the dataset names them, near-duplicates included; without one only equal files are known. The
    card says in addition which rows the model itself was trained on.
    """
    if rows.split == "train":
        return None
    audit = rows.data.dataset.audit
    leaks = [leak for leak in audit.leaks if leak.part.partition(" ")[0] == rows.split] if audit else []
    return LeakedRows(
        exact=frozenset(id_ for leak in leaks for id_ in leak.exact) if audit else rows_in_training(rows),
        near=frozenset(id_ for leak in leaks for id_ in leak.near),
        same_group=frozenset(id_ for leak in leaks for id_ in leak.same_group),
        near_duplicates_checked=audit is not None and audit.images_compared,
        trained_on=trained_rows(rows),
    )


def rows_in_training(rows: AnsweredRows) -> frozenset[str]:
    """Ids of the rows whose image is in the published training split, in any language, by content."""
    dataset, selection = rows.data.dataset, rows.data.selection
    held_out_of_training = selection.validation is None and rows.split == "validation"
    if held_out_of_training or "train" not in dataset.splits:
        return frozenset()
    known = {short_digest(rows.data, image) for image in dataset.table("train").image_ids()}
    return _rows_that_show(known, rows)


def short_digest(data: SelectedDataset, image: str) -> str:
    """The digits by which a card names an image."""
    return data.images.digest(image)[:DIGEST_DIGITS]


def _rows_that_show(digests: Set[str], rows: AnsweredRows) -> frozenset[str]:
    """Ids of the rows one of whose images has one of these short digests."""
    examples = rows.examples()
    matching = frozenset(image for image in examples.image_ids() if short_digest(rows.data, image) in digests)
    first = np.flatnonzero(examples.images.per_row(matching.__contains__)).tolist()
    further = (n for n, row in examples.further.items() if not matching.isdisjoint(row.other_image_ids))
    return frozenset(examples.ids[row] for row in (*first, *further))


def trained_rows(rows: AnsweredRows) -> frozenset[str] | None:
    """Ids of the rows whose image the model was trained on, by content; None without a card that says."""
    training = rows.card.model.data if rows.card else None
    known = None if training is None else learned_images(training, rows.data)
    return None if known is None else _rows_that_show(known, rows)


def learned_images(training: TrainingData, data: SelectedDataset) -> frozenset[str] | None:
    """Short digests of all images behind a model's answers: of its training rows, and of the models it started from.

    The card lists them; the rows of an older one are looked up in the prepared datasets.

    Args:
        training: What the card says of the training rows.
        data: A dataset that is open already; rows of that name whose folder the card does not give are looked up there.

    Returns:
        The first `DIGEST_DIGITS` digits of each image's SHA-256; None where not one of the datasets is prepared here.
    """
    if training.image_digests:
        return frozenset(training.image_digests)
    known: set[str] = set()
    opened = False
    for selection in training.learned:
        here = selection.root is None and selection.dataset == data.selection.dataset
        where = selection.model_copy(update={"root": data.selection.root}) if here else selection
        try:
            learned = data.reselect(where)
            known.update(short_digest(learned, image) for image in learned.table("train").image_ids())
        except (DataError, ConfigError):
            continue
        opened = True
    return frozenset(known) if opened else None

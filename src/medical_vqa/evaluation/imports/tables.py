"""Predictions of other programs: a table whose columns are named by ``--map`` or guessed, joined to a dataset.

``--map id=question_id,answer=text`` reads the id and the answer from these columns. Without an id, the image and the
question identify the row (``image=img_name,question=question,answer=pred``), or the question and the reference, or the
order of the rows (``position=#,answer=pred``). A dot selects within nested objects (``answer=output.text``), a number
within lists (``answer=choices.0.message.content``). What else is named, or can be guessed, must agree with the join.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medical_vqa.data.formats.table_files import Row, columns_of, table_rows
from medical_vqa.data.formats.values import MISSING, as_confidence, as_id, as_judgement, as_text, lookup
from medical_vqa.errors import DataError
from medical_vqa.evaluation.imports.columns import ROW_ORDER, check_map, guess_map
from medical_vqa.evaluation.imports.matching import FileRow, image_name, interchangeable, match_rows
from medical_vqa.evaluation.imports.tools import join_tool_file, read_tool_file
from medical_vqa.evaluation.joining import named_rows
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.schema.results import NamedRows
from medical_vqa.text import whole_characters

_INTERCHANGEABLE = (
    "joined by a question and reference that several images have, in another order than that of the split: answers may "
    "be about each other's image, so breakdowns may be wrong and comparisons leave them out; name the column of the "
    "image or the id"
)


_USELESS_CONFIDENCE = "confidence that is no number from 0 to 1, such as one in per cent, and is ignored"
_USELESS_JUDGMENT = "judgment that is neither right nor wrong (yes, no, 1, 0, correct ...), and is ignored"
_ALL_EQUAL = (
    "answer that is its reference to the letter, as all of this file are: name the column of the model's answers with "
    "--map if this one holds the references"
)
_ANSWERED_AGAIN = (
    "question that the file answers several times, in trials, epochs, filters or repeats: the first answer is read, "
    "and the others are not"
)
_FEWEST_EQUAL = 20  # of fewer answers all may be right
_NOT_STATED = ("", "nan", "none", "null", "n/a", "na")
"""How programs write that a row has no confidence, or no judgment."""


@dataclass(frozen=True, slots=True)
class ImportedAnswers:
    """The answers of another program's file, under the ids of the examples they answer."""

    predictions: Sequence[Prediction]
    """One prediction per row and example; a row that matches none has an id of its own, so that scoring names it."""
    columns: Mapping[str, str]
    """Field -> column from which it was read."""
    failed: tuple[str, ...] = ()
    """Ids of rows without an answer, such as failed requests of a batch."""
    guessed: bool = False
    """Whether the columns were guessed from their names."""
    tool: str = ""
    """Name of the tool whose file it is; empty for any other table."""
    without_confidence: tuple[str, ...] = ()
    """Ids of examples whose confidence in the file is no number from 0 to 1, and is ignored."""
    without_judgment: tuple[str, ...] = ()
    """Ids of examples whose judgment in the file is neither right nor wrong, and is ignored."""
    references: tuple[str, ...] = ()
    """Ids of all examples where the guessed column of answers holds exactly their references; otherwise empty."""
    interchangeable: frozenset[str] = frozenset()
    """Ids of examples whose answers may be those of each other: see `matching.interchangeable`."""
    answered_again: tuple[str, ...] = ()
    """Ids of examples that the tool answered several times (trials, epochs, filters), of which the first is read."""

    @property
    def warnings(self) -> list[NamedRows]:
        """The rows without an answer or with a useless confidence, and answers that may be about each other's image."""
        reasons = {
            "row of the file without an answer, such as a failed request": self.failed,
            _USELESS_CONFIDENCE: self.without_confidence,
            _USELESS_JUDGMENT: self.without_judgment,
            _ALL_EQUAL: self.references,
            _INTERCHANGEABLE: sorted(self.interchangeable),
            _ANSWERED_AGAIN: self.answered_again,
        }
        return [named_rows(reason, ids) for reason, ids in reasons.items() if ids]

    @property
    def paired(self) -> list[Prediction]:
        """The predictions that can be compared with another model's by question: without interchangeable ones."""
        return [prediction for prediction in self.predictions if prediction.id not in self.interchangeable]

    @property
    def guess(self) -> str:
        """A sentence on the columns that were guessed; empty where none were."""
        if not self.guessed:
            return ""
        columns = ",".join(f"{name}={column}" for name, column in self.columns.items())
        return f"columns guessed from their names: --map {columns}"


def read_mapped(path: Path, mapping: Mapping[str, str], examples: Sequence[Example]) -> list[Prediction]:
    """The predictions of `import_answers`."""
    return list(import_answers(path, mapping, examples).predictions)


def import_answers(path: Path, mapping: Mapping[str, str] | None, examples: Sequence[Example]) -> ImportedAnswers:
    """Predictions of a table, under the ids of the examples they answer.

    An empty answer is an answer; a row without one is not. A confidence that is no number in [0, 1] is ignored.

    Args:
        path: The file.
        mapping: Field -> column, as `parse_map` returns it; None to recognize the file of a tool (`imports.tools`), or
            else to guess it from the names of the columns.
        examples: The rows that the file answers.

    Raises:
        DataError: The file cannot be read, lacks a mapped column, or contradicts the join.
    """
    try:
        return _imported(path, mapping, examples)
    except RecursionError as error:
        raise DataError(f"{path}: holds lists or objects nested too deeply; write answers as text") from error


def _imported(path: Path, mapping: Mapping[str, str] | None, examples: Sequence[Example]) -> ImportedAnswers:
    if mapping is None and path.is_file() and (file := read_tool_file(path)) is not None:
        return joined_answers(path, join_tool_file(path, file, examples), examples, tool=file.tool)
    contents = list(table_rows(path))
    if not contents:
        raise DataError(f"{path}: has no answers; write one row per question")
    columns = check_map(mapping) if mapping is not None else _guessed_map(contents, path)
    return joined_answers(
        path, [FileRow(n, row, columns) for n, row in enumerate(contents, 1)], examples, mapping is None
    )


def _guessed_map(contents: Sequence[Row], path: Path) -> dict[str, str]:
    """The mapping that the names of the columns suggest, without a column of images that have no names."""
    columns = guess_map(columns_of(contents[:100]), path)
    if "image" in columns and all(image_name(lookup(row, columns["image"])) in (MISSING, None) for row in contents):
        columns = {field: column for field, column in columns.items() if field != "image"}
    return columns


def joined_answers(
    path: Path, rows: Sequence[FileRow], examples: Sequence[Example], guessed: bool = False, tool: str = ""
) -> ImportedAnswers:
    """Rows of a file as predictions.

    Args:
        path: The file, for messages.
        rows: Its rows.
        examples: The rows that they answer.
        guessed: Whether the columns were guessed.
        tool: Name of the tool that wrote the file; empty if it is not known.

    Raises:
        DataError: No row has a mapped column, or the file contradicts the join.
    """
    columns = rows[0].columns if rows else {}
    for field in columns:
        if columns[field] != ROW_ORDER and all(row.value(field) is MISSING for row in rows):
            names = ", ".join(columns_of([row.content for row in rows[:100]])) or "none"
            raise DataError(f"{path} row 1: has no {columns[field]!r} for {field}; it has {names}")
    predictions: list[Prediction] = []
    failed: list[str] = []
    without_confidence: list[str] = []
    without_judgment: list[str] = []
    matches = match_rows(path, rows, examples)
    known = {example.id for example in examples}
    for row, matched in zip(rows, matches, strict=True):
        ids = matched or [_own_id(row, known)]
        judged_right = as_judgement(row.value("right"))
        if row.value("answer") is MISSING and judged_right is None:
            failed += ids
            continue
        answer = row.text("answer")
        stated = row.value("confidence")
        confidence = as_confidence(stated)
        if confidence is None and _is_stated(stated):
            without_confidence += ids
        if judged_right is None and _is_stated(row.value("right")):
            without_judgment += ids
        predictions += [Prediction(id_, answer.strip(), answer, confidence, judged_right=judged_right) for id_ in ids]
    if len(without_confidence) > sum(one.confidence is not None for one in predictions):
        # another unit, in which a few numbers are below 1 by chance
        without_confidence += [one.id for one in predictions if one.confidence is not None]
        predictions = [replace(one, confidence=None) for one in predictions]
    answers = {prediction.id: (prediction.answer, prediction.judged_right) for prediction in predictions}
    groups = interchangeable(rows, matches, examples)
    different = frozenset(id_ for group in groups if len(set(map(answers.get, group))) > 1 for id_ in group)
    return ImportedAnswers(
        predictions,
        columns if not tool else {},
        tuple(failed),
        guessed,
        tool,
        tuple(without_confidence),
        tuple(without_judgment),
        _all_equal(predictions, examples) if guessed else (),
        different,
        tuple(id_ for row, ids in zip(rows, matches, strict=True) if row.content.get("answered_again") for id_ in ids)
        if tool
        else (),
    )


def _is_stated(value: object) -> bool:
    return as_text(value).strip().lower() not in _NOT_STATED


def _all_equal(predictions: Sequence[Prediction], examples: Sequence[Example]) -> tuple[str, ...]:
    """Ids of the predictions, if they are many and each is the reference of its example; otherwise empty."""
    reference = {example.id: example.answers[0] for example in examples if example.answers}
    if len(predictions) < _FEWEST_EQUAL or any(one.raw != reference.get(one.id) for one in predictions):
        return ()
    return tuple(one.id for one in predictions)


def _own_id(row: FileRow, known: Collection[str]) -> str:
    """How messages call a row that answers no question of the split, whose ids are `known`."""
    name = _text_of(row)
    return f"row {row.number}: {name}" if name in known else name


def _text_of(row: FileRow) -> str:
    if "id" in row.columns:
        return whole_characters(as_id(row.value("id"))) or f"row {row.number} without an id"
    if "question" in row.columns:
        name = f"{row.text('image')}: {row.text('question')}".removeprefix(": ")
        return name or f"row {row.number}"
    if "position" not in row.columns and row.text("image"):
        return row.text("image")
    return f"row {row.number}"

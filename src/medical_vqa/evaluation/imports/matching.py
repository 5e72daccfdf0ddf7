"""Rows of another program's file joined to the questions of a split, and the join checked against all that is known.

A wrong join gives a plausible score: row numbers read as ids match some ids of every dataset. So whatever else a file
says of a row, its question, its reference or its image, must be what the dataset says of the question it is joined to.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medical_vqa.data.formats.pseudonyms import Pseudonyms
from medical_vqa.data.formats.values import MISSING, as_id, as_text, lookup
from medical_vqa.errors import DataError
from medical_vqa.evaluation.imports.columns import ROW_ORDER, guess_fields
from medical_vqa.schema.records import Example
from medical_vqa.text import squad_normalize, whole_characters

_HASHED = re.compile(r"/[0-9a-f]{16}$")
"""An image of the `folder` format, which is named by a keyed hash of its path."""
_FEWEST_NUMBERS = 3
_MAX_NAMED = 3
_MAX_SHOWN = 80  # characters of a question in a message


@dataclass(frozen=True, slots=True)
class FileRow:
    """One row of a file."""

    number: int
    """Number of the row in its file, from 1."""
    content: Mapping[str, Any]
    """Column -> value."""
    columns: Mapping[str, str]
    """Field -> column."""

    def value(self, field: str) -> Any:
        """The value of a field; `MISSING` where the row has none."""
        column = self.columns.get(field)
        return MISSING if column is None else lookup(self.content, column)

    def text(self, field: str) -> str:
        """The value of a field as text; empty where the row has none, and for an image that has no name."""
        value = self.value(field)
        if field == "image":
            value = image_name(value)
        return whole_characters(as_text(value))


def image_name(value: Any) -> Any:
    """The name of an image that a table holds as ``{"bytes": ..., "path": ...}``; `MISSING` for bytes alone."""
    if isinstance(value, Mapping) and "bytes" in value:
        value = value.get("path") or MISSING
    return MISSING if isinstance(value, bytes) else value


Matches = list[list[str]]
"""The ids of the examples that each row answers; empty where it answers none."""


def match_rows(path: Path, rows: Sequence[FileRow], examples: Sequence[Example]) -> Matches:
    """The ids of the examples that each row of a file answers.

    Args:
        path: The file, for messages.
        rows: Its rows.
        examples: The rows of the split.

    Raises:
        DataError: The file says of a row what is not true of the question that it would be joined to.
    """
    if not rows:
        raise DataError(f"{path}: has no answers; write one row per question")
    columns = rows[0].columns
    if "position" in columns:
        matches = _by_position(path, rows, examples)
    elif "id" in columns:
        matches = _by_id(rows, examples)
    elif "image" in columns and "question" not in columns:
        matches = _by_image(path, rows, examples)
    elif "image" in columns:
        matches = _by_image_and_question(rows, examples)
    else:
        matches = _by_question(path, rows, examples)
    _check_join(path, rows, matches, examples)
    return matches


def interchangeable(rows: Sequence[FileRow], matches: Matches, examples: Sequence[Example]) -> list[list[str]]:
    """Groups of examples of which it is not known which row of the file answers which.

    They have one question and reference, about several images, and the rows that have both are as many, but not in the
    order of the split.

    Args:
        rows: The rows of a file.
        matches: The ids of the examples that each row answers.
        examples: The rows of the split.
    """
    if not rows or {"id", "image", "position"} & rows[0].columns.keys():
        return []
    position = {example.id: number for number, example in enumerate(examples)}
    joined = [(row, position[ids[0]], ids[0]) for row, ids in zip(rows, matches, strict=True) if ids]
    if all(before < after for (_, before, _), (_, after, _) in itertools.pairwise(joined)):
        return []
    groups: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for row, _, id_ in joined:
        groups[squad_normalize(row.text("question")), squad_normalize(row.text("reference"))].append(id_)
    return [group for group in groups.values() if len(group) > 1]


def image_names(image: str) -> list[str]:
    """The names of an image, the most specific first: ``a/xmlab1/source.jpg``, ``a/xmlab1/source``, ``xmlab1`` ..."""
    parts = image.replace("\\", "/").strip("/").split("/")
    names: list[str] = []
    for start in range(len(parts)):
        name = "/".join(parts[start:])
        names += [name, name.rsplit(".", 1)[0]]
        if start == len(parts) - 1:
            names[-2:-2] = parts[-2:-1]  # the folder of xmlab1/source.jpg identifies the image, source.jpg does not
    return list(dict.fromkeys(names))


# --- joins ------------------------------------------------------------------------------------------------------------


def _by_position(path: Path, rows: Sequence[FileRow], examples: Sequence[Example]) -> Matches:
    if rows[0].columns["position"] == ROW_ORDER:
        if len(rows) != len(examples):
            raise DataError(
                f"{path}: has {len(rows):,} rows and the split {len(examples):,}; rows are joined by their order only "
                "if there is one for every question: name a column of row numbers, such as position=index, or the ids"
            )
        return [[example.id] for example in examples]
    numbers = [as_id(row.value("position")) for row in rows]
    last = str(len(examples))
    columns = [*rows[0].columns, *guess_fields(list(dict.fromkeys(column for row in rows for column in row.content)))]
    if "0" not in numbers and last not in numbers and not {"question", "reference"} & set(columns):
        raise DataError(
            f"{path}: its row numbers have neither 0 nor {last}, so that the first of the {last} questions may be 0 or "
            "1; name a column of ids, or of questions, which shows it: --map position=...,question=...,answer=..."
        )
    base = 0 if "0" in numbers or last not in numbers else 1
    places = [int(number) - base if number.isdigit() else -1 for number in numbers]
    return [[examples[place].id] if 0 <= place < len(examples) else [] for place in places]


def _by_id(rows: Sequence[FileRow], examples: Sequence[Example]) -> Matches:
    """By full ids, their last part or the dataset's own question id."""
    ids: defaultdict[str, list[str]] = defaultdict(list)
    for example in examples:
        for name in {example.id, example.id.rpartition("/")[2], example.facts.get("qid", example.id)}:
            ids[name].append(example.id)
    unique = {name: places for name, places in ids.items() if len(places) == 1}
    unique |= {example.id: [example.id] for example in examples}
    numbers: defaultdict[str, set[str]] = defaultdict(set)
    for name in ids:
        numbers[_without_zeros(name)].update(ids[name])

    def named(name: str) -> list[str]:
        if name in ids or name in unique:
            return unique.get(name, [])
        same_number = numbers.get(_without_zeros(name), set()) if name.isdigit() else set()
        return list(same_number) if len(same_number) == 1 else []

    return [named(as_id(row.value("id"))) for row in rows]


def _without_zeros(name: str) -> str:
    """A number without the zeros before it, which programs that read ids as numbers lose: ``007`` is ``7``."""
    return (name.lstrip("0") or "0") if name.isdigit() else name


class _Images:
    """The images of a split by any of their names."""

    def __init__(self, image_ids: Iterable[str]) -> None:
        self._ids: defaultdict[str, set[str]] = defaultdict(set)
        hashed = False
        for image_id in image_ids:
            hashed = hashed or bool(_HASHED.search(image_id))
            for name in image_names(image_id):
                self._ids[name].add(image_id)
                self._ids[_without_zeros(name)].add(image_id)
        self._pseudonyms = Pseudonyms.local() if hashed else None

    def named(self, text: str) -> Iterator[str]:
        """The images that a text may name, by the most specific name first; names of several images name none."""
        names = image_names(text)
        names += [self._pseudonyms.of("image", name) for name in names] if self._pseudonyms else []
        names += [_without_zeros(name) for name in names if name.isdigit()]
        for name in names:
            candidates = self._ids.get(name, set())
            if len(candidates) == 1:
                yield from candidates


def _by_image(path: Path, rows: Sequence[FileRow], examples: Sequence[Example]) -> Matches:
    """By the image alone, where each is asked about once, as in VQA-Med 2020 and 2021."""
    by_image: defaultdict[str, list[str]] = defaultdict(list)
    for example in examples:
        by_image[example.image_id].append(example.id)
    images = _Images(by_image)
    matches: Matches = []
    for row in rows:
        image_id = next(images.named(row.text("image")), None)
        ids = by_image[image_id] if image_id is not None else []
        if len(ids) > 1:
            raise DataError(
                f"{path} row {row.number}: the image {row.text('image')!r} has {len(ids):,} questions; name the column "
                "of the question too, such as --map image=image,question=question,answer=answer"
            )
        matches.append(ids)
    return matches


def _by_image_and_question(rows: Sequence[FileRow], examples: Sequence[Example]) -> Matches:
    by_image: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for example in examples:
        by_image[example.image_id][squad_normalize(example.question)].append(example.id)
    images = _Images(by_image)

    def key(row: FileRow) -> tuple[str, str] | None:
        question = squad_normalize(row.text("question"))
        for image_id in images.named(row.text("image")):
            known = by_image[image_id]
            if question in known:
                return image_id, question
            inside = sorted((one for one in known if f" {one} " in f" {question} "), key=len)
            if inside:  # the text is a prompt that has the question in it
                return image_id, inside[-1]
        return None

    return _in_order(rows, [key(row) for row in rows], lambda place: by_image[place[0]][place[1]])


def _by_question(path: Path, rows: Sequence[FileRow], examples: Sequence[Example]) -> Matches:
    """By the question, and the reference where it is known.

    Many images have the same question and the same reference. Where one of the two sequences is a part of the other,
    the rows are taken in that order; otherwise a question is joined only if the file has it as often as the split.

    Raises:
        DataError: Not half of what could be joined was.
    """
    has_reference = "reference" in rows[0].columns

    def key(question: str, reference: str) -> tuple[str, str]:
        return squad_normalize(question), squad_normalize(reference) if has_reference else ""

    in_split = [key(example.question, example.answers[0] if example.answers else "") for example in examples]
    in_file = [key(row.text("question"), row.text("reference")) for row in rows]
    in_order = has_reference or len(rows) == len(examples)  # a few questions alone may agree by chance
    if in_order and (start := _only_start(in_file, in_split)) is not None:
        return [[example.id] for example in examples[start : start + len(rows)]]
    if in_order and (start := _only_start(in_split, in_file)) is not None:
        inside = range(start, start + len(examples))
        return [[examples[place - start].id] if place in inside else [] for place in range(len(rows))]
    ids: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for example, place in zip(examples, in_split, strict=True):
        ids[place].append(example.id)
    counts = Counter(in_file)
    is_clear = {place: len(ids[place]) == n and (has_reference or n == 1) for place, n in counts.items()}
    matches = _in_order(rows, [place if is_clear[place] else None for place in in_file], lambda place: ids[place])
    _require_half(path, rows, examples, matches, has_reference)
    return matches


def _require_half(
    path: Path, rows: Sequence[FileRow], examples: Sequence[Example], matches: Matches, has_reference: bool
) -> None:
    joined = sum(bool(ids) for ids in matches)
    if 2 * joined >= min(len(rows), len(examples)):
        return
    first = next(row for row, ids in zip(rows, matches, strict=True) if not ids)
    raise DataError(
        f"{path}: only {joined:,} of {len(rows):,} rows can be joined by their question"
        f"{' and reference' if has_reference else ''}: a row must have one that the split has, and as often; row "
        f"{first.number} asks {_short(first.text('question'))!r}. Name the split that they answer, or a column of ids "
        "or images, such as --map id=question_id,answer=text"
    )


def _only_start(part: Sequence[tuple[str, str]], sequence: Sequence[tuple[str, str]]) -> int | None:
    """Where a sequence begins in another; None where it does not occur, or several times."""
    only: int | None = None
    for start in range(len(sequence) - len(part) + 1) if part else ():
        ends_agree = sequence[start] == part[0] and sequence[start + len(part) - 1] == part[-1]
        if ends_agree and _occurs(part, sequence, start):
            if only is not None:  # further ones, of which there may be very many, change nothing
                return None
            only = start
    return only


def _occurs(part: Sequence[tuple[str, str]], sequence: Sequence[tuple[str, str]], start: int) -> bool:
    return all(sequence[start + offset] == one for offset, one in enumerate(part))


def _short(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _in_order(
    rows: Sequence[FileRow],
    keys: Sequence[tuple[str, str] | None],
    ids_of: Callable[[tuple[str, str]], Sequence[str]],
) -> Matches:
    """Rows of one key in their order: one row answers all examples of its key, as many as there are one each."""
    counts = Counter(keys)
    counted: Counter[tuple[str, str]] = Counter()
    matches: Matches = []
    for _, key in zip(rows, keys, strict=True):
        ids = list(ids_of(key)) if key is not None else []
        if key is not None and len(ids) == counts[key] > 1:
            ids = [ids[counted[key]]]
            counted[key] += 1
        matches.append(ids)
    return matches


# --- checks -----------------------------------------------------------------------------------------------------------


def _check_join(path: Path, rows: Sequence[FileRow], matches: Matches, examples: Sequence[Example]) -> None:
    """Raise `DataError` where the file says of a row what is not true of the question it is joined to."""
    by_id = {example.id: example for example in examples}
    joined = [(row, by_id[id_]) for row, ids in zip(rows, matches, strict=True) for id_ in ids[:1]]
    if not joined:
        return
    guessed = guess_fields(list(dict.fromkeys(column for row in rows[:100] for column in row.content)))
    checked = False
    for field, agrees in (("question", _same_question), ("reference", _same_reference), ("image", _same_image)):
        column = rows[0].columns.get(field)
        explicit = column is not None
        if column is None and field != "image" and guessed.get(field) not in rows[0].columns.values():
            column = guessed.get(field)
        if column is None or (field == "image" and "id" not in rows[0].columns):
            continue
        name = image_name if field == "image" else (lambda value: value)
        stated = [(row, as_text(name(lookup(row.content, column))), example) for row, example in joined]
        stated = [one for one in stated if one[1].strip()]
        different = [one for one in stated if not agrees(one[1], one[2])]
        if different and (explicit or 2 * len(different) > len(stated)):
            raise DataError(_difference(path, field, column, different[0], len(different), len(stated)))
        checked = checked or bool(stated)
    if not checked and "id" in rows[0].columns and len(joined) < len(rows) and _are_row_numbers(rows):
        raise DataError(
            f"{path}: its ids are the row numbers {as_id(rows[0].value('id'))} to {as_id(rows[-1].value('id'))}, of "
            f"which {len(joined):,} of {len(rows):,} are also ids of this dataset, by chance; join by the order of the "
            "rows with --map position=#,answer=... or by image and question"
        )


def _are_row_numbers(rows: Sequence[FileRow]) -> bool:
    ids = [as_id(row.value("id")) for row in rows]
    start = ids[0]
    return (
        len(ids) >= _FEWEST_NUMBERS
        and start in ("0", "1")
        and ids == [str(number) for number in range(int(start), int(start) + len(ids))]
    )


def _same_question(text: str, example: Example) -> bool:
    example_question, row_question = squad_normalize(example.question), squad_normalize(text)
    padded = f" {example_question} ", f" {row_question} "
    return padded[0] in padded[1] or padded[1] in padded[0]


def _same_reference(text: str, example: Example) -> bool:
    accepted = {squad_normalize(answer) for answer in example.answers}
    return not accepted or squad_normalize(text) in accepted or text.strip() == example.facts.get("choice")


def _same_image(text: str, example: Example) -> bool:
    names, of_example = ({*map(_without_zeros, image_names(name))} for name in (text, example.image_id))
    return bool(names & of_example)


def _difference(
    path: Path, field: str, column: str, first: tuple[FileRow, str, Example], different: int, compared: int
) -> str:
    row, text, example = first
    expected = {
        "question": example.question,
        "reference": example.answers[0] if example.answers else "",
        "image": example.image_id,
    }[field]
    return (
        f"{path} row {row.number}: its {field} ({column}) is {text[:80]!r}, and that of {example.id}, to which it "
        f"would be joined, is {expected[:80]!r} ({different:,} of {compared:,} rows differ); these are not the ids of "
        "this dataset and split: join by image and question, by the question and the reference, or by the order of the "
        "rows with --map position=#,answer=..."
    )

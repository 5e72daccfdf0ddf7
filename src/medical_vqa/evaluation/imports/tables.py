"""Predictions of other programs: a CSV, JSON or JSONL file whose columns are named by ``--map``, joined to a dataset.

``--map id=question_id,answer=text`` reads the id and the answer from these columns; without an id, the image and the
question identify the row: ``--map image=img_name,question=question,answer=pred``. A dot selects within nested objects
(``answer=output.text``), a number within lists (``answer=choices.0.message.content``).
"""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medical_vqa.errors import ConfigError, DataError
from medical_vqa.schema.records import Example, Prediction, read_jsonl
from medical_vqa.text import squad_normalize

FIELDS = ("id", "image", "question", "answer", "confidence")
_MISSING = object()


def parse_map(text: str) -> dict[str, str]:
    """``id=qid,answer=text`` as a mapping; raises `ConfigError` if it does not identify rows and answers."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    mapping = {name.strip(): column.strip() for name, _, column in pairs}
    if unknown := sorted(set(mapping) - set(FIELDS)):
        raise ConfigError(f"--map {unknown[0]!r}: unknown; the names are {', '.join(FIELDS)}")
    if "answer" not in mapping or not ("id" in mapping or {"image", "question"} <= set(mapping)):
        raise ConfigError(
            f"--map {text!r}: expected the columns of the answer and of the id, or of image and question, such as "
            "--map id=question_id,answer=text"
        )
    if empty := [name for name, column in mapping.items() if not column]:
        raise ConfigError(f"--map {empty[0]!r}: name the column it is in, such as {empty[0]}=column")
    return mapping


def read_mapped(path: Path, mapping: Mapping[str, str], examples: Sequence[Example]) -> list[Prediction]:
    """Predictions of a mapped file, under the ids of the examples they answer.

    A row that matches no example has its own id, or its image and question, as the id, so that scoring lists it among
    the excluded rows. An empty answer is an answer. A confidence that is no number in [0, 1] is ignored.

    Args:
        path: The file.
        mapping: Field -> column, as `parse_map` returns it.
        examples: The rows that the file answers.

    Raises:
        DataError: The file cannot be read, or lacks a mapped column.
    """
    by_id, by_content = _by_id(examples), _by_content(examples)
    predictions: list[Prediction] = []
    for number, row in enumerate(_rows(path), 1):
        fields = {name: _lookup(row, column) for name, column in mapping.items()}
        if absent := [name for name in mapping if fields[name] is _MISSING and name != "confidence"]:
            columns = ", ".join(map(str, row)) or "none"
            raise DataError(f"{path} row {number}: has no {mapping[absent[0]]!r} for {absent[0]}; it has {columns}")
        if "id" in fields:
            name = _text(fields["id"]).strip()
            matches = by_id.get(name, [])
            ids = matches if len(matches) == 1 else [name or "(no id)"]
        else:
            image, question = _text(fields["image"]), _text(fields["question"])
            keys = ((name, squad_normalize(question)) for name in image_names(image))
            ids = next((by_content[key] for key in keys if key in by_content), [f"{image}: {question}"])
        answer, confidence = _text(fields["answer"]), _confidence(fields.get("confidence"))
        predictions += [Prediction(id_, answer.strip(), answer, confidence) for id_ in ids]
    return predictions


def image_names(image: str) -> list[str]:
    """The names of an image, the most specific first: ``a/xmlab1/source.jpg``, ``a/xmlab1/source``, ``xmlab1`` ..."""
    folders = image.replace("\\", "/").strip("/").split("/")
    file = folders.pop()
    stem = file.rsplit(".", 1)[0]
    names = ["/".join([*folders, file]), "/".join([*folders, stem]), *folders[-1:], stem]
    return list(dict.fromkeys(names))


def _by_id(examples: Sequence[Example]) -> dict[str, list[str]]:
    """Full ids, their last part and the dataset's own question id, each with the examples it may mean."""
    ids: defaultdict[str, list[str]] = defaultdict(list)
    for example in examples:
        for name in {example.id, example.id.rpartition("/")[2], example.facts.get("qid", example.id)}:
            ids[name].append(example.id)
    return dict(ids)


def _by_content(examples: Sequence[Example]) -> dict[tuple[str, str], list[str]]:
    """(image, normalized question) -> the examples that ask it."""
    ids: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for example in examples:
        for name in {example.image_id, example.image_id.rpartition("/")[2]}:
            ids[name, squad_normalize(example.question)].append(example.id)
    return dict(ids)


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if not path.is_file():
        raise DataError(f"no predictions at {path}; name a CSV, JSON or JSONL file")
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        yield from _csv_rows(path, "\t" if suffix == ".tsv" else ",")
    elif suffix == ".json":
        yield from _json_rows(path)
    elif suffix == ".jsonl":
        yield from read_jsonl(path)
    else:
        raise DataError(f"{path}: expected a file ending in .csv, .tsv, .json or .jsonl; rename it to its format")


def _csv_rows(path: Path, separator: str) -> Iterator[Mapping[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            yield from csv.DictReader(lines, delimiter=separator)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is not CSV in UTF-8 ({error}); save it so") from error


def _json_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """A list of objects; an object that holds one; or an object of id -> answer, whose columns are id and answer."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: is not JSON in UTF-8 ({error}); save it so") from error
    if isinstance(content, dict):
        lists = [
            value for value in content.values() if isinstance(value, list) and value and isinstance(value[0], dict)
        ]
        if len(lists) == 1:
            content = lists[0]
        else:
            content = [
                {"id": key, **value} if isinstance(value, dict) else {"id": key, "answer": value}
                for key, value in content.items()
            ]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise DataError(f"{path}: expected a list of objects, one per prediction; write it so")
    yield from content


def _lookup(row: Any, column: str) -> Any:
    """The value of a column, which may be a path into nested objects; `_MISSING` if there is none."""
    if isinstance(row, Mapping) and column in row:
        return row[column]
    for part in column.split("."):
        if isinstance(row, Mapping) and part in row:
            row = row[part]
        elif isinstance(row, list) and part.isdigit() and int(part) < len(row):
            row = row[int(part)]
        else:
            return _MISSING
    return row


def _text(value: Any) -> str:
    if value is None or value is _MISSING:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _confidence(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and 0 <= number <= 1 else None

"""Other people's predictions: a CSV, JSON or JSONL file whose columns are named by ``--map``, joined to a dataset.

``--map id=question_id,answer=text`` reads the id and the answer from these columns; without an id, the image and the
question find the row: ``--map image=img_name,question=question,answer=pred``. A dot goes into nested objects
(``answer=output.text``), a number into lists (``answer=choices.0.message.content``).
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
    """``id=qid,answer=text`` as a mapping; raises `ConfigError` where it cannot name a row and its answer."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    mapping = {name.strip(): column.strip() for name, _, column in pairs}
    if bad := sorted(set(mapping) - set(FIELDS)):
        raise ConfigError(f"--map {bad[0]!r}: unknown; the names are {', '.join(FIELDS)}")
    if "answer" not in mapping or not ("id" in mapping or {"image", "question"} <= set(mapping)):
        raise ConfigError(
            f"--map {text!r}: expected the columns of the answer and of the id, or of image and question, such as "
            "--map id=question_id,answer=text"
        )
    if empty := [name for name, column in mapping.items() if not column]:
        raise ConfigError(f"--map {empty[0]!r}: name the column it is in, such as {empty[0]}=column")
    return mapping


def read_foreign(path: Path, mapping: Mapping[str, str], examples: Sequence[Example]) -> list[Prediction]:
    """Predictions of a mapped file, under the ids of the examples they answer.

    A row that matches no example keeps a name of its own (its id, or its image and question), so that scoring lists
    it among what was set aside. An empty answer is an answer. A confidence that is no number in [0, 1] is none.

    Raises:
        DataError: The file cannot be read, or lacks a mapped column.
    """
    by_id, by_content = _index_ids(examples), _index_content(examples)
    found: list[Prediction] = []
    for number, row in enumerate(_rows(path), 1):
        given = {name: _lookup(row, column) for name, column in mapping.items()}
        if absent := [name for name in mapping if given[name] is _MISSING and name != "confidence"]:
            known = ", ".join(map(str, row)) or "none"
            raise DataError(f"{path} row {number}: has no {mapping[absent[0]]!r} for {absent[0]}; it has {known}")
        answer, confidence = _text(given["answer"]), _confidence(given.get("confidence"))
        ids = _matches(given, by_id, by_content)
        found += [Prediction(id_, answer.strip(), answer, confidence) for id_ in ids]
    return found


def _matches(
    given: Mapping[str, Any],
    by_id: Mapping[str, list[str]],
    by_content: Mapping[tuple[str, str], list[str]],
) -> list[str]:
    if "id" in given:
        name = _text(given["id"]).strip()
        ids = by_id.get(name, [])
        return ids if len(ids) == 1 else [name or "(no id)"]
    question = _text(given["question"])
    names = image_names(_text(given["image"]))
    found = (by_content.get((name, squad_normalize(question)), []) for name in names)
    return next(filter(None, found), [f"{_text(given['image'])}: {question}"])


def image_names(image: str) -> list[str]:
    """The ways to name an image, the most exact first: ``a/xmlab1/source.jpg``, ``a/xmlab1/source``, ``xmlab1`` ..."""
    parts = image.replace("\\", "/").strip("/").split("/")
    stem = parts[-1].rsplit(".", 1)[0]
    return list(
        dict.fromkeys(["/".join(parts), "/".join([*parts[:-1], stem]), *([parts[-2]] if parts[1:] else []), stem])
    )


def _index_ids(examples: Sequence[Example]) -> dict[str, list[str]]:
    """Full ids, their last part and the dataset's own question id, each with the examples it may mean."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for example in examples:
        names = {example.id, example.id.rpartition("/")[2], example.facts.get("qid", example.id)}
        for name in names:
            found[name].append(example.id)
    return found


def _index_content(examples: Sequence[Example]) -> dict[tuple[str, str], list[str]]:
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for example in examples:
        for name in {example.image_id, example.image_id.rpartition("/")[2]}:
            found[name, squad_normalize(example.question)].append(example.id)
    return found


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if not path.is_file():
        raise DataError(f"no predictions at {path}; name a CSV, JSON or JSONL file")
    kind = path.suffix.lower()
    if kind in (".csv", ".tsv"):
        yield from _csv_rows(path, "\t" if kind == ".tsv" else ",")
    elif kind == ".json":
        yield from _json_rows(path)
    elif kind == ".jsonl":
        yield from read_jsonl(path)
    else:
        raise DataError(f"{path}: expected a file ending in .csv, .tsv, .json or .jsonl; rename it to what it is")


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

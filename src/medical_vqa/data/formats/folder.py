"""Your own data: ``questions.csv``, ``questions.jsonl`` or ``questions.parquet`` in a folder with the images.

One row of ``questions.jsonl``::

    {"image": "chest/001.png", "question": "Is there a fracture?", "answer": "no", "split": "train",
     "group": "patient-7", "modality": "X-Ray"}

Columns, whatever their capitals:

* ``image``: path in the folder. Of a DICOM file or a NIfTI volume the frame that `medical-vqa ask` would use is
  prepared, as PNG without anything of the header.
* ``question``.
* ``answer``: text. In JSON lines and parquet also a list of accepted answers, best first. Only rows of the test split
  may be without one.
* ``split`` (optional): train, validation (also val, valid, dev) or test. Without this column every row is train.
* ``group`` (optional): unit that must not be divided among splits, usually the patient; the image without it.
* ``id`` (optional): the question's id; without it the folder's name, the split and the row's number.
* every other column is a fact, a key for breakdowns; an empty cell means that the row has no such fact.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from medical_vqa.data.formats.base import DatasetCard, Published
from medical_vqa.data.formats.rows import relative_name, require_unique
from medical_vqa.data.imaging.decode import raster_bytes
from medical_vqa.errors import DataError, MissingDependencyError
from medical_vqa.schema.records import Example, Split
from medical_vqa.text import nearest

CARD = DatasetCard(
    name="folder",
    title="a folder of questions and images",
    license="not stated: whatever its owner has agreed to",
    citation="none given",
    homepage="the folder itself",
)

_REQUIRED = ("image", "question")
_COLUMNS = ("image", "question", "answer", "split", "group", "id")
_SPLITS: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
}
_MEDICAL = (".dcm", ".dicom", ".nii", ".gz")
_Row = dict[str, Any]


class Folder:
    """The ``folder`` format."""

    card = CARD

    def read(self, source: Path) -> Published:
        """Parse the folder; raises `DataError` with file and row where a row is not as described above."""
        path = _questions_file(source)
        name = source.resolve().name
        paths: dict[str, str] = {}
        examples: dict[Split, list[Example]] = {}
        places: dict[str, str] = {}
        for number, row in enumerate(_READERS[path.suffix](path), 1):
            place = f"{path.name} row {number}"
            split, example = _example(row, name, number, place)
            require_unique(places, example.id, place, "id")
            paths[example.image_id] = relative_name(_text(row, "image", place), place)
            examples.setdefault(split, []).append(example)
        return Published(
            examples=examples,
            image_names={
                image_id: f"{path}.png" if Path(path).suffix.lower() in _MEDICAL else path
                for image_id, path in paths.items()
            },
            read_image=lambda image_id: raster_bytes(source / paths[image_id]),
        )

    def bundled(self) -> Path | None:
        """None: it does not ship with the package."""
        return None


def _questions_file(source: Path) -> Path:
    paths = [source / f"questions{ending}" for ending in _READERS if (source / f"questions{ending}").is_file()]
    if len(paths) == 1:
        return paths[0]
    if paths:
        raise DataError(f"{source} has both {paths[0].name} and {paths[1].name}; keep one of them")
    raise DataError(
        f"{source}: expected questions.csv, questions.jsonl or questions.parquet, but none is there; "
        f"write one with the columns image, question and answer"
    )


def _example(row: _Row, name: str, number: int, place: str) -> tuple[Split, Example]:
    for column in _REQUIRED:
        if column not in row:
            raise DataError(
                f"{place}: there is no column {column!r}{_similar(column, row)}; the columns needed are "
                "image, question and answer"
            )
    split = _split(row, place)
    facts = {key: _optional(row, key, place) for key in row if key not in _COLUMNS}
    image_id = f"{name}/{relative_name(_text(row, 'image', place), place)}"
    return split, Example(
        id=_optional(row, "id", place) or f"{name}/{split}/{number}",
        image_id=image_id,
        question=_text(row, "question", place),
        answers=_answers(row, split, place),
        group=_optional(row, "group", place) or image_id,
        facts={key: value for key, value in facts.items() if value},
    )


def _similar(column: str, row: _Row) -> str:
    """`` (there is 'imge')`` where an existing column is similar to the missing one, otherwise nothing."""
    similar = nearest(column, row)
    return f" (there is {similar!r})" if similar else ""


def _split(row: _Row, place: str) -> Split:
    if "split" not in row:
        return "train"
    split = _text(row, "split", place).strip().casefold()
    if split not in _SPLITS:
        raise DataError(f"{place}: split is {split!r}; write train, validation or test")
    return _SPLITS[split]


def _answers(row: _Row, split: Split, place: str) -> tuple[str, ...]:
    cell = row.get("answer")
    texts = [_as_text(value, "answer", place) for value in (cell if isinstance(cell, list) else [cell])]
    answers = tuple(text for text in texts if text.strip())
    if answers or split == "test":
        return answers
    if "answer" not in row:
        raise DataError(f"{place}: there is no column 'answer'{_similar('answer', row)}; only test rows may lack one")
    raise DataError(f"{place}: the answer is empty; fill it in, take the row out, or mark it as a test row")


def _text(row: _Row, column: str, place: str) -> str:
    value = _as_text(row[column], column, place)
    if not value.strip():
        raise DataError(f"{place}: {column} is empty; fill it in or take the row out")
    return value


def _optional(row: _Row, column: str, place: str) -> str:
    return _as_text(row.get(column), column, place).strip()


def _as_text(value: Any, column: str, place: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):  # empty cells of tables
        return ""
    if isinstance(value, str | int | float):
        return str(value)
    raise DataError(f"{place}: {column} is {type(value).__name__}, expected text or a number; write it as text")


def _read_csv(path: Path) -> Iterable[_Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            header = _column_names(next(lines, []), path)
            for number, cells in enumerate((cells for cells in lines if cells), 1):
                if len(cells) != len(header):
                    raise DataError(
                        f"{path.name} row {number}: has {len(cells)} cells, the header has {len(header)}; "
                        f"put cells that contain a comma in double quotes"
                    )
                yield dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}: is not proper CSV ({error}); export it again with double quotes") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def _read_jsonl(path: Path) -> Iterable[_Row]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: is not JSON ({error.msg}); write one object per line") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: expected an object, got {type(row).__name__}; write one per line")
        yield dict(zip(_column_names(list(row), path), row.values(), strict=True))


def _read_parquet(path: Path) -> Iterable[_Row]:
    try:
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: reading parquet needs pyarrow, which is not installed; run: pip install 'medical-vqa[parquet]'"
        ) from error
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is not a complete parquet file ({error}); write it again") from error
    names = _column_names(table.column_names, path)
    return [dict(zip(names, row.values(), strict=True)) for row in table.to_pylist()]


def _column_names(header: list[str], path: Path) -> list[str]:
    names = [name.strip().casefold() for name in header]
    duplicates = [name for name in names if names.count(name) > 1]
    if duplicates:
        raise DataError(f"{path}: column {duplicates[0]!r} occurs twice; rename one of them")
    return names


_READERS: Mapping[str, Callable[[Path], Iterable[_Row]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}

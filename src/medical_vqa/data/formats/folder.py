"""Your own data: ``questions.csv``, ``questions.jsonl`` or ``questions.parquet`` in a folder with the images.

One row of ``questions.jsonl``::

    {"image": "chest/001.png", "question": "Is there a fracture?", "answer": "no", "split": "train",
     "group": "patient-7", "modality": "X-Ray"}

Columns, whatever their capitals:

* ``image``: path in the folder. What is prepared is the picture alone, without header, EXIF data, text or its path:
  JPEG and PNG as they are otherwise, everything else as PNG.
* ``frame`` (optional): frame, slice or page of the image, from 0; without it the one that `medical-vqa ask` uses.
* ``window`` (optional): center and width of the values to show: ``40 400``; without it that of the header.
* ``question``.
* ``answer``: text. In JSON lines and parquet also a list of accepted answers, best first. Only rows of the test split
  may be without one.
* ``split`` (optional): train, validation (also val, valid, dev) or test. Without this column every row is train.
* ``group`` (optional): unit that must not be divided among splits, usually the patient. Without it the patient of a
  DICOM file, under a keyed hash; the file where nothing says.
* ``id`` (optional): the question's id; without it the folder's name, the split and the row's number.
* ``image_id`` (optional): the image's name in the prepared dataset; without it a keyed hash of its path.
* every other column is a fact, a key for breakdowns; an empty cell means that the row has no such fact. Of a DICOM file
  ``modality``, ``body_part``, ``view`` and ``plane`` are facts too.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medical_vqa.data.formats.base import DatasetCard, Published
from medical_vqa.data.formats.pseudonyms import Pseudonyms
from medical_vqa.data.formats.rows import relative_name, require_unique
from medical_vqa.data.formats.table_files import json_objects
from medical_vqa.data.formats.values import as_id, as_text
from medical_vqa.data.imaging.decode import LOCAL_LIMITS, check_window
from medical_vqa.data.imaging.raster import read_image_file
from medical_vqa.data.imaging.recognition import is_dicom
from medical_vqa.data.imaging.stripping import stripped
from medical_vqa.errors import DataError, ImageError, MissingDependencyError
from medical_vqa.io import json_type
from medical_vqa.schema.records import Example, Split
from medical_vqa.text import nearest, one_line

CARD = DatasetCard(
    name="folder",
    title="a folder of questions and images",
    license="not stated; ask the owner of the data",
    citation="none given",
    homepage="the folder itself",
)

_REQUIRED = ("image", "question")
_COLUMNS = ("image", "question", "answer", "split", "group", "id", "frame", "window", "image_id")
_SPLITS: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
}
_Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _View:
    """The picture that a row is about."""

    path: str
    frame: int | None
    window: tuple[float, float] | None

    @property
    def key(self) -> tuple[str, ...]:
        """The parts of its keyed hash."""
        options = [] if self.frame is None and self.window is None else [str(self.frame), str(self.window)]
        return ("image", self.path, *options)


class Folder:
    """The ``folder`` format."""

    card = CARD

    def read(self, source: Path) -> Published:
        """Parse the folder; raises `DataError` with file and row where a row is not as described above."""
        path = _questions_file(source)
        names = _Names(source)
        views: dict[str, _View] = {}
        examples: dict[Split, list[Example]] = {}
        places: dict[str, str] = {}
        for number, row in enumerate(_READERS[path.suffix](path), 1):
            place = f"{path.name} row {number}"
            view, split, example = _example(row, names, number, place)
            require_unique(places, example.id, place, "id")
            if views.setdefault(example.image_id, view) != view:
                raise DataError(f"{place}: image_id {example.image_id!r} is that of another picture; choose another")
            examples.setdefault(split, []).append(example)

        def read_image(image_id: str) -> bytes:
            view = views[image_id]
            file = source / view.path
            try:
                data = read_image_file(file)
            except ImageError as error:
                if not (archives := sorted(source.glob("*.zip"))):
                    raise
                reason = str(error).rpartition(";")[0]
                raise ImageError(f"{reason}; unpack {archives[0].name} there, or correct its path") from error
            return stripped(data, str(file), frame=view.frame, window=view.window)

        return Published(
            examples=examples,
            image_names={image_id: view.path for image_id, view in views.items()},
            read_image=read_image,
        )

    def bundled(self) -> Path | None:
        """None: it does not ship with the package."""
        return None


class _Names:
    """Names of images and groups that hold no path and no identifier of a patient; each file is read once."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.folder = source.resolve().name
        self.pseudonyms = Pseudonyms.local()
        self._facts: dict[tuple[str, int | None], tuple[dict[str, str], str]] = {}

    def facts_and_group(self, view: _View) -> tuple[dict[str, str], str]:
        """Facts of the header, and the group of the patient, else of the file."""
        key = (view.path, view.frame)
        if key not in self._facts:
            self._facts[key] = self._read(view)
        return self._facts[key]

    def _read(self, view: _View) -> tuple[dict[str, str], str]:
        file_group = f"{self.folder}/{self.pseudonyms.of('image', view.path)}"
        try:
            data = read_image_file(self.source / view.path)
        except ImageError:  # reported where the picture is read
            return {}, file_group
        if not is_dicom(data):
            return {}, file_group
        try:
            from medical_vqa.data.imaging.dicom.facts import read_facts  # noqa: PLC0415 - pydicom is an extra
        except ModuleNotFoundError:
            return {}, file_group
        facts = read_facts(data, LOCAL_LIMITS, view.frame)
        if not facts.identity:
            return facts.terms, file_group
        return facts.terms, f"patient-{self.pseudonyms.of('patient', *facts.identity)}"


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


def _example(row: _Row, names: _Names, number: int, place: str) -> tuple[_View, Split, Example]:
    for column in _REQUIRED:
        if column not in row:
            raise DataError(
                f"{place}: there is no column {column!r}{_similar(column, row)}; the columns needed are "
                "image, question and answer"
            )
    split = _split(row, place)
    path = relative_name(_text(row, "image", place), place)
    view = _View(path, _frame(row, place), _window(row, place))
    facts, group = names.facts_and_group(view)
    columns = {key: _optional(row, key, place) for key in row if key not in _COLUMNS}
    image_id = _optional(row, "image_id", place) or names.pseudonyms.of(*view.key)
    example = Example(
        id=_optional(row, "id", place) or f"{names.folder}/{split}/{number}",
        image_id=f"{names.folder}/{image_id}",
        question=_text(row, "question", place),
        answers=_answers(row, split, place),
        group=_optional(row, "group", place) or group,
        facts=facts | {key: text for key, text in columns.items() if text},
    )
    return view, split, example


def _frame(row: _Row, place: str) -> int | None:
    text = as_id(_optional(row, "frame", place))  # tables store whole numbers with gaps as decimals
    if text and not text.isdecimal():
        raise DataError(f"{place}: frame is {text!r}; write a whole number from 0, or leave it empty")
    return int(text) if text else None


def _window(row: _Row, place: str) -> tuple[float, float] | None:
    cell = row.get("window")
    text = " ".join(map(str, cell)) if isinstance(cell, list) else _optional(row, "window", place)
    if not text:
        return None
    try:
        center, width = (float(part) for part in re.split(r"[\s,;/]+", text.strip()))
        check_window((center, width))
    except (ValueError, ImageError) as error:
        raise DataError(
            f"{place}: window is {text!r}; write a center and a width above 0, such as 40 400, or leave it empty"
        ) from error
    return center, width


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


_NAMES = frozenset({"id", "image", "question", "group", "split"})
"""Columns in which true and false mean nothing; as an answer or a fact they are yes and no."""


def _as_text(value: Any, column: str, place: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):  # empty cells of tables
        return ""
    if isinstance(value, str | int | float) and not (column in _NAMES and isinstance(value, bool)):
        return as_text(value)
    raise DataError(f"{place}: {column} is {json_type(value)}, expected text or a number; write it as text")


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
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _read_jsonl(path: Path) -> Iterable[_Row]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    for row in json_objects(lines, path):
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
        raise DataError(f"{path}: is not a complete parquet file ({one_line(error)}); write it again") from error
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

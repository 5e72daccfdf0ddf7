"""Any table of questions with images: CSV, TSV, semicolons, Excel, JSON lines, hub parquet, a saved `datasets` folder.

One row of hub parquet, whose image is an object of bytes::

    {"image": {"bytes": b"\\x89PNG...", "path": null}, "question": "Is there a fracture?", "answer": "no"}

The columns are guessed from their names, and a note of `prepare` shows the guess; ``--columns image=img,question=q``
names them. The split is a column, or part of a file's name (``test-00000-of-00001.parquet``); otherwise all is train.
Every other column that holds text or numbers is a fact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medical_vqa.data.formats.base import DatasetCard, Published
from medical_vqa.data.formats.building import DatasetBuilder, published_files, row_split, split_of_name
from medical_vqa.data.formats.table_files import is_table, table_rows
from medical_vqa.data.formats.values import answer_text, as_text, listed, name_text, question_text
from medical_vqa.errors import ConfigError, DataError
from medical_vqa.schema.records import Split


def own_card(name: str, title: str) -> DatasetCard:
    """The card of your own data in a layout.

    Args:
        name: Name of the layout.
        title: Its title.
    """
    return DatasetCard(
        name=name,
        title=title,
        license="not stated; ask the owner of the data",
        citation="none given",
        homepage="the folder itself",
    )


FIELDS: Mapping[str, tuple[str, ...]] = {
    "image": ("image", "img", "image_path", "img_path", "image_name", "img_name", "figure_path", "file_name", "images",
              "picture", "path", "image_id", "img_id"),
    "question": ("question", "query", "q", "prompt", "instruction", "question_text"),
    "answer": ("answer", "answers", "a", "gt_answer", "label", "target", "response", "ground_truth"),
    "split": ("split", "subset", "partition", "set"),
    "group": ("group", "patient", "patient_id", "subject", "subject_id", "study_id", "video_id", "case_id"),
    "id": ("id", "qid", "question_id", "index"),
}  # fmt: skip
_MAX_FACT = 200  # characters of a fact; longer texts are no property to compare by


class Table:
    """The ``table`` format.

    Args:
        columns: Field -> column, where the guess is not right.
        card: Card and name of a published dataset in this layout.
    """

    card = own_card("table", "a table of questions and images")

    def __init__(self, columns: Mapping[str, str] | None = None) -> None:
        if unknown := sorted(set(columns or {}) - set(FIELDS)):
            raise ConfigError(f"columns: {unknown[0]!r} is unknown; the names are {', '.join(FIELDS)}")
        self.columns = dict(columns or {})

    def read(self, source: Path) -> Published:
        """Parse the tables of a folder; raises `DataError` with file and row where a row cannot be read."""
        builder = DatasetBuilder(self.card.name, source)
        for path in table_paths(source):
            columns = dict(self.columns)
            names: dict[str, None] = {}
            for place, row in builder.numbered(path, table_rows(path)):
                if not row.keys() <= names.keys():  # rows of JSON may have different columns
                    names.update(dict.fromkeys(row))
                    columns = guess_columns(names, columns)
                self._require(columns, row, place)
                add_row(builder, row, columns, split_of_name(path.name), place)
            if absent := [f"{field}={column}" for field, column in columns.items() if names and column not in names]:
                raise DataError(
                    f"{path.name}: --columns {absent[0]}: there is no such column; it has {', '.join(names)}"
                )
            if names:
                guess = ", ".join(f"{field}={columns[field]}" for field in FIELDS if field in columns)
                builder.notes.append(f"{path.name}: columns {guess}; --columns changes them")
        return builder.published()

    def bundled(self) -> Path | None:
        """None: it does not ship with the package."""
        return None

    def _require(self, columns: Mapping[str, str], row: Mapping[str, Any], place: str) -> None:
        """Raise `DataError` where a row has no image or no question."""
        existing = ", ".join(row) or "none"
        for field in ("image", "question"):
            if field not in columns:
                raise DataError(
                    f"{place}: no column is named like the {field}; it has {existing}: name it with --columns "
                    f"{field}=COLUMN"
                )
            if columns[field] not in row:
                option = f"--columns {field}={columns[field]}: " if field in self.columns else ""
                raise DataError(
                    f"{place}: {option}there is no column {columns[field]!r}; it has {existing}: give every row one"
                )


def table_paths(source: Path) -> list[Path]:
    """The tables of a folder, also in its subfolder ``data`` and those of splits; raises `DataError` without any."""
    paths = [path for path in published_files(source) if is_table(path)]
    paths = [path for path in paths if path.name.lower() not in _NOT_ROWS and path.suffix.lower() != ".txt"]
    if not paths:
        raise DataError(f"{source}: expected a table such as questions.csv, .xlsx, .jsonl or .parquet; put one there")
    return paths


_NOT_ROWS = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json", "manifest.json")


def guess_columns(names_of_columns: Iterable[str], known: Mapping[str, str]) -> dict[str, str]:
    """Field -> column, of the fields that a column is named after.

    Args:
        names_of_columns: Names of the columns.
        known: Field -> column, of the fields whose column is known.
    """
    columns = dict(known)
    by_name = {column.strip().lower().replace(" ", "_"): column for column in names_of_columns}
    for field, names in FIELDS.items():
        if field in columns:
            continue
        free = (by_name[name] for name in names if name in by_name and by_name[name] not in columns.values())
        if (column := next(free, None)) is not None:
            columns[field] = column
    return columns


def add_row(
    builder: DatasetBuilder, row: Mapping[str, Any], columns: Mapping[str, str], split: Split | None, place: str
) -> None:
    """Add a row of a table.

    Args:
        builder: Collects the dataset.
        row: Column -> value.
        columns: Field -> column.
        split: The split that the file's name states; a column of splits has priority.
        place: File and row number.
    """
    answers = listed(row.get(columns.get("answer", "")))
    images = row[columns["image"]]
    builder.add(
        row_split(row.get(columns.get("split", "")), place) or split or "train",
        question_text(row[columns["question"]], place),
        [answer_text(answer, place) for answer in (answers if isinstance(answers, list) else [answers])],
        [builder.image(image, place) for image in (images if isinstance(images, list) else [images])],
        place,
        number=name_text(row.get(columns.get("id", "")), "id", place),
        group=name_text(row.get(columns.get("group", "")), "group", place),
        facts=other_facts(row, set(columns.values())),
    )


def other_facts(row: Mapping[str, Any], used: set[str]) -> dict[str, str]:
    """The other columns that hold short text or numbers."""
    values = {column: value for column, value in row.items() if column not in used}
    texts = {key: as_text(value).strip() for key, value in values.items() if isinstance(value, str | int | float)}
    return {key: text for key, text in texts.items() if text and len(text) <= _MAX_FACT}

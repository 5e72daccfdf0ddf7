"""Rows of a table file, whatever wrote it: CSV, TSV, semicolons, JSON, JSON lines, Excel, parquet, also with gzip.

``table_rows(Path("answers.csv.gz"))`` gives one mapping per row. Text may be UTF-8 or UTF-16, with or without a byte
order mark; the separator of a CSV file is found in its header.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from medical_vqa.data.formats.values import lookup
from medical_vqa.errors import DataError, MissingDependencyError
from medical_vqa.io import describe_read_errors, json_type, json_value
from medical_vqa.text import one_line

ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xlsx", ".parquet", ".arrow", ".txt")
"""Endings of files that `table_rows` reads; each also with ``.gz``."""
_GZIP = b"\x1f\x8b"
"""First bytes of a compressed file, whatever it is called."""
_SEPARATORS = ",;\t|"
_ANSWER_COLUMNS = frozenset({"answer", "prediction", "pred", "response", "output", "text"})
"""Names by which an object of columns differs from an object of rows."""
_ID_COLUMNS = frozenset({"id", "qid", "question_id", "questionid"})
"""Names of columns of ids; in a table with one of them the numbers of its rows are no ids."""
_BATCH = 1024  # rows of parquet that are in memory at once, at most
_BATCH_BYTES = 32 << 20  # of a batch of rows, whose images may have megabytes

csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a cell may hold an image in base64

Row = Mapping[str, Any]


def is_table(path: Path) -> bool:
    """Whether the file's name ends like that of a table."""
    return ending_of(path) in ENDINGS


def table_rows(path: Path) -> Iterator[Row]:
    """The rows of a table file in their order, one mapping of column to value each.

    Raises:
        DataError: There is no such file, its ending is unknown, or it is not in the format of its ending.
        MissingDependencyError: The package that reads Excel or parquet is not installed.
    """
    if not path.is_file():
        raise DataError(f"no file at {path}; name a table such as answers.csv, .jsonl, .xlsx or .parquet")
    with describe_read_errors(path), path.open("rb"):
        ending = ending_of(path)
    if ending == ".parquet":
        yield from _parquet_rows(path)
    elif ending == ".arrow":
        yield from _arrow_rows(path)
    elif ending == ".xlsx":
        yield from _excel_rows(path)
    elif ending in (".csv", ".tsv", ".txt"):
        yield from _csv_rows(path, "\t" if ending == ".tsv" else None)
    elif ending == ".json":
        yield from json_rows(path)
    elif ending in (".jsonl", ".ndjson"):
        yield from _json_lines(path)
    else:
        raise DataError(
            f"{path}: expected a file ending in .csv, .tsv, .json, .jsonl, .xlsx or .parquet (or one of these with "
            ".gz); write it in one of these formats, or rename it to its own"
        )


def json_content(path: Path, *, or_lines: bool = False) -> Any:
    """What a JSON file holds; raises `DataError` where it is not JSON.

    Args:
        path: The file.
        or_lines: Whether it may be JSON lines too, whose objects are returned as a list.
    """
    with open_text(path, "JSON") as file:
        try:
            return json_value(file.read())
        except UnicodeError:  # which is a ValueError too, and is described below
            raise
        except ValueError as error:
            cause = error.__cause__
            line = f":{cause.lineno}" if isinstance(cause, json.JSONDecodeError) else ""
            advice = "get the file again"
            if isinstance(cause, json.JSONDecodeError) and cause.msg == "Extra data" and cause.lineno > 1:
                if or_lines and "\n" not in cause.doc[: cause.pos].strip():
                    return list(json_objects(io.StringIO(cause.doc), path))
                advice = "write one list of all rows, or name a file of JSON lines .jsonl"
            raise DataError(f"{path}{line}: is not JSON ({error}); {advice}") from error


def json_rows(path: Path) -> Iterator[Row]:
    """The rows of a JSON file: a list of objects; an object that holds one, or columns; or an object of id -> answer.

    The columns of the last are ``id`` and ``answer``. All layouts of pandas that name the columns are read; an
    index that is more than row numbers becomes a column.
    """
    content = json_content(path, or_lines=True)
    if isinstance(content, dict) and _is_split(content):
        content = _joined(content, path)
    elif isinstance(content, dict):
        lists = [
            value for value in content.values() if isinstance(value, list) and value and isinstance(value[0], dict)
        ]
        if len(lists) > 1:
            names = " and ".join(key for key, value in content.items() if value in lists)
            raise DataError(f"{path}: holds several lists of rows ({names}); write each into a file of its own")
        if len(lists) == 1:
            index_is_a_column = lookup(content, "schema.primaryKey") == ["index"]  # orient="table" of pandas
            content = lists[0]
            if index_is_a_column and all(isinstance(row, dict) for row in content):
                index = [row.pop("index", None) for row in content]
                content = _with_index(content, index)
        elif content and all(isinstance(value, list) for value in content.values()):
            content = _transposed(content, path)
        elif _is_by_column(content):
            columns = {name: list(column.values()) for name, column in content.items()}
            content = _with_index(_transposed(columns, path), list(next(iter(content.values()))))
        elif _is_by_row_number(content):
            content = list(content.values())
        else:
            content = [
                {"id": key, **value} if isinstance(value, dict) else {"id": key, "answer": value}
                for key, value in content.items()
            ]
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of objects, one per row, got {json_type(content)}; write it so")
    for number, row in enumerate(content, 1):
        if not isinstance(row, dict):
            raise DataError(
                f"{path} row {number}: expected an object, got {json_type(row)}; write one with the names of the "
                'columns per row, as to_json(orient="records") of pandas does'
            )
    yield from content


def columns_of(rows: Sequence[Row]) -> list[str]:
    """The columns that any of the rows has, in order of appearance."""
    return list(dict.fromkeys(str(column) for row in rows for column in row))


def ending_of(path: Path) -> str:
    """The ending of a table file's name in lower case, without ``.gz``."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else (suffixes[-1] if suffixes else "")


def _is_by_column(content: Mapping[str, Any]) -> bool:
    """Whether an object holds a table as pandas writes it: ``{"id": {"0": "q1", "1": "q2"}, "answer": {"0": ...}}``."""
    columns = list(content.values())
    if not columns or not all(isinstance(column, dict) and column for column in columns):
        return False
    index = list(columns[0])
    names_of_answers = _ANSWER_COLUMNS & set(content) and not _ANSWER_COLUMNS & set(index)
    return bool(all(map(str.isdigit, index)) or names_of_answers) and all(list(column) == index for column in columns)


def _is_split(content: Mapping[str, Any]) -> bool:
    """Whether an object holds a table as pandas' orient="split" writes it: ``columns``, ``index`` and ``data``."""
    lists = [content.get(key) for key in ("index", "data", "columns") if key in content]
    return (
        "data" in content
        and len(lists) > 1
        and {"columns", "name"} & content.keys() != set()
        and all(isinstance(one, list) for one in lists)
    )


def _joined(content: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    """Rows of a table or of a single column in the layout of `_is_split`."""
    names = content.get("columns", [content.get("name") or "answer"])
    cells = content["data"] if "columns" in content else [[value] for value in content["data"]]
    for number, row in enumerate(cells, 1):
        if not isinstance(row, list) or len(row) != len(names):
            length = len(row) if isinstance(row, list) else 1
            raise DataError(f"{path} row {number}: has {length} cells for {len(names)} columns; write the file again")
    rows = [dict(zip(map(str, names), row, strict=True)) for row in cells]
    index = content.get("index") or []
    if len(index) not in (0, len(rows)):
        raise DataError(f"{path}: has {len(index):,} entries of the index for {len(rows):,} rows; write the file again")
    return _with_index(rows, index)


def _with_index(rows: list[dict[str, Any]], index: Sequence[Any]) -> list[dict[str, Any]]:
    """The rows with the index of their table, if it holds more than their numbers.

    Its name is ``id`` where no other column says which question a row answers.
    """
    if not rows or [str(entry) for entry in index] in ([], [str(number) for number in range(len(rows))]):
        return rows
    identified = any(name.lower().endswith(("id", "question", "image")) for name in rows[0])
    return [{"index" if identified else "id": entry, **row} for entry, row in zip(index, rows, strict=True)]


def _is_by_row_number(content: Mapping[str, Any]) -> bool:
    """Whether an object holds rows with an id under their numbers: ``{"0": {"question_id": "q1", ...}, "1": ...}``."""
    rows = list(content.values())
    if not all(isinstance(row, dict) for row in rows):
        return False
    if all(map(str.isdigit, content)) and all(_ID_COLUMNS & {str(name).lower() for name in row} for row in rows):
        return True
    has_ids = all(any(str(name).lower().endswith("id") for name in row) for row in rows)
    return has_ids and list(content) == [str(number) for number in range(len(content))]


def _transposed(columns: Mapping[str, Sequence[Any]], path: Path) -> list[dict[str, Any]]:
    """Rows of a table that is stored by column."""
    if len({len(values) for values in columns.values()}) != 1:
        raise DataError(f"{path}: expected columns of equal length; write a list of objects, one per row")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


# --- text -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_text(path: Path, name: str) -> Iterator[IO[str]]:
    """The file as text in the encoding that its first bytes show; `name` is its format, for the message."""
    try:
        with path.open("rb") as file:
            compressed = path.suffix.lower() == ".gz" or file.read(2) == _GZIP
        with gzip.open(path, "rb") if compressed else path.open("rb") as file:
            start = file.read(4)
        encoding = _encoding(start)
        with gzip.open(path, "rb") if compressed else path.open("rb") as file:
            yield io.TextIOWrapper(file, encoding=encoding, newline="")
    except UnicodeError as error:
        raise DataError(
            f"{path}: is not {name} in one encoding, UTF-8 or UTF-16 ({error}); save all of it as UTF-8"
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: cannot be unpacked ({error}); compress it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error


def is_utf8(path: Path) -> bool:
    """Whether a file's first bytes are those of UTF-8, and neither of UTF-16 or UTF-32 nor compressed."""
    with describe_read_errors(path), path.open("rb") as file:
        start = file.read(4)
    return start[:2] != _GZIP and _encoding(start) == "utf-8-sig"


def _encoding(start: bytes) -> str:
    if start in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return "utf-32"
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if len(start) == 4 and start[1] == 0 and start[3] == 0:
        return "utf-16-le"
    if len(start) == 4 and start[0] == 0 and start[2] == 0:
        return "utf-16-be"
    return "utf-8-sig"


def _csv_rows(path: Path, separator: str | None) -> Iterator[Row]:
    with open_text(path, "CSV") as file:
        header = file.readline()
        if not header.strip():
            raise DataError(f"{path}: is empty; expected a header and one row per line")
        file.seek(0)
        if separator is None or separator not in header:
            separator = _separator(header)
        names: list[str] = []
        number = named = 0  # of the last row, and of the last column with a name
        cells: list[str] = []
        last_line = ""

        def remembered(line: str) -> str:
            nonlocal last_line
            last_line = line
            return line

        try:
            for number, cells in enumerate(csv.reader(map(remembered, file), delimiter=separator, strict=True)):
                if number == 0:
                    names = _unique(cells, path)
                    named = max((place for place, cell in enumerate(cells, 1) if cell.strip()), default=0)
                elif cells:
                    cells[0] = cells[0].removeprefix("\ufeff")  # of a file that was appended to another
                    if [cell.strip() for cell in cells] == names and len(cells) > 1:
                        raise DataError(
                            f"{path} row {number}: repeats the header, as where files were joined; remove this line "
                            "and the rows that are there twice"
                        )
                    if len(cells) > len(names):
                        raise DataError(
                            f"{path} row {number}: has {len(cells)} cells, the header has {len(names)}; put cells that "
                            f"contain {separator!r} in double quotes"
                        )
                    yield dict(zip(names, cells, strict=False))
        except csv.Error as error:
            raise DataError(f"{path}: is not proper CSV ({error}); export it again with double quotes") from error
        if number and len(cells) < named and not last_line.endswith(("\n", "\r")):  # Excel omits empty cells at the end
            raise DataError(
                f"{path} row {number}: is cut off after {len(cells)} of {named} cells; get the whole file again"
            )


def _separator(header: str) -> str:
    """The separator that occurs most in the header, outside of quotes."""
    outside = "".join(header.split('"')[::2])
    return max(_SEPARATORS, key=lambda sign: (outside.count(sign), -_SEPARATORS.index(sign)))


def _unique(cells: Sequence[str], path: Path) -> list[str]:
    names = [cell.strip().lstrip("\ufeff") for cell in cells]
    if repeated := [name for name in names if name and names.count(name) > 1]:
        raise DataError(f"{path}: column {repeated[0]!r} occurs twice; rename one of them")
    return [name or f"column {number}" for number, name in enumerate(names, 1)]


def _json_lines(path: Path) -> Iterator[Row]:
    with open_text(path, "JSON lines") as lines:
        holds_a_list = lines.read(1) == "["
        lines.seek(0)
        yield from json_rows(path) if holds_a_list else json_objects(lines, path)


def json_objects(lines: Iterable[str], path: Path) -> Iterator[Row]:
    """The object on each line that is not blank; raises `DataError` with file and line for anything else."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json_value(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: is not JSON ({error}); write one object per line") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: expected an object, got {json_type(row)}; write one per line")
        yield row


# --- binary formats ---------------------------------------------------------------------------------------------------


_EXCEL_ERRORS = (
    zipfile.BadZipFile, zlib.error, EOFError, SyntaxError, LookupError, ValueError, TypeError, AttributeError, OSError,
    NotImplementedError, RuntimeError,
)  # fmt: skip
"""What openpyxl raises for damaged files: those of zip archives, of XML (both parsers' are syntax errors), its own."""


def _excel_rows(path: Path) -> Iterator[Row]:
    """The rows of the first sheet; its first row with something in it has the names."""
    try:
        from openpyxl import load_workbook  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: reading Excel needs openpyxl, which is not installed; run: pip install 'medical-vqa[excel]'"
        ) from error
    try:
        with (
            path.open("rb") as file,  # which openpyxl leaves open where it cannot read it
            contextlib.closing(load_workbook(file, read_only=True, data_only=True)) as workbook,
        ):
            lines = workbook.worksheets[0].iter_rows(values_only=True)
            first = next((cells for cells in lines if any(cell is not None for cell in cells)), ())
            header = ["" if cell is None else str(cell) for cell in first]
            while header and not header[-1].strip():
                header.pop()
            names = _unique(header, path)
            for cells in lines:
                if any(cell is not None for cell in cells):
                    yield dict(zip(names, cells, strict=False))
    except _EXCEL_ERRORS as error:
        raise DataError(f"{path}: is not a complete Excel file ({one_line(error)}); save it again") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    """The rows of a parquet file, read in batches: a file may be larger than the memory."""
    try:
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: reading parquet needs pyarrow, which is not installed; run: pip install 'medical-vqa[parquet]'"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            _unique(file.schema_arrow.names, path)
            for number in range(file.num_row_groups):
                group = file.metadata.row_group(number)
                fitting = _BATCH_BYTES * group.num_rows // max(1, group.total_byte_size)
                for batch in file.iter_batches(max(1, min(_BATCH, fitting)), row_groups=[number]):
                    yield from batch.to_pylist()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is not a complete parquet file ({one_line(error)}); write it again") from error


def _arrow_rows(path: Path) -> Iterator[Row]:
    """The rows of a file of a saved `datasets` folder, read in batches."""
    try:
        import pyarrow as pa  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: reading Arrow needs pyarrow, which is not installed; run: pip install 'medical-vqa[parquet]'"
        ) from error
    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as batches:
            _unique(batches.schema.names, path)
            for batch in batches:
                yield from batch.to_pylist()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is not a complete Arrow file ({one_line(error)}); save the dataset again") from error

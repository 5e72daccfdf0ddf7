"""Files of questions and answers, read into tables by column.

Lines are read some hundred at once into rows of the expected types; where one of them is not as usual, these are read
one by one, which accepts more and names a mistake.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec

from medical_vqa.errors import DataError
from medical_vqa.io import describe_read_errors
from medical_vqa.schema.example_table import ExampleColumns, ExampleTable, fact_key
from medical_vqa.schema.prediction_table import PredictionColumns, PredictionTable
from medical_vqa.schema.records import Example, Prediction, Record, read_record

_BLOCK = 1 << 16  # bytes read at once, and the rest of a line
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class _ExampleLine(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A line of a file of examples without the fields that are rare (further images, turns); its facts as they stand
    there, because they are often those of other lines."""

    id: str
    image_id: str
    question: str
    answers: tuple[str, ...]
    group: str
    facts: msgspec.Raw


class _PredictionLine(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A line of a file of predictions without the fields that are rare."""

    id: str
    answer: str
    raw: str | msgspec.UnsetType = msgspec.UNSET
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    alternatives: tuple[tuple[str, float], ...] = ()


_EXAMPLES = msgspec.json.Decoder(list[_ExampleLine])
_PREDICTIONS = msgspec.json.Decoder(list[_PredictionLine])
_FACTS = msgspec.json.Decoder(dict[str, str])


def read_examples(path: Path) -> ExampleTable:
    """The questions of a file that `write_jsonl` wrote; raises `DataError` as `read_records` does."""
    columns = ExampleColumns()

    def add(rows: Any) -> None:
        columns.facts.extend_encoded([bytes(row.facts) for row in rows], _FACTS.decode, fact_key)
        columns.add_all_but_facts(rows)

    _read(path, _EXAMPLES, add, Example, columns.add)
    return columns.table()


def read_prediction_table(path: Path) -> PredictionTable:
    """All predictions of a file, in its order; raises `DataError` as `read_predictions` does."""
    if not path.is_file():
        raise DataError(f"no predictions at {path}; expected a predictions.jsonl written by `medical-vqa predict`")
    columns = PredictionColumns()

    def add(rows: Any) -> None:
        columns.add_texts(rows, [row.answer if row.raw is msgspec.UNSET else row.raw for row in rows])

    _read(path, _PREDICTIONS, add, Prediction, columns.add)
    table = columns.table()
    if len(set(table.ids)) < len(table):
        ids: set[str] = set()
        for id_ in table.ids:
            if id_ in ids:
                raise DataError(f"{path}: id {id_!r} occurs twice; keep one prediction per question")
            ids.add(id_)
    return table


def _read(
    path: Path,
    decoder: msgspec.json.Decoder[Any],
    add_lines: Callable[[Any], None],
    kind: type[Record],
    add_records: Callable[[list[Record]], None],
) -> None:
    """Read a file block by block: its lines at once where all are as usual, else one by one."""
    number = 0
    for block in _blocks(path):
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        try:
            rows = decoder.decode(b"[" + block.rstrip(b"\n").replace(b"\n", b",") + b"]")
            is_usual = len(rows) == lines
            if is_usual:
                add_lines(rows)
        except ValueError:  # not JSON, or another type or field than is usual
            is_usual = False
        if not is_usual:
            text = io.StringIO(_decoded(block, path, number), newline=None)
            add_records(
                [
                    read_record(line, kind, f"{path}:{position}")
                    for position, line in enumerate(text, number + 1)
                    if not line.isspace()
                ]
            )
        number += lines


def _blocks(path: Path) -> Iterator[bytes]:
    """The complete lines of a file, some at once, without the mark at its beginning."""
    with describe_read_errors(path), path.open("rb") as file:
        mark = file.read(len(_BYTE_ORDER_MARK))
        start = b"" if mark == _BYTE_ORDER_MARK else mark
        while block := start + file.read(_BLOCK):
            yield block if block.endswith(b"\n") else block + file.readline()
            start = b""


def _decoded(block: bytes, path: Path, lines_before: int) -> str:
    """The text of a block; raises `DataError`, with the line, where it is not UTF-8."""
    try:
        return block.decode("utf-8")
    except UnicodeDecodeError as error:
        line = lines_before + block.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}: expected UTF-8, found the byte 0x{block[error.start]:02x}; save the file as "
            "UTF-8, or remove the line if the file was damaged"
        ) from error

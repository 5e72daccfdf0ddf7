"""Files of questions and answers, read into tables by column.

Lines are read some hundred at once into rows of the expected types; where one of them is not as usual, these are read
one by one, which accepts more and names a mistake. The fast reader takes the last value of a key that stands twice in
an object, so the keys of the text are counted too.
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
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)] | msgspec.UnsetType | None = msgspec.UNSET
    alternatives: tuple[tuple[str, float], ...] | msgspec.UnsetType = msgspec.UNSET


_EXAMPLES = msgspec.json.Decoder(list[_ExampleLine])
_PREDICTIONS = msgspec.json.Decoder(list[_PredictionLine])
_FACTS = msgspec.json.Decoder(dict[str, str])
_N_EXAMPLE_KEYS = len(_ExampleLine.__struct_fields__)
_N_PREDICTION_KEYS = len(_PredictionLine.__struct_fields__)


def read_examples(path: Path) -> ExampleTable:
    """The questions of a file that `write_jsonl` wrote; raises `DataError` as `read_records` does."""
    columns = ExampleColumns()

    def add(rows: Any, n_keys: int) -> None:
        facts = [bytes(row.facts) for row in rows]
        _require_keys(n_keys, _N_EXAMPLE_KEYS * len(rows) + _count_keys(b"".join(facts)))
        columns.facts.extend_encoded(facts, _facts, fact_key)
        columns.add_all_but_facts(rows)

    _read(path, _EXAMPLES, add, Example, columns.add)
    return columns.table()


def read_prediction_table(path: Path) -> PredictionTable:
    """All predictions of a file, in its order; raises `DataError` as `read_predictions` does."""
    if not path.is_file():
        raise DataError(f"no predictions at {path}; expected a predictions.jsonl written by `medical-vqa predict`")
    columns = PredictionColumns()

    def add(rows: Any, n_keys: int) -> None:
        answers = [row.answer for row in rows]
        raw = [row.raw for row in rows]
        confidence = [row.confidence for row in rows]
        alternatives = [row.alternatives for row in rows]
        unset = [column.count(msgspec.UNSET) for column in (raw, confidence, alternatives)]
        _require_keys(n_keys, _N_PREDICTION_KEYS * len(rows) - sum(unset))
        if any(unset):
            raw = _filled(raw, answers)
            confidence = _filled(confidence, [None] * len(rows))
            alternatives = _filled(alternatives, [()] * len(rows))
        columns.add_columns([row.id for row in rows], answers, raw, confidence, alternatives)

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
    add_lines: Callable[[Any, int], None],
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
                add_lines(rows, _count_keys(block))
        except ValueError:  # not JSON, or another type or field than is usual, or a key twice
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


def _count_keys(text: bytes) -> int:
    """Number of keys of the objects in a text, by the colons behind them.

    Raises:
        ValueError: A colon after white space, or behind a backslash and a quote, may belong to a key or to a text.
    """
    if any(unclear in text for unclear in (b" :", b"\t:", b"\r:", b'\\\\":')):
        raise ValueError("cannot tell keys from texts")
    return text.count(b'":') - text.count(b'\\":')


def _require_keys(n_keys: int, expected: int) -> None:
    if n_keys != expected:
        raise ValueError("a key may stand twice in one object")


def _facts(text: bytes) -> dict[str, str]:
    facts = _FACTS.decode(text)
    _require_keys(_count_keys(text), len(facts))
    return facts


def _filled(column: list[Any], defaults: list[Any]) -> list[Any]:
    """The column with defaults where the file has no value."""
    return [default if value is msgspec.UNSET else value for value, default in zip(column, defaults, strict=True)]


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

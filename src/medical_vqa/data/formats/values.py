"""Values of files that other programs wrote, as text."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from medical_vqa.errors import DataError
from medical_vqa.io import json_type

MISSING = object()
"""What `lookup` returns where there is no such value."""
_TEXT_KEYS = ("answer", "text", "content", "value", "prediction", "label", "name")


def as_text(value: Any) -> str:
    """A value as a person would write it.

    Lists become their items with commas (an item alone is itself), an object its answer or text, a whole number has no
    decimals, true and false are yes and no, and a missing value is empty.
    """
    text = str(value)
    if value is None or value is MISSING or (isinstance(value, float) and math.isnan(value)):
        text = ""
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        text = str(int(value))
    elif isinstance(value, bytes):  # of a binary column of parquet
        text = value.decode("utf-8", "replace")
    elif isinstance(value, Mapping):
        text = _of_object(value)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        text = ", ".join(as_text(item) for item in value)
    return text


def _of_object(value: Mapping[str, Any]) -> str:
    """The answer or text in an object, or its only value; empty for an empty one, otherwise the object as JSON."""
    known = next((key for key in _TEXT_KEYS if key in value), None)
    if known is not None:
        return as_text(value[known])
    if len(value) < 2:
        return as_text(list(value.values()))
    return json.dumps(value, ensure_ascii=False, default=as_text)  # parquet has values that JSON has not


def question_text(value: Any, place: str) -> str:
    """A question as text, like `as_text`; raises `DataError` with the place for true, false, several texts, an object.

    An object with a text in it, such as ``{"text": "Is it a CT?"}``, is that text.
    """
    several = isinstance(value, list | tuple) and len(value) > 1
    if several or isinstance(value, bool) or _is_object(value):
        raise DataError(f"{place}: expected a question as text, got {json_type(value)}; write it as text")
    return as_text(value)


def answer_text(value: Any, place: str) -> str:
    """An answer as text, like `as_text`; raises `DataError` with the place for an object without a text in it."""
    if _is_object(value):
        kind = "an object" if isinstance(value, Mapping) else "a list of objects"
        raise DataError(f"{place}: expected an answer as text or a number, got {kind} without a text; write it as text")
    return as_text(value)


def name_text(value: Any, what: str, place: str) -> str:
    """An id or the name of a group as text; raises `DataError` with the place for what cannot be one.

    Args:
        value: A text, a number, or None.
        what: What messages call it: ``id``.
        place: File and row number.
    """
    if isinstance(value, bool | Mapping | list | tuple):
        raise DataError(f"{place}: {what} is {json_type(value)}, expected text or a number; write it as text")
    return as_text(value).strip()


def listed(value: Any) -> Any:
    """The items of a list that was written into a cell as text, as ``["yes", "no"]`` by JSON or pandas."""
    if not isinstance(value, str) or not (value.strip().startswith("[") and value.strip().endswith("]")):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            items = read(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(items, list) and all(isinstance(item, str | int | float) for item in items):
            return items
    return value


def _is_object(value: Any) -> bool:
    """Whether a value is an object of which no part is known to be its text, or holds one."""
    if isinstance(value, Mapping):
        key = next((key for key in _TEXT_KEYS if key in value), None)
        texts = [isinstance(one, str) or (isinstance(one, list) and not _is_object(one)) for one in value.values()]
        return _is_object(value[key]) if key is not None else len(value) > 1 or not all(texts)
    return isinstance(value, list | tuple) and any(map(_is_object, value))


def as_id(value: Any) -> str:
    """An id as text; a number that a table stored with decimals has none: ``11934.0`` is ``11934``."""
    text = as_text(value).strip()
    integer, point, decimals = text.partition(".")
    return integer if point and integer.lstrip("-").isdigit() and decimals.strip("0") == "" and decimals else text


def as_confidence(value: Any) -> float | None:
    """A number in [0, 1]; None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and 0 <= number <= 1 else None


def as_judgement(value: Any) -> bool | None:
    """A judgement: true, right, 1 ... or false, wrong, 0 ...; None where it gave none."""
    text = as_text(value).strip().lower()
    if text in ("yes", "true", "right", "correct", "1", "1.0"):
        return True
    return False if text in ("no", "false", "wrong", "incorrect", "0", "0.0") else None


def lookup(row: Any, column: str) -> Any:
    """The value of a column, which may be a path into nested objects; `MISSING` if there is none."""
    if isinstance(row, Mapping) and column in row:
        return row[column]
    for part in column.split("."):
        if isinstance(row, Mapping) and part in row:
            row = row[part]
        elif isinstance(row, list) and part.lstrip("-").isdigit() and -len(row) <= int(part) < len(row):
            row = row[int(part)]
        else:
            return MISSING
    return row

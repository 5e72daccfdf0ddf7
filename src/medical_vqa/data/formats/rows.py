"""Checked reading of published rows: one message for every way in which a file can be wrong."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from medical_vqa.data.formats.table_files import json_content
from medical_vqa.data.formats.values import as_text
from medical_vqa.errors import DataError
from medical_vqa.io import json_type
from medical_vqa.text import nearest


def read_json_rows(path: Path) -> list[Any]:
    """The list in a JSON file; raises `DataError` where the file is not UTF-8, not JSON or not a list."""
    rows = json_content(path)
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a JSON list of rows, got {json_type(rows)}; get the published file")
    return rows


def check_fields(row: Any, place: str, *, required: Collection[str], optional: Collection[str] = ()) -> None:
    """Raise `DataError` where a row is not an object or lacks a required field; others are facts (`extra_facts`).

    Args:
        row: One row.
        place: File and row number, as the message shows them: ``train.json row 17``.
        required: Fields that every row has.
        optional: Fields that a row may have.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"{place}: expected an object, got {json_type(row)}; write one object per question")
    if missing := [key for key in required if key not in row]:
        known = [*required, *optional]
        others = [str(key) for key in row if key not in known]
        similar = nearest(missing[0], others)
        hint = f" (there is {similar!r})" if similar else ""
        raise DataError(f"{place}: field {missing[0]!r} is missing{hint}; add it or get the published file")


def extra_facts(row: Mapping[str, Any], known: Collection[str]) -> dict[str, str]:
    """Fields that the published format does not have, as facts: those that are text, numbers, or true or false."""
    return {
        str(key): as_text(value).strip()
        for key, value in row.items()
        if key not in known and isinstance(value, str | int | float) and as_text(value).strip()
    }


def note_extra_fields(rows: Iterable[Any], known: Collection[str], file: str) -> list[str]:
    """A sentence on the fields of a file that the published format does not have; empty where there are none.

    Args:
        rows: The rows of the file.
        known: Fields of the published format.
        file: Name of the file.
    """
    extra = dict.fromkeys(str(key) for row in rows if isinstance(row, Mapping) for key in row if key not in known)
    if not extra:
        return []
    return [f"{file} has fields that were not published: {', '.join(extra)}; text and numbers in them became facts"]


def text(row: Mapping[str, Any], key: str, place: str) -> str:
    """A field as text, unchanged; a whole number is written without decimals; raises `DataError` on any other type."""
    value = row[key]
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
        return as_text(value)
    raise DataError(f"{place}: field {key!r} is {json_type(value)}, expected text or a whole number; quote it")


def filled(row: Mapping[str, Any], key: str, place: str) -> str:
    """Like `text`; raises `DataError` where the field is empty or only white space."""
    value = text(row, key, place)
    if not value.strip():
        raise DataError(f"{place}: field {key!r} is empty; fill it in or take the row out")
    return value


def require_unique(places: dict[str, str], key: str, place: str, name: str) -> None:
    """Raise `DataError` for a key that another row has.

    Args:
        places: Key -> place of its row, of the rows so far; the key is added.
        key: The row's key.
        place: File and row number.
        name: What messages call the key: ``question id``.
    """
    if key in places:
        raise DataError(f"{place}: {name} {key!r} is already used by {places[key]}; give every row its own")
    places[key] = place


def require_same_name(image_names: dict[str, str], image_id: str, name: str, place: str) -> None:
    """Raise `DataError` for an image whose id another file has.

    Args:
        image_names: Image id -> name of its file, of the rows so far; the image is added.
        image_id: Id of the image of a row.
        name: Name of its file.
        place: File and row number.
    """
    if image_names.setdefault(image_id, name) != name:
        raise DataError(
            f"{place}: image {name!r} would be the same as {image_names[image_id]!r} of an earlier row, both are "
            f"{image_id}; get the published file"
        )


def relative_name(name: str, place: str) -> str:
    """A relative file name with forward slashes; raises `DataError` where it would leave its folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name or not path.parts:
        raise DataError(f"{place}: image {name!r} leads out of the dataset's folder; give a path inside it")
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in name):
        raise DataError(f"{place}: image {name!r} has a character that no file name can have; correct it")
    return str(path)

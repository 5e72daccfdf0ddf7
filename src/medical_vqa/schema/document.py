"""What every versioned JSON document has in common: strict models, and one clear sentence for each way to be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from medical_vqa.errors import MedicalVqaError
from medical_vqa.io import atomic_write, json_type, json_value
from medical_vqa.schema.mistakes import mistakes_in

Document = TypeVar("Document", bound=BaseModel)


class SchemaModel(BaseModel):
    """A document or a part of one: immutable, unknown keys refused, field descriptions taken from the docstrings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def read_document(path: Path, kind: type[Document], *, advice: str, error: type[MedicalVqaError]) -> Document:
    """Read a versioned JSON document.

    Args:
        path: The file.
        kind: The document's model; its field ``format`` is a literal, the version that this code reads.
        advice: What to do about a file that cannot be read, as the last part of the message.
        error: The exception to raise.

    Raises:
        FileNotFoundError: There is no such file; callers say what to do about that.
        MedicalVqaError: `error`, when the file is unreadable, not JSON, of another format, or has an unknown key, a
            missing key or a wrong value; all wrong keys are named together.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"{path}: cannot be read ({problem}); {advice}") from problem
    return parse_document(text, kind, name=str(path), advice=advice, error=error)


def parse_document(
    text: str, kind: type[Document], *, name: str, advice: str, error: type[MedicalVqaError]
) -> Document:
    """As `read_document`, of text that was read already; `name` is what messages call it."""
    try:
        content = json_value(text, finite=True)
    except ValueError as problem:
        cause = problem.__cause__
        line = f" in line {cause.lineno}" if isinstance(cause, json.JSONDecodeError) else ""
        raise error(f"{name}: is not JSON ({problem}{line}); {advice}") from problem
    if not isinstance(content, dict):
        raise error(f"{name}: expected a JSON object, got {json_type(content)}; {advice}")
    expected = kind.model_fields["format"].default
    if content.get("format") != expected:
        version = f"format {content['format']!r}" if "format" in content else "no format"
        raise error(f"{name}: has {version} and this version of medical-vqa reads format {expected}; {advice}")
    try:
        return kind.model_validate(content)
    except ValidationError as problem:
        mistakes = mistakes_in(problem.errors(include_url=False), kind)
        raise error(f"{name}: {'; '.join(map(str, mistakes))}; {advice}") from problem


def write_document(path: Path, document: BaseModel) -> None:
    """Write a document as indented JSON; raises `DataError` where the disk cannot take it."""
    atomic_write(path, json.dumps(document.model_dump(mode="json"), ensure_ascii=False, indent=2) + "\n")

"""The words every stage speaks: `Example` (a published row) and `Prediction` (what a model said); no torch.

Both are written as one JSON object per line::

    {"id": "slake/train/1", "image_id": "slake/xmlab1", "question": "Which part?", "answers": ["Abdomen"],
     "group": "slake/xmlab1", "facts": {"answer_type": "OPEN", "modality": "MRI"}}
    {"id": "slake/train/1", "answer": "abdomen", "raw": "abdomen", "confidence": 0.9, "alternatives": [["chest", 0.1]]}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from medical_vqa.errors import DataError
from medical_vqa.io import atomic_path

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_SCHEMA = {"extra": "forbid", "use_attribute_docstrings": True}  # for the published JSON Schema


@dataclass(frozen=True, slots=True)
class Example:
    """One question about one image, exactly as the dataset's authors published it; nothing is normalized here."""

    __pydantic_config__: ClassVar = _SCHEMA

    id: str
    """Unique over all datasets and stable over releases: ``slake/test/11934``."""
    image_id: str
    """Key into the dataset's image source: ``slake/xmlab102``."""
    question: str
    """The question, as published."""
    answers: tuple[str, ...]
    """Accepted answers, best first; empty for a question nobody has answered yet."""
    group: str
    """What may not straddle two splits and is resampled whole: the patient where known, else the image."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Breakdown keys: answer_type, modality, organ, content_type, language ..."""

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read back what `to_json` wrote; raises `DataError` on unknown or missing fields."""
        _check_fields(cls, row)
        if not isinstance(row["answers"], list) or not isinstance(row.get("facts", {}), dict):
            raise DataError(f"example {row['id']!r}: expected a list of answers and an object of facts; write them so")
        return cls(**{**row, "answers": tuple(row["answers"]), "facts": dict(row.get("facts", {}))})

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the fields above."""
        return {**asdict(self), "answers": list(self.answers), "facts": dict(self.facts)}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model answered to one question."""

    __pydantic_config__: ClassVar = _SCHEMA

    id: str
    """The id of the `Example` it answers."""
    answer: str
    """The answer, trimmed."""
    raw: str = ""
    """The model's text before trimming; equals `answer` for a classifier."""
    confidence: float | None = None
    """In [0, 1]: class probability, or exp(mean token log-probability); None where the model gives none."""
    alternatives: tuple[tuple[str, float], ...] = ()
    """The next best answers with their confidence, best first; the answer itself is not among them."""

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read back what `to_json` wrote; raises `DataError` on unknown or missing fields and impossible values."""
        _check_fields(cls, row)
        confidence = row.get("confidence")
        if not isinstance(row["id"], str) or not isinstance(row["answer"], str):
            raise DataError(f"prediction {row['id']!r}: expected id and answer as text; quote them in the file")
        if confidence is not None and not (isinstance(confidence, int | float) and 0 <= confidence <= 1):
            raise DataError(
                f"prediction {row['id']!r}: confidence is {confidence!r}; give a number from 0 to 1 or null"
            )
        alternatives = tuple((str(answer), float(value)) for answer, value in row.get("alternatives") or ())
        return cls(**{**row, "raw": row.get("raw", row["answer"]), "alternatives": alternatives})

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the fields above; a confidence that is not finite becomes null."""
        finite = self.confidence is not None and math.isfinite(self.confidence)
        return {
            **asdict(self),
            "confidence": round(self.confidence, 6) if finite and self.confidence is not None else None,
            "alternatives": [[answer, round(value, 6)] for answer, value in self.alternatives],
        }


def _check_fields(cls: type[Example] | type[Prediction], row: Mapping[str, Any]) -> None:
    if not isinstance(row, Mapping):
        raise DataError(
            f"expected a JSON object for a {cls.__name__}, got {type(row).__name__}; write one object per line"
        )
    known = {f.name for f in fields(cls)}
    required = {"id", "answer"} if cls is Prediction else known - {"facts"}
    if unknown := sorted(set(row) - known):
        raise DataError(f"unknown field {unknown[0]!r} in a {cls.__name__}; the fields are {', '.join(sorted(known))}")
    if missing := sorted(required - set(row)):
        raise DataError(f"missing field {missing[0]!r} in a {cls.__name__} ({dict(list(row.items())[:2])}); add it")


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, one per line; raises `DataError` with the line number where one is not JSON."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}:{number}: not JSON ({error.msg}); expected one object per line") from error


def write_jsonl(path: Path, rows: Iterable[Example | Prediction]) -> None:
    """Write one JSON object per line; the file appears completely or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row.to_json(), ensure_ascii=False) + "\n" for row in rows)


def read_predictions(path: Path) -> list[Prediction]:
    """All predictions of a file, in its order; raises `DataError` on duplicate ids."""
    if not path.is_file():
        raise DataError(f"no predictions at {path}; expected a predictions.jsonl written by `medical-vqa predict`")
    predictions = [Prediction.from_json(row) for row in read_jsonl(path)]
    seen: set[str] = set()
    for prediction in predictions:
        if prediction.id in seen:
            raise DataError(f"{path}: id {prediction.id!r} occurs twice; keep one prediction per question")
        seen.add(prediction.id)
    return predictions

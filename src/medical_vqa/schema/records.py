"""The rows that every stage reads or writes: `Example`, a published question, and `Prediction`, a model's answer.

Both are stored as one JSON object per line::

    {"id": "slake/train/1", "image_id": "slake/xmlab1", "question": "Which part?", "answers": ["Abdomen"],
     "group": "slake/xmlab1", "facts": {"answer_type": "OPEN", "modality": "MRI"}}
    {"id": "slake/train/1", "answer": "abdomen", "raw": "abdomen", "confidence": 0.9, "alternatives": [["chest", 0.1]]}

They are dataclasses with their own checks: reading a million rows takes seconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from medical_vqa.errors import DataError
from medical_vqa.io import atomic_path, describe_read_errors, json_type, json_value
from medical_vqa.text import whole_characters

Split = Literal["train", "validation", "test"]
_BASES = ("probability", "agreement")
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_SCHEMA = {"extra": "forbid", "use_attribute_docstrings": True}  # for the published JSON Schema


@dataclass(frozen=True, slots=True)
class Turn:
    """A question of a conversation with its answer."""

    __pydantic_config__: ClassVar = _SCHEMA

    question: str
    """The question, as published."""
    answer: str
    """The published answer."""


@dataclass(frozen=True, slots=True)
class Example:
    """One question about one image, exactly as the dataset's authors published it; nothing is normalized here."""

    __pydantic_config__: ClassVar = _SCHEMA

    id: str
    """Id of the question, unique over all datasets and stable over releases: ``slake/test/11934``."""
    image_id: str
    """Id of the image in the dataset: ``slake/xmlab102``."""
    question: str
    """The question, as published."""
    answers: tuple[str, ...]
    """Accepted answers, best first; empty for a question without an answer."""
    group: str
    """Unit that must not be divided among splits and is resampled together: the patient where known, else the image."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Facts for breakdowns: answer_type, modality, organ, content_type, language ..."""
    other_image_ids: tuple[str, ...] = ()
    """Further images of a question about several, and of its earlier turns; a model of one image receives `image_id`
    alone."""
    turns: tuple[Turn, ...] = ()
    """Earlier questions of the conversation with their answers, oldest first: context of `question`."""
    system: str = ""
    """System message of the conversation; empty for none."""
    image_places: tuple[tuple[int, int], ...] = ()
    """Where each image stands, in order: number of its turn, from 0, and number of the character of that turn's
    question before which it stands; empty where all stand before the first question."""

    @property
    def images(self) -> tuple[str, ...]:
        """Ids of all its images, in order."""
        return (self.image_id, *self.other_image_ids)

    @property
    def questions(self) -> tuple[str, ...]:
        """The questions of the conversation up to this one, which is the last."""
        return (*(turn.question for turn in self.turns), self.question)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read back what `to_json` wrote; raises `DataError` on unknown or missing fields and values of other types."""
        _check_fields("Example", row, required=_REQUIRED_OF_EXAMPLE, known=_EXAMPLE_FIELDS)
        row = {**_EXAMPLE_DEFAULTS, **row}
        for name, (has_type, expected) in _EXAMPLE_TYPES.items():
            if not has_type(row[name]):
                raise DataError(f"example {row['id']!r}: {name} is {_excerpt(row[name])}; give {expected}")
        example = cls(
            row["id"],
            row["image_id"],
            row["question"],
            tuple(row["answers"]),
            row["group"],
            dict(row["facts"]),
            tuple(row["other_image_ids"]),
            tuple(Turn(turn["question"], turn["answer"]) for turn in row["turns"]),
            row["system"],
            tuple((turn, character) for turn, character in row["image_places"]),
        )
        example.check_places()
        return example

    def check_places(self) -> None:
        """Raise `DataError` where the places are not one for each image, in order and inside the questions."""
        questions, places = self.questions, self.image_places
        inside = all(0 <= t < len(questions) and 0 <= character <= len(questions[t]) for t, character in places)
        if places and (len(places) != len(self.images) or not inside or list(places) != sorted(places)):
            raise DataError(
                f"example {self.id!r}: image_places are {list(places)} for {len(self.images)} images and "
                f"{len(questions)} turns; give one place [turn, character] for each image, in order, or none at all"
            )

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the fields above."""
        return {
            "id": self.id,
            "image_id": self.image_id,
            "question": self.question,
            "answers": list(self.answers),
            "group": self.group,
            "facts": dict(self.facts),
            **({"other_image_ids": list(self.other_image_ids)} if self.other_image_ids else {}),
            **({"turns": [asdict(turn) for turn in self.turns]} if self.turns else {}),
            **({"system": self.system} if self.system else {}),
            **({"image_places": [list(place) for place in self.image_places]} if self.image_places else {}),
        }


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(map(_is_text, values))


def _are_turns(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(turn, dict) and turn.keys() == {"question", "answer"} and all(map(_is_text, turn.values()))
        for turn in values
    )


def _are_places(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(place, list) and len(place) == 2 and all(type(number) is int for number in place) for place in values
    )


def _excerpt(value: Any) -> str:
    """A value as a message shows it: as JSON, and not all of a long one."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_EXCERPT else f"{text[:_LONGEST_EXCERPT]}..."


_LONGEST_EXCERPT = 80
_EXAMPLE_DEFAULTS: Mapping[str, Any] = {
    "facts": {},
    "other_image_ids": [],
    "turns": [],
    "system": "",
    "image_places": [],
}
_EXAMPLE_TYPES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("id", "image_id", "question", "group", "system"), (_is_text, "a text")),
    **dict.fromkeys(("answers", "other_image_ids"), (_are_texts, "a list of texts")),
    "facts": (lambda facts: isinstance(facts, dict) and all(map(_is_text, facts.values())), "an object of texts"),
    "turns": (_are_turns, "a list of objects, each with the texts question and answer"),
    "image_places": (_are_places, "a list of pairs of whole numbers, [turn, character]"),
}
"""Whether a value has the type of a field, and the type in words."""


@dataclass(frozen=True, slots=True)
class GuardRecord:
    """What the guards decided about an answer; the answer itself stays what the model gave."""

    __pydantic_config__: ClassVar = _SCHEMA

    withheld: bool
    """Whether the answer is not shown to a person."""
    reason_code: str | None = None
    """Why it is withheld: ``low_confidence``, ``contradiction`` ...; null where it is shown."""
    source: str | None = None
    """Where the answer comes from: ``picture``, ``usual`` or ``knowledge``; null where that was not measured."""
    image_dependence: float | None = None
    """How much the picture moves the answer, in [0, 1]; null where that was not measured."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's answer to one question."""

    __pydantic_config__: ClassVar = _SCHEMA

    id: str
    """Id of the `Example` that is answered."""
    answer: str
    """The answer, without surrounding white space."""
    raw: str = ""
    """The model's text before trimming; equals `answer` for a classifier."""
    confidence: float | None = None
    """Confidence in [0, 1]: class probability, or exp(mean token log-probability); null where the model gives none."""
    alternatives: tuple[tuple[str, float], ...] = ()
    """Next best answers with their confidence, best first; the answer itself is not among them."""
    judged_right: bool | None = None
    """Whether a judge of another program called the answer right; null where none did."""
    confidence_basis: Literal["probability", "agreement"] | None = None
    """What the confidence of a remote model was computed from: the probabilities of its tokens, or the agreement of
    several answers; null without one, and for a local model, whose confidence is a probability."""
    guards: GuardRecord | None = None
    """Decision of the guards; null, and not in the file, where they were not asked."""
    cut_off: bool = False
    """Whether the text ended at the limit of tokens (``max_tokens``) and not by itself; not in the file where false."""

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read back what `to_json` wrote; raises `DataError` on unknown or missing fields and impossible values."""
        _check_fields("Prediction", row, required=_REQUIRED_OF_PREDICTION, known=_PREDICTION_FIELDS)
        id_, answer, confidence = row["id"], row["answer"], row.get("confidence")
        if not isinstance(id_, str) or not isinstance(answer, str):
            raise DataError(f"prediction {id_!r}: expected id and answer as text; quote them in the file")
        if confidence is not None and not (_is_number(confidence) and 0 <= confidence <= 1):
            raise DataError(f"prediction {id_!r}: confidence is {confidence!r}; give a number from 0 to 1 or null")
        raw, judged_right, basis = row.get("raw"), row.get("judged_right"), row.get("confidence_basis")
        if not isinstance(raw, str | None):
            raise DataError(f"prediction {id_!r}: raw is {raw!r}; give a text, or leave it out")
        if not isinstance(judged_right, bool | None):
            raise DataError(f"prediction {id_!r}: judged_right is {judged_right!r}; give true, false or null")
        if basis not in (None, *_BASES):
            raise DataError(f"prediction {id_!r}: confidence_basis is {basis!r}; give {' or '.join(_BASES)}, or null")
        cut_off = row.get("cut_off", False)
        if not isinstance(cut_off, bool):
            raise DataError(f"prediction {id_!r}: cut_off is {_excerpt(cut_off)}; give true or false")
        return cls(
            id_,
            answer,
            answer if raw is None else raw,
            confidence,
            _alternatives(id_, row.get("alternatives")),
            judged_right,
            basis,
            _guard_record(id_, row.get("guards")),
            cut_off,
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the fields above; a confidence that is not finite becomes null."""
        confidence = self.confidence
        basis = {} if self.confidence_basis is None else {"confidence_basis": self.confidence_basis}
        row = {
            "id": self.id,
            "answer": self.answer,
            "raw": self.raw,
            "confidence": round(confidence, 6) if confidence is not None and math.isfinite(confidence) else None,
            "alternatives": [[text, round(value, 6)] for text, value in self.alternatives],
            **({} if self.judged_right is None else {"judged_right": self.judged_right}),
            **basis,
            **({"cut_off": True} if self.cut_off else {}),
        }
        return row if self.guards is None else row | {"guards": asdict(self.guards)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _alternatives(id_: str, value: Any) -> tuple[tuple[str, float], ...]:
    pairs = [] if value is None else value
    is_pairs = isinstance(pairs, list) and all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and _is_number(pair[1]) for pair in pairs
    )
    if not is_pairs:
        raise DataError(
            f'prediction {id_!r}: alternatives is {_excerpt(value)}; give a list of pairs such as [["lung", 0.1]]'
        )
    return tuple((text, float(number)) for text, number in pairs)


def _guard_record(id_: str, row: Any) -> GuardRecord | None:
    if row is None:
        return None
    if not isinstance(row, Mapping) or not isinstance(row.get("withheld"), bool):
        raise DataError(f"prediction {id_!r}: guards is {row!r}; give an object with withheld true or false, or null")
    try:
        record = GuardRecord(**row)
    except TypeError as error:
        names = ", ".join(f.name for f in fields(GuardRecord))
        raise DataError(f"prediction {id_!r}: guards has an unknown field; the fields are {names}") from error
    dependence = record.image_dependence
    for name, is_right, expected in (
        ("reason_code", isinstance(record.reason_code, str | None), "a text or null"),
        ("source", isinstance(record.source, str | None), "a text or null"),
        (
            "image_dependence",
            dependence is None or (_is_number(dependence) and 0 <= dependence <= 1),
            "a number in [0, 1]",
        ),
    ):
        if not is_right:
            raise DataError(f"prediction {id_!r}: {name} of guards is {row[name]!r}; give {expected}")
    return record


Record = TypeVar("Record", Example, Prediction)

_EXAMPLE_FIELDS = frozenset(f.name for f in fields(Example))
_REQUIRED_OF_EXAMPLE = frozenset({"id", "image_id", "question", "answers", "group"})
_PREDICTION_FIELDS = frozenset(f.name for f in fields(Prediction))
_REQUIRED_OF_PREDICTION = frozenset({"id", "answer"})


def _check_fields(name: str, row: Mapping[str, Any], *, required: frozenset[str], known: frozenset[str]) -> None:
    if type(row) is dict and required <= row.keys() <= known:  # nearly every row, of which there may be millions
        return
    if not isinstance(row, Mapping):
        raise DataError(f"expected a JSON object for a {name}, got {json_type(row)}; write one object per line")
    keys = row.keys()
    if not keys <= known:
        raise DataError(f"unknown field {min(keys - known)!r} in a {name}; the fields are {', '.join(sorted(known))}")
    if not keys >= required:
        raise DataError(f"missing field {min(required - keys)!r} in a {name} ({dict(list(row.items())[:2])}); add it")


def is_prediction(row: Any) -> bool:
    """Whether a JSON value has the fields that a `Prediction` needs, or none but its fields."""
    return isinstance(row, Mapping) and (row.keys() >= _REQUIRED_OF_PREDICTION or row.keys() <= _PREDICTION_FIELDS)


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, one per line; raises `DataError` with the line number where one is not JSON."""
    for number, line in _lines(path):
        yield _json_value(line, f"{path}:{number}")


def read_records(path: Path, kind: type[Record]) -> Iterator[Record]:
    """The records of a file that `write_jsonl` wrote.

    Args:
        path: The file, one JSON object per line.
        kind: `Example` or `Prediction`.

    Raises:
        DataError: A line is not JSON, or its record has other fields or impossible values.
    """
    for number, line in _lines(path):
        yield read_record(line, kind, f"{path}:{number}")


def read_record(line: str, kind: type[Record], place: str) -> Record:
    """The record of one line; raises `DataError`, with the place, where it is not JSON or not such a record."""
    value = _json_value(line, place)
    if "\\u" in line and (text := json.dumps(value, ensure_ascii=False)) != whole_characters(text):
        raise DataError(f"{place}: holds half of a character, as of a text that was cut off; correct it")
    try:
        return kind.from_json(value)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines with something in them, and their numbers."""
    number = 0
    with describe_read_errors(path), path.open(encoding="utf-8-sig") as lines:
        try:
            for number, line in enumerate(lines, 1):
                if not line.isspace():
                    yield number, line
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: is not UTF-8 after line {number} ({error.reason}); save it as UTF-8") from error


def _json_value(line: str, place: str) -> Any:
    """The value of a line; raises `DataError` if it is not JSON."""
    try:
        return json_value(line)
    except ValueError as error:
        raise DataError(f"{place}: not JSON ({error}); expected one object per line") from error


def write_jsonl(path: Path, rows: Iterable[Example | Prediction]) -> None:
    """Write one JSON object per line; the file appears completely or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row.to_json(), ensure_ascii=False) + "\n" for row in rows)


def read_predictions(path: Path) -> list[Prediction]:
    """All predictions of a file, in its order; raises `DataError` on duplicate ids."""
    if not path.is_file():
        raise DataError(f"no predictions at {path}; expected a predictions.jsonl written by `medical-vqa predict`")
    predictions = list(read_records(path, Prediction))
    if len({prediction.id for prediction in predictions}) == len(predictions):
        return predictions
    ids: set[str] = set()
    for prediction in predictions:
        if prediction.id in ids:
            raise DataError(f"{path}: id {prediction.id!r} occurs twice; keep one prediction per question")
        ids.add(prediction.id)
    return predictions

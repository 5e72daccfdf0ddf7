"""Answers as JSON of a client's schema, where an answer fits one: a value from a list, a boolean, a text, or an object.

    {"enum": ["CT", "MRI"]}                                           "CT"
    {"type": "boolean"}                                               true, from yes and no
    {"type": "object", "properties": {"answer": …, "confidence": {"type": "number"}, "abstained": {"type": "boolean"}}}

An object has one property for the answer, of any name, and may have `confidence`, `abstained` and `reason`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.schema.answers import Answer

_ABOUT_THE_ANSWER = {"confidence", "abstained", "reason"}
_BOOLEANS = {"yes": True, "no": False, "true": True, "false": False}
_MAX_VALUES = 500  # of an enum
_MAX_REFERENCES = 8  # that are followed in a row
ANY_OBJECT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "answer": {"type": "string"},
        "confidence": {"type": ["number", "null"]},
        "abstained": {"type": "boolean"},
    },
}
"""The schema of OpenAI's mode ``json_object``, which names none."""


@dataclass(frozen=True, slots=True)
class OutputSchema:
    """A schema that answers can fit."""

    schema: Mapping[str, Any]
    """As the client sent it."""
    param: str
    """Name of the request's field, for errors."""

    def __post_init__(self) -> None:
        """Raise `ApiError` (400) where no answer could ever fit."""
        schema = self._resolved(self.schema)
        if "object" not in _types(schema):
            self._check_value(schema)
            return
        properties = schema.get("properties", {})
        if not isinstance(properties, Mapping) or len(set(properties) - _ABOUT_THE_ANSWER) != 1:
            raise self._unsupported("an object with one property for the answer")
        self._check_value(self._resolved(properties[self._answer_name(schema)]))

    @property
    def reports_abstention(self) -> bool:
        """Whether the JSON itself says that the model abstains."""
        return "abstained" in self._resolved(self.schema).get("properties", {})

    def text(self, answer: Answer) -> str:
        """The JSON of an answer; raises `ApiError` (422) where the answer fits no value of the schema."""
        schema = self._resolved(self.schema)
        if "object" not in _types(schema):
            return json.dumps(self._value(schema, answer), ensure_ascii=False)
        facts = {"confidence": answer.confidence, "abstained": answer.abstained, "reason": answer.reason}
        name = self._answer_name(schema)
        values = {
            key: self._value(self._resolved(part), answer) if key == name else _fact(facts[key], part)
            for key, part in schema["properties"].items()
        }
        return json.dumps(values, ensure_ascii=False)

    def _answer_name(self, schema: Mapping[str, Any]) -> str:
        return next(str(name) for name in schema["properties"] if name not in _ABOUT_THE_ANSWER)

    def _check_value(self, schema: Mapping[str, Any]) -> None:
        if "enum" in schema and not 0 < len(_values(schema)) <= _MAX_VALUES:
            raise self._unsupported(f"a list of 1 to {_MAX_VALUES} values")
        if not _values(schema) and not {"string", "boolean"} & _types(schema):
            raise self._unsupported("a list of values, a boolean or a string")

    def _value(self, schema: Mapping[str, Any], answer: Answer) -> Any:
        candidates = [answer.answer, *(alternative.answer for alternative in answer.alternatives)]
        if _values(schema):
            options = {_comparable(option): option for option in _values(schema) if option is not None}
            for candidate in candidates:
                if _comparable(candidate) in options:
                    return options[_comparable(candidate)]
        elif "boolean" in _types(schema):
            if _comparable(answer.answer) in _BOOLEANS:
                return _BOOLEANS[_comparable(answer.answer)]
        else:
            return answer.answer
        if "null" in _types(schema) or None in _values(schema):
            return None
        raise ApiError(422, "invalid", "the model's answer fits no value of the schema", param=self.param)

    def _resolved(self, schema: Any, steps: int = _MAX_REFERENCES) -> Mapping[str, Any]:
        """A part of the schema with its reference followed and, of alternatives, the one that is not null."""
        for step in range(steps):
            if not isinstance(schema, Mapping):
                break
            reference = schema.get("$ref")
            if isinstance(reference, str):
                definitions = self.schema.get("$defs", {})
                name = reference.removeprefix("#/$defs/")
                schema = definitions.get(name) if isinstance(definitions, Mapping) else None
            elif isinstance(schema.get("anyOf"), list):
                parts = [part for part in schema["anyOf"] if part != {"type": "null"}]
                if len(parts) != 1:
                    break
                inner = self._resolved(parts[0], steps - step - 1)
                types = sorted(_types(inner) | ({"null"} if len(parts) < len(schema["anyOf"]) else set()))
                return {**inner, "type": types}
            elif "const" in schema:
                return {"enum": [schema["const"]]}
            else:
                return schema
        raise self._unsupported("plain types, enums and references to $defs")

    def _unsupported(self, expected: str) -> ApiError:
        message = (
            f"this schema fits no answer: expected {expected}; use an enum, a boolean, or an object with an answer"
        )
        return ApiError(400, "invalid", message, param=self.param)


def output_schema(schema: Any, param: str) -> OutputSchema:
    """A client's schema; raises `ApiError` (400) where it is none that answers can fit."""
    if not isinstance(schema, Mapping):
        raise ApiError(400, "invalid", "expected a JSON schema", param=param)
    return OutputSchema(schema, param)


def requested_schema(form: Mapping[str, Any] | None, schema: Any, param: str) -> OutputSchema | None:
    """The schema of a requested format of the answer, None for text; raises `ApiError` (400) for any other format.

    Args:
        form: The format, with its ``type``; None: text.
        schema: That it holds, for the type ``json_schema``.
        param: Name of the request's field, for errors.
    """
    kind = (form or {}).get("type", "text")
    if kind == "text":
        return None
    if kind == "json_object":
        return output_schema(ANY_OBJECT, param)
    if kind == "json_schema":
        return output_schema(schema, param)
    message = f"unknown format {kind!r:.60}; expected the type text, json_object or json_schema"
    raise ApiError(400, "invalid", message, param=param)


def _values(schema: Mapping[str, Any]) -> list[Any]:
    values = schema.get("enum")
    return values if isinstance(values, list) else []


def _types(schema: Mapping[str, Any]) -> set[str]:
    declared = schema.get("type", ())
    if isinstance(declared, str):
        return {declared}
    return {name for name in declared if isinstance(name, str)} if isinstance(declared, list) else set()


def _fact(value: Any, schema: Any) -> Any:
    """What is known of the answer; a confidence that was not measured is 0 where the schema wants a number."""
    wants_number = isinstance(schema, Mapping) and _types(schema) == {"number"}
    return 0.0 if value is None and wants_number else value


def _comparable(value: Any) -> str:
    return str(value).casefold().strip(" .")

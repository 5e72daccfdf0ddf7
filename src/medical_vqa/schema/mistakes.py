"""What is wrong with a document or a recipe, in words: which key, what was expected, what was received, what to do.

pydantic reports errors in terms of its own types. Here each error becomes a `Mistake` whose text is derived from the
annotation of the field, so that all errors of one field read the same, whichever part of its type refused the value.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, core_schema

from medical_vqa.text import did_you_mean

_LONGEST = 60  # characters of a received value that are shown
_PYDANTIC_TYPES = frozenset(get_args(core_schema.ErrorType)) | {"path_type"}
_SIMPLE = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    type(None): "null",
}
_MAPPINGS = (dict, Mapping)
_LIMITS = {
    "gt": "more than {}",
    "ge": "at least {}",
    "lt": "less than {}",
    "le": "at most {}",
    "multiple_of": "a multiple of {}",
    "min_length": "at least {} {unit}",
    "max_length": "at most {} {unit}",
    "pattern": "the form {}",
}
"""Attributes of the constraints of pydantic and annotated-types, in words."""
_RANGES = {("ge", "le"): " from {} to {}", ("min_length", "max_length"): " of {} to {} {unit}"}


@dataclass(frozen=True, slots=True)
class Mistake:
    """One wrong key or value."""

    key: str
    """Dotted key: ``training.epochs``; empty for the recipe itself."""
    text: str
    """What was expected, what was received and what to do."""
    names_key: bool = False
    """Whether the text already names the key."""

    def __str__(self) -> str:
        return self.text if self.names_key or not self.key else f"{self.key}: {self.text}"


class MistakesError(Exception):
    """Carries mistakes to where all of them are gathered."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("; ".join(map(str, mistakes)))
        self.mistakes = list(mistakes)


def report(
    mistakes: Sequence[Mistake], *, origin: str, sections: Sequence[str] = (), overrides: Collection[str] = ()
) -> str:
    """All mistakes as one message: a single one as one sentence, several as a list under a summary line.

    Args:
        mistakes: At least one.
        origin: Where the content is from, which begins the message: the path of the recipe.
        sections: Top-level keys, in the order in which their mistakes are listed.
        overrides: Dotted keys that were set by ``--set``; their mistakes are attributed to it.
    """
    places = {section: place for place, section in enumerate(sections)}
    ordered = sorted(mistakes, key=lambda mistake: places.get(mistake.key.partition(".")[0], -1))
    by_option = [any(f"{mistake.key}.".startswith(f"{key}.") for key in overrides) for mistake in ordered]
    if len(ordered) == 1:
        return f"{'--set' if by_option[0] else origin}: {ordered[0]}"
    lines = [f"  {'--set ' if option else ''}{mistake}" for mistake, option in zip(ordered, by_option, strict=True)]
    return "\n".join([f"{origin}: {len(lines)} mistakes", *lines])


def mistakes_in(
    errors: Iterable[ErrorDetails], schema: type[BaseModel], *, prefix: tuple[str, ...] = (), owner: str = ""
) -> list[Mistake]:
    """One mistake for each key that validation errors are about.

    Args:
        errors: Details of a `ValidationError` of `schema`.
        schema: The model that was validated.
        prefix: Keys that lead to the section that `schema` describes.
        owner: Whose keys these are, for unknown ones: ``the family compact``.
    """
    mistakes: dict[str, Mistake] = {}
    for details in errors:
        mistake = _mistake(details, schema, prefix, owner)
        mistakes.setdefault(mistake.key, mistake)
    return list(mistakes.values())


def shown(value: Any) -> str:
    """A received value as a person would write it in YAML, shortened."""
    if isinstance(value, Mapping):
        return f"keys ({', '.join(map(str, value))})" if value else "no keys"
    word = {None: "null", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else None
    text = word or (str(list(value)) if isinstance(value, tuple | set | frozenset) else repr(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _mistake(details: ErrorDetails, schema: type[BaseModel], prefix: tuple[str, ...], owner: str) -> Mistake:
    section, field, keys, rest = _locate(details["loc"], schema)
    key, kind, received = ".".join([*prefix, *keys]), details["type"], details.get("input")
    if kind in ("extra_forbidden", "invalid_key"):
        of = f" for {owner}" if owner and section is schema else ""
        otherwise = f"the keys there are {', '.join(sorted(section.model_fields))}"
        hint = did_you_mean(keys[-1], section.model_fields, otherwise=otherwise)
        return Mistake(key, f"unknown key {key!r}{of}; {hint}", names_key=True)
    if kind in ("value_error", "assertion_error"):
        return Mistake(key, str(details["ctx"]["error"]))
    what = _expected(field, rest) if field is not None and kind in _PYDANTIC_TYPES else None
    items = [part + 1 for part in rest if isinstance(part, int)]
    if kind == "missing" and not items:
        return Mistake(key, f"missing key {key!r}; add it{f' ({what})' if what else ''}", names_key=True)
    if field is None:
        what = _words(section)
    elif what is None:  # in pydantic's words, for a type that has none here
        message = details["msg"].removeprefix("Input should be ").removeprefix("Input should have ")
        what = message[0].lower() + message[1:]
    place = f"; item {items[0]} is" if items else ", got"
    quotes = "; put it in quotes" if kind == "string_type" and isinstance(received, bool | int | float) else ""
    return Mistake(key, f"expected {what}{place} {'missing' if kind == 'missing' else shown(received)}{quotes}")


def _locate(
    location: tuple[int | str, ...], schema: type[BaseModel]
) -> tuple[type[BaseModel], FieldInfo | None, list[str], tuple[int | str, ...]]:
    """Follow an error's location: the innermost section, its field, the keys, and what is left inside the value."""
    section, keys, in_list = schema, list[str](), False
    for place, part in enumerate(location):
        if in_list:  # this is the number of a section in a list of them
            keys[-1] += f"[{part}]"
            in_list = False
            continue
        keys.append(str(part))
        rest = location[place + 1 :]
        if (field := section.model_fields.get(str(part))) is None:
            return section, None, keys, ()
        inner = _section_of(field.annotation)
        if inner is None and len(rest) > 1:
            inner = _section_in_list(field.annotation)
            in_list = inner is not None
        if inner is None or not rest:
            inside = [str(rest[0])] if rest and get_origin(field.annotation) in _MAPPINGS else []
            return section, field, [*keys, *inside], rest
        section = inner
    return section, None, keys, ()


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, or null; None for a field that holds no section, or several."""
    candidates = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    sections = [one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)]
    return sections[0] if len(sections) == 1 else None


def _section_in_list(annotation: Any) -> type[BaseModel] | None:
    """The section of which a field holds a list; None for a field that holds none."""
    is_list = get_origin(annotation) in (list, tuple) and get_args(annotation)
    return _section_of(get_args(annotation)[0]) if is_list else None


def _expected(field: FieldInfo, rest: tuple[int | str, ...]) -> str | None:
    """What a field takes, in words; None for a type that has no words here."""
    extra = field.json_schema_extra
    if isinstance(extra, Mapping) and "expected" in extra:
        return str(extra["expected"])
    if rest and get_origin(field.annotation) in _MAPPINGS:
        return _words(get_args(field.annotation)[1])
    return _words(field.annotation, field.metadata)


def _words(annotation: Any, metadata: Sequence[Any] = ()) -> str | None:
    origin, arguments = get_origin(annotation), get_args(annotation)
    words: str | None = None
    if origin is Annotated:
        nested = [inner for one in arguments[1:] for inner in (one.metadata if isinstance(one, FieldInfo) else [one])]
        words = _words(arguments[0], [*nested, *metadata])
    elif origin in (Union, types.UnionType):
        words = _either([_words(one, metadata) for one in arguments])
    elif origin is Literal:
        words = _either([one if isinstance(one, str) else shown(one) for one in arguments])
    elif origin in (tuple, list):
        fixed = origin is tuple and ... not in arguments
        length = f" of {len(arguments)} items" if fixed else _bounds(metadata, "items") or " of items"
        item = _either(list(dict.fromkeys(_words(one) for one in arguments if one is not ...)))
        words = item and f"a list{length}, each {item}"
    elif origin in _MAPPINGS:
        value = _words(arguments[1])
        words = value and f"keys whose values are {value}"
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        words = _either([shown(one.value).strip("'") for one in annotation])
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        words = f"keys such as {', '.join(list(annotation.model_fields)[:3])}"
    elif annotation in _SIMPLE:
        words = _SIMPLE[annotation] + _bounds(metadata, "characters")
    return words


def _either(words: Sequence[str | None]) -> str | None:
    """Alternatives in a row; those that already are a row are joined to it."""
    if any(word is None for word in words):
        return None
    flat = [part for word in words if word for part in word.split(" or ")]
    return " or ".join([", ".join(flat[:-1]), flat[-1]] if len(flat) > 1 else flat)


def _bounds(metadata: Sequence[Any], unit: str) -> str:
    """The limits of a value in words, ``" from 1 to 64"``; `unit` is what a length counts."""
    limits = {name: getattr(one, name) for one in metadata for name in _LIMITS if getattr(one, name, None) is not None}
    words = ""
    for (low, high), template in _RANGES.items():
        if low in limits and high in limits:
            words += template.format(_plain(limits.pop(low)), _plain(limits.pop(high)), unit=unit)
    single = [_LIMITS[name].format(_plain(value), unit=unit) for name, value in limits.items()]
    return words + (f" of {' and '.join(single)}" if single else "")


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

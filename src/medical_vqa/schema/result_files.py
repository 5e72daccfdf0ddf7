"""Reading and writing ``results.json``, whose numbers must be possible: those of a file edited by hand may not be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from medical_vqa.errors import DataError
from medical_vqa.schema.document import SchemaModel, read_document, write_document
from medical_vqa.schema.results import Counts, Results, Score

_ROUNDING = 1e-6
_DIFFERENCES = frozenset({"differences", "benefit"})
"""Fields that hold differences of two scores."""
_OF_ALL = "unanswered_as_wrong"
"""Field of the score that counts every question of the split."""
_MAX_SHOWN = 3
Document = TypeVar("Document", bound=SchemaModel)


def read_results(path: Path) -> Results:
    """Read ``results.json``.

    Raises:
        DataError: There is none, it is damaged or of another format, or it has numbers that no scoring can give.
    """
    missing = f"no results at {path}; write them with `medical-vqa score`"
    return read_scores(path, Results, missing=missing, advice="score the predictions again")


def read_scores(path: Path, kind: type[Document], *, missing: str, advice: str) -> Document:
    """Read a document of scores.

    Args:
        path: The file.
        kind: What it holds.
        missing: Sentence for a file that is not there.
        advice: What to do about one that is damaged.

    Raises:
        DataError: There is none, it is damaged or of another format, or it has numbers that no scoring can give.
    """
    try:
        document = read_document(path, kind, advice=advice, error=DataError)
    except FileNotFoundError:
        raise DataError(missing) from None
    if mistakes := mistakes_of_scores(document):
        raise DataError(f"{path}: {'; '.join(mistakes)}; {advice}")
    return document


def write_results(path: Path, results: Results) -> None:
    """Write ``results.json``."""
    write_document(path, results)


def mistakes_of_scores(document: BaseModel) -> list[str]:
    """What no scoring can give, the first mistakes and how many more there are; empty where all is possible.

    A score lies in [0, 1], a difference in [-1, 1], each inside its interval; it is of no more questions than were
    scored, and of no more groups than questions.
    """
    mistakes = list(_counts_mistakes(document.counts) if isinstance(document, Results) else ())
    counts = document.counts if isinstance(document, Results) else None
    for key, score in _scores(document, ""):
        names = frozenset(key.split("."))
        least = -1.0 if names & _DIFFERENCES else 0.0
        limit = None if counts is None else counts.examples if _OF_ALL in names else counts.scored
        mistakes += [f"{key}{mistake}" for mistake in _score_mistakes(score, least, limit)]
    hidden = len(mistakes) - _MAX_SHOWN
    return mistakes if hidden <= 0 else [*mistakes[:_MAX_SHOWN], f"and {hidden:,} more like these"]


def _scores(value: Any, key: str) -> Iterator[tuple[str, Score]]:
    """Every score in a document, with its dotted key."""
    inside: Iterator[tuple[str, Any]] = iter(())
    if isinstance(value, Score):
        yield key, value
    elif isinstance(value, BaseModel):
        inside = ((f".{name}", getattr(value, name)) for name in type(value).model_fields)
    elif isinstance(value, Mapping):
        inside = ((f".{name}", one) for name, one in value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        inside = ((f"[{number}]", one) for number, one in enumerate(value))
    for name, one in inside:
        yield from _scores(one, f"{key}{name}".removeprefix("."))


def _score_mistakes(score: Score, least: float, limit: int | None) -> Iterator[str]:
    value, interval = score.value, score.interval
    for name, number in ((".value", value), (".interval.low", interval.low), (".interval.high", interval.high)):
        if number is not None and not least - _ROUNDING <= number <= 1 + _ROUNDING:
            yield f"{name}: expected a number from {least:g} to 1, got {number:g}"
    if (interval.low is None) != (interval.high is None):
        yield f".interval: expected two bounds or none, got {interval.low} and {interval.high}"
    low, high = interval.low, interval.high
    if None not in (value, low, high) and not low - _ROUNDING <= value <= high + _ROUNDING:  # type: ignore[operator]
        yield f": expected a value inside its interval, got {value:g} and {low:g} to {high:g}"
    if limit is not None and score.n > limit:
        yield f".n: expected at most the {limit:,} questions that were counted, got {score.n:,}"
    if score.clusters > score.n:
        yield f".clusters: expected at most as many groups as questions ({score.n:,}), got {score.clusters:,}"


def _counts_mistakes(counts: Counts) -> Iterator[str]:
    for name, limit in (("examples", counts.examples), ("predictions", counts.predictions)):
        if counts.scored > limit:
            yield f"counts.scored: expected at most the {limit:,} {name}, got {counts.scored:,}"
    for name, number in (("images", counts.images), ("groups", counts.groups)):
        if number > counts.scored:
            yield f"counts.{name}: expected at most the {counts.scored:,} scored questions, got {number:,}"

"""Medical terms, abbreviations and synonyms in the words that a model knows, by the table ``terms.csv``.

A wrong replacement is worse than a refusal, so a term is replaced only where the meaning stays the same. A term that
the table knows and that has no such words (``fracture``) is named, with broader subjects to offer questions about.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Literal, get_args

from medical_vqa.errors import DataError

Relation = Literal["same", "place", "outside", "filler"]
"""How a term relates to its target; the head of ``terms.csv`` defines them."""
_RELATIONS: tuple[Relation, ...] = get_args(Relation)
_TOKEN = re.compile(r"[a-z]+|[0-9]+|[^\sa-z0-9]")
_PLACE = re.compile(
    r"^\s*(in )?(where\b|(which|what) (part|side|lobe|region|location|area|place|hemisphere)\b|哪)"
    r"|\blocated\b|\blocation\b|位置"
)


@dataclass(frozen=True, slots=True)
class Term:
    """One spelling of a term."""

    spelling: str
    """The term, lower case."""
    relation: Relation
    """How it relates to the target."""
    target: str
    """Words that mean the same, or broader subjects."""
    source: str
    """Where the meaning is from, as the head of the table lists it."""


@dataclass(frozen=True, slots=True)
class CanonicalQuestion:
    """A question in the words that a model knows, as far as that is possible."""

    text: str
    """The question with its terms replaced; unchanged where none was."""
    replaced: tuple[tuple[str, str], ...] = ()
    """Terms and their replacements, in order."""
    outside: tuple[Term, ...] = ()
    """Terms that the table knows and the model does not, in order; each is still in the text."""


@lru_cache(maxsize=1)
def medical_terms() -> Mapping[tuple[str, ...], Term]:
    """The table, by the tokens of a spelling; raises `DataError` when a row of it is damaged."""
    text = resources.files("medical_vqa.models.questions").joinpath("terms.csv").read_text(encoding="utf-8")
    return read_terms(text)


def read_terms(text: str) -> Mapping[tuple[str, ...], Term]:
    """Read a table of terms; raises `DataError` on an unknown relation, a missing column and a spelling given twice."""
    table: dict[tuple[str, ...], Term] = {}
    rows = csv.DictReader(line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    for row in rows:
        relation = next((known for known in _RELATIONS if known == row.get("relation")), None)
        if relation is None or not row.get("terms") or row.get("source") is None:
            raise DataError(
                f"terms.csv: expected terms, relation, target and source, got {dict(row)}; relations are "
                f"{', '.join(_RELATIONS)}"
            )
        for spelling in row["terms"].split("|"):
            key = tuple(_TOKEN.findall(spelling.lower()))
            if key in table:
                raise DataError(f"terms.csv: {spelling!r} occurs twice; keep one meaning")
            table[key] = Term(spelling.lower(), relation, row["target"].lower(), row["source"])
    return table


def canonical_terms(
    question: str, known_words: Container[str], terms: Mapping[tuple[str, ...], Term] | None = None
) -> CanonicalQuestion:
    """Replace terms that contain a word unknown to the model by words that it knows and that mean the same.

    Args:
        question: As typed.
        known_words: Words of the model's vocabulary; a Chinese word is its characters.
        terms: The table; the package's own by default.

    Returns:
        The question, what was replaced, and the terms that could not be.
    """
    table = medical_terms() if terms is None else terms
    tokens = list(_TOKEN.finditer(question.lower()))
    asks_for_place = _PLACE.search(question.lower()) is not None
    replaced: list[tuple[str, str]] = []
    outside: list[Term] = []
    parts: list[str] = []
    copied = 0
    for start, stop, term in _matches([token.group() for token in tokens], known_words, table):
        usable = term.relation in ("same", "filler") or (term.relation == "place" and asks_for_place)
        if not usable or not all(word in known_words for word in _TOKEN.findall(term.target)):
            outside.append(term)
            continue
        parts += [question[copied : tokens[start].start()], term.target]
        copied = tokens[stop - 1].end()
        replaced.append((question[tokens[start].start() : copied], term.target))
    text = "".join([*parts, question[copied:]]) if replaced else question
    return CanonicalQuestion(text, tuple(replaced), tuple(outside))


def _matches(
    tokens: Sequence[str], known_words: Container[str], table: Mapping[tuple[str, ...], Term]
) -> Iterator[tuple[int, int, Term]]:
    """Terms with an unknown word, from left to right, the longest first: (first token, one past the last, term)."""
    longest = max(map(len, table), default=0)
    place = 0
    while place < len(tokens):
        for stop in range(min(len(tokens), place + longest), place, -1):
            key = tuple(tokens[place:stop])
            if all(token in known_words for token in key):
                continue
            term = next((table[form] for form in _singular_forms(key) if form in table), None)
            if term is not None:
                yield place, stop, term
                place = stop
                break
        else:
            place += 1


def _singular_forms(key: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The tokens themselves, and with the last one without a regular plural's ending."""
    yield key
    last = key[-1]
    if last.endswith("ies"):
        yield (*key[:-1], last[:-3] + "y")
    if last.endswith("es"):
        yield (*key[:-1], last[:-2])
    if last.endswith("s") and len(last) > 3:
        yield (*key[:-1], last[:-1])

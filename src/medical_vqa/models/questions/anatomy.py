"""Organs, body parts and findings that a question names, and what contains them, by the table ``anatomy.csv``."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Literal, get_args

from medical_vqa.errors import DataError

Kind = Literal["part", "organ", "finding", "system"]
"""What a structure is; the head of ``anatomy.csv`` defines them."""
_ALL: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Structure:
    """An organ, a body part, a finding of one organ, or an organ system."""

    name: str
    """Its English name, lower case."""
    kind: Kind
    """What it is."""
    within: frozenset[str]
    """Names of all that contains it, directly or not: of the temporal lobe the brain and the head."""
    body_parts: frozenset[str]
    """Body parts whose pictures may show it; of a body part itself that one alone. Empty for an organ system."""


_IN_THE_PICTURE = re.compile(r"(?<=[图片像])中")
"""Chinese for "in (the picture)", which is the first half of the midbrain where the brain follows."""


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The structures of a table, by what texts call them."""

    structures: Mapping[str, Structure]
    """Name -> structure."""
    english: Mapping[str, str]
    """English spelling, lower case -> name."""
    chinese: Mapping[str, str]
    """Chinese spelling -> name."""

    def structures_in(self, text: str) -> list[Structure]:
        """What a text names, each structure once, in order; the longest spelling counts where several match."""
        return [self.structures[name] for name in dict.fromkeys(name for _, name in self.mentions_in(text))]

    def mentions_in(self, text: str) -> list[tuple[str, str]]:
        """The words of a text that name a structure, with its name, in order: Chinese ones first."""
        chinese = _IN_THE_PICTURE.sub(" ", text)
        lower = re.sub(r"[^\w\u4e00-\u9fff]+", " ", text.lower())
        return [
            (match.group(), self.chinese[match.group()])
            for match in _pattern_of(tuple(self.chinese), words=False).finditer(chinese)
        ] + [
            (match.group(), self.english[match.group(1)])
            for match in _pattern_of(tuple(self.english), words=True).finditer(lower)
        ]

    def body_parts_in(self, text: str) -> frozenset[str]:
        """The body parts that a description of a picture names, or that its organs lie in.

        An organ of several body parts (the spinal cord) counts where nothing else is named.
        """
        parts = [structure.body_parts for structure in self.structures_in(text) if structure.body_parts]
        certain = [names for names in parts if len(names) == 1]
        return frozenset().union(*(certain or parts))


@lru_cache(maxsize=1)
def anatomy() -> Anatomy:
    """The package's table; raises `DataError` when a row of it is damaged."""
    text = resources.files("medical_vqa.models.questions").joinpath("anatomy.csv").read_text(encoding="utf-8")
    return read_anatomy(text)


def read_anatomy(text: str) -> Anatomy:
    """Read a table; raises `DataError` on an unknown kind or container, and on a spelling that occurs twice."""
    rows = list(csv.DictReader(line for line in text.splitlines() if line.strip() and not line.startswith("#")))
    containers = {row["name"]: [name for name in (row["within"] or "").split("|") if name] for row in rows}
    kind_of: dict[str, Kind] = {}
    spellings: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for row in rows:
        kind = next((known for known in _ALL if known == row["kind"]), None)
        if kind is None or not containers.keys() >= set(containers[row["name"]]):
            raise DataError(
                f"anatomy.csv: expected one of {', '.join(_ALL)} within names of the table, got {dict(row)}"
            )
        kind_of[row["name"]] = kind
        for table, column in zip(spellings, ("spellings", "chinese"), strict=True):
            for spelling in filter(None, row[column].split("|")):
                if table.setdefault(spelling, row["name"]) != row["name"]:
                    raise DataError(f"anatomy.csv: {spelling!r} names two structures; keep one")
    structures = {}
    for name, kind in kind_of.items():
        within = frozenset(_ancestors(name, containers))
        parts = {other for other in {name, *within} if kind_of[other] == "part"}
        structures[name] = Structure(name, kind, within, frozenset(parts))
    return Anatomy(structures, *spellings)


def _ancestors(name: str, containers: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for container in containers[name]:
        yield container
        yield from _ancestors(container, containers)


@lru_cache(maxsize=8)
def _pattern_of(spellings: tuple[str, ...], *, words: bool) -> re.Pattern[str]:
    """A pattern of the spellings, the longest first; of English words with a regular plural."""
    longest_first = "|".join(re.escape(spelling) for spelling in sorted(spellings, key=lambda text: (-len(text), text)))
    return re.compile(rf"\b({longest_first})(?:e?s)?\b" if words else longest_first or "(?!)")

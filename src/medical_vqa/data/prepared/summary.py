"""Counts of a prepared dataset for a table: questions and images per split, questions per fact."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medical_vqa.schema.records import SPLITS, Example, Split

if TYPE_CHECKING:
    from medical_vqa.data.prepared.manifest import Manifest

MAX_VALUES = 20
"""Facts with more values, such as a question's number, are left out."""

Rows = Mapping[Split, Sequence[Example]]


@dataclass(frozen=True, slots=True)
class TableRow:
    """One line of the table."""

    fact: str
    """``questions``, ``images``, or the name of a fact: ``modality``."""
    value: str
    """Value of the fact; empty for questions and images."""
    counts: Mapping[Split, int]
    """Questions or images per split; 0 where the value does not occur."""


def manifest_table(manifest: Manifest, examples: Rows) -> list[TableRow]:
    """Questions and distinct images per split, then questions per value of each fact.

    Args:
        manifest: Manifest of the prepared dataset.
        examples: Rows by split.
    """
    splits = _ordered(examples)
    images = {split: len(_contents(manifest, examples[split])) for split in splits}
    table = [
        TableRow("questions", "", {split: len(examples[split]) for split in splits}),
        TableRow("images", "", images),
    ]
    for fact in dict.fromkeys(key for split in splits for example in examples[split] for key in example.facts):
        table += _fact_rows(fact, examples)
    return table


def shared_images(manifest: Manifest, examples: Rows) -> list[str]:
    """A sentence for each pair of splits that have images of the same content in common."""
    sentences = []
    for first, second in itertools.combinations(_ordered(examples), 2):
        shared = _contents(manifest, examples[first]) & _contents(manifest, examples[second])
        if shared:
            noun = "image is" if len(shared) == 1 else "images are"
            sentences.append(f"{len(shared)} {noun} in both {first} and {second}")
    return sentences


def _ordered(examples: Rows) -> list[Split]:
    return [split for split in SPLITS if split in examples]


def _contents(manifest: Manifest, examples: Sequence[Example]) -> set[str]:
    return {manifest.images[example.image_id].sha256 for example in examples}


def _fact_rows(fact: str, examples: Rows) -> list[TableRow]:
    splits = _ordered(examples)
    counts = {s: Counter(e.facts[fact] for e in examples[s] if fact in e.facts) for s in splits}
    total: Counter[str] = sum(counts.values(), Counter())
    if len(total) > MAX_VALUES:
        return []
    values = sorted(total, key=lambda value: (-total[value], value))
    return [TableRow(fact, value, {split: counts[split][value] for split in splits}) for value in values]

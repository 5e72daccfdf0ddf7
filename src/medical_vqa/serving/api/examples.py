"""The examples that a server offers: pictures of the shipped sample's validation split, with their questions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from medical_vqa.data.formats.slake import read_slake
from medical_vqa.data.formats.slake_mini import CARD, SlakeMini
from medical_vqa.schema.records import Example
from medical_vqa.serving.api.schema import ExampleImage, Examples

COUNT = 8
"""Pictures."""
_QUESTIONS = 6  # of each, and of those that suit most pictures


@dataclass(frozen=True, slots=True)
class Shipped:
    """The examples and where their pictures are."""

    examples: Examples
    """As a client gets them."""
    pictures: dict[str, Path]
    """Example id -> JPEG file."""


@cache
def shipped_examples() -> Shipped:
    """One picture of each kind (modality and organ) in the sample's validation split, the commonest kinds first."""
    folder = SlakeMini().bundled()
    rows = read_slake(folder, name=CARD.name, splits=("validation",)).examples["validation"]
    of_image: dict[str, list[Example]] = {}
    for row in rows:
        of_image.setdefault(row.image_id, []).append(row)
    kinds: dict[str, list[str]] = {}
    for image, asked in of_image.items():
        kinds.setdefault(_caption(asked[0]), []).append(image)
    chosen = [images[0] for _, images in sorted(kinds.items(), key=lambda kind: -len(kind[1]))][:COUNT]
    examples = Examples(
        examples=[_example(image, of_image[image]) for image in chosen],
        questions=[question for question, _ in Counter(row.question for row in rows).most_common(_QUESTIONS)],
        source=f"{CARD.title}; {CARD.license}",
    )
    return Shipped(examples, {_name(image): folder / "imgs" / _name(image) / "source.jpg" for image in chosen})


def _example(image: str, rows: list[Example]) -> ExampleImage:
    asked = list({row.question: row for row in rows if row.answers}.values())[:_QUESTIONS]
    return ExampleImage(
        id=_name(image),
        image=f"/examples/{_name(image)}/image",
        caption=_caption(rows[0]),
        questions=[row.question for row in asked],
        answers=[row.answers[0] for row in asked],
    )


def _caption(row: Example) -> str:
    return ", ".join(row.facts[fact] for fact in ("modality", "location") if row.facts.get(fact))


def _name(image: str) -> str:
    return image.rpartition("/")[2]

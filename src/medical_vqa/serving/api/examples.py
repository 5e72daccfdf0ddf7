"""The examples that a server offers: images of the bundled sample's validation split, with their questions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from medical_vqa.data.formats.slake import read_slake
from medical_vqa.data.formats.slake_mini import CARD, SlakeMini
from medical_vqa.schema.records import Example
from medical_vqa.serving.schema.examples import ExampleImage, Examples

_IMAGES = 8
_QUESTIONS = 6  # about each image, and of those that suit most images


@dataclass(frozen=True, slots=True)
class BundledExamples:
    """The examples and their files."""

    examples: Examples
    """The response of GET /examples."""
    files: dict[str, Path]
    """Example id -> JPEG file."""


@cache
def bundled_examples() -> BundledExamples:
    """One image of each modality and organ in the sample's validation split, the most frequent combinations first."""
    folder = SlakeMini().bundled()
    rows = read_slake(folder, name=CARD.name, splits=("validation",)).examples["validation"]
    rows_by_image: dict[str, list[Example]] = {}
    for row in rows:
        rows_by_image.setdefault(row.image_id, []).append(row)
    images_by_caption: dict[str, list[str]] = {}
    for image_id, image_rows in rows_by_image.items():
        images_by_caption.setdefault(_caption(image_rows[0]), []).append(image_id)
    most_frequent = sorted(images_by_caption.values(), key=len, reverse=True)[:_IMAGES]
    image_ids = [same_caption[0] for same_caption in most_frequent]
    examples = Examples(
        examples=[_example(image_id, rows_by_image[image_id]) for image_id in image_ids],
        questions=[question for question, _ in Counter(row.question for row in rows).most_common(_QUESTIONS)],
        source=f"{CARD.title}; {CARD.license}",
    )
    names = [_example_id(image_id) for image_id in image_ids]
    return BundledExamples(examples, {name: folder / "imgs" / name / "source.jpg" for name in names})


def _example(image_id: str, rows: list[Example]) -> ExampleImage:
    distinct_rows = list({row.question: row for row in rows if row.answers}.values())[:_QUESTIONS]
    name = _example_id(image_id)
    return ExampleImage(
        id=name,
        image_path=f"/examples/{name}/image",
        caption=_caption(rows[0]),
        questions=[row.question for row in distinct_rows],
        answers=[row.answers[0] for row in distinct_rows],
    )


def _caption(row: Example) -> str:
    return ", ".join(row.facts[name] for name in ("modality", "location") if row.facts.get(name))


def _example_id(image_id: str) -> str:
    return image_id.rpartition("/")[2]

"""What the guards of the shipped model let pass: `python benchmarks/guards.py [BUNDLE]`.

On SLAKE's English validation questions: the fraction that is answered and how many of those are right, the same of
questions for findings, the reasons for the others; and how many of generated pictures that are no radiology pictures
(noise, blurred noise, gradients, constants, masks, documents, drawings) are answered. The thresholds were chosen on
the same validation rows by `medical-vqa calibrate`, so these figures are of the data that chose them. Needs SLAKE,
prepared.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from medical_vqa.data.imaging.picture_statistics import PictureContext, PictureStatistics
from medical_vqa.data.imaging.preprocessing import prepare_picture
from medical_vqa.data.prepared.dataset import default_root
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.models.base import Query
from medical_vqa.models.guards.guard import GuardedAnswer
from medical_vqa.models.guards.reliability import is_right
from medical_vqa.pipelines.load import LoadedModel, load
from medical_vqa.pipelines.queries import queries
from medical_vqa.schema.records import Example
from medical_vqa.schema.selection import Selection

BATCH = 32
OF_EACH_KIND = 40
QUESTIONS = ("What modality is this image?", "Is there a tumor?", "Is the lung healthy?")


def main() -> None:
    """Ask everything once, and print one JSON object."""
    loaded = load(sys.argv[1] if len(sys.argv) > 1 else "shipped")
    root = Path(sys.argv[2]) if len(sys.argv) > 2 else default_root()
    data = SelectedDataset.open(Selection(dataset="slake", root=root, where={"language": "en"}))
    rows = data.rows("validation")
    asked = list(queries(data, rows, loaded.model))
    answers: list[GuardedAnswer] = []
    for start in range(0, len(asked), BATCH):
        answers += loaded.guards.answer(asked[start : start + BATCH])
    figures = {
        "model": loaded.card.name,
        "files": dict(loaded.card.files),
        "validation": summary(loaded, rows, answers),
        "not radiology": not_radiology(loaded),
    }
    json.dump(figures, sys.stdout, indent=1)


def summary(loaded: LoadedModel, rows: list[Example], answers: list[GuardedAnswer]) -> dict[str, object]:
    """Coverage, exact match of what is answered, and the reasons for the rest."""
    reference = loaded.guards.reference
    pairs = list(zip(rows, answers, strict=True))
    shown = [(row, answer) for row, answer in pairs if not answer.abstention.abstained]
    findings = [(row, answer) for row, answer in shown if reference and reference.asks_for_finding(row.question)]
    asked_findings = [row for row in rows if reference and reference.asks_for_finding(row.question)]
    return {
        "questions": len(rows),
        "answered": round(len(shown) / len(rows), 4),
        "em of the answered": exact_match(shown),
        "em of all": exact_match(pairs),
        "finding questions": len(asked_findings),
        "finding questions answered": len(findings),
        "em of the answered finding questions": exact_match(findings),
        "answered finding questions that the picture does not move": sum(
            answer.dependence is not None and not answer.dependence.depends_on_image for _, answer in findings
        ),
        "reasons": dict(Counter(answer.abstention.code or "answered" for answer in answers)),
        "sources of the answered": dict(Counter(answer.source or "not measured" for _, answer in shown)),
        "pictures refused": len(
            {row.image_id for row, a in pairs if (a.abstention.code or "").startswith("not_radio")}
        ),
        "pictures": len({row.image_id for row in rows}),
    }


def exact_match(pairs: list[tuple[Example, GuardedAnswer]]) -> float | None:
    """Fraction of answers that are right, under SQuAD's normalization; None for no answers."""
    right = [is_right(answer.prediction, row) for row, answer in pairs]
    return round(sum(right) / len(right), 4) if right else None


def not_radiology(loaded: LoadedModel) -> dict[str, object]:
    """How many questions about generated pictures are answered, by kind of picture."""
    spec = loaded.model.picture
    if spec is None:
        return {}
    answered: dict[str, list[bool]] = defaultdict(list)
    for number, (kind, image) in enumerate(generated()):
        visual = prepare_picture(image, spec)
        pixels = np.asarray(image)
        context = PictureContext(PictureStatistics.of(pixels.reshape(*pixels.shape[:2], -1)))
        asked = [Query(f"{number}/{n}", text, f"p{number}", visual) for n, text in enumerate(QUESTIONS)]
        for answer in loaded.guards.answer(asked, {f"p{number}": context}):
            answered[kind].append(not answer.abstention.abstained)
    total = [value for values in answered.values() for value in values]
    return {
        "pictures": len(total) // len(QUESTIONS),
        "questions": len(total),
        "answered": sum(total),
        **{kind: f"{sum(values)} of {len(values)} answered" for kind, values in answered.items()},
    }


def generated(seed: int = 0) -> list[tuple[str, Image.Image]]:
    """Pictures that no scanner makes, the same at every call."""
    rng, letters = np.random.default_rng(seed), random.Random(seed)
    pictures: list[tuple[str, Image.Image]] = []
    for _ in range(OF_EACH_KIND):
        height, width = (int(side) for side in rng.integers(100, 600, 2))
        noise = Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8))
        gradient = Image.fromarray(np.linspace(0, 255, 300).astype(np.uint8)[None].repeat(300, 0))
        pictures += [
            ("noise", noise),
            ("blurred noise", noise.filter(ImageFilter.GaussianBlur(float(rng.uniform(1, 12))))),
            ("gradient", gradient.rotate(float(rng.uniform(0, 360)))),
            ("constant", Image.new("L", (256, 256), int(rng.integers(0, 256)))),
            ("mask", shapes(rng, Image.new("L", (512, 512), 0), count=4)),
            ("document", document(rng, letters)),
            ("drawing", shapes(rng, Image.new("RGB", (400, 400), color(rng)), count=14)),
        ]
    return pictures


def color(rng: np.random.Generator) -> tuple[int, int, int]:
    """A random color."""
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    return red, green, blue


def shapes(rng: np.random.Generator, image: Image.Image, *, count: int) -> Image.Image:
    """Ellipses and rectangles on a ground."""
    draw = ImageDraw.Draw(image)
    for number in range(count):
        x, y = (int(value) for value in rng.integers(0, image.width - 120, 2))
        width, height = (int(value) for value in rng.integers(20, 120, 2))
        fill = color(rng) if image.mode == "RGB" else int(rng.integers(40, 256))
        outline = draw.rectangle if number % 2 and image.mode == "RGB" else draw.ellipse
        outline([x, y, x + width, y + height], fill=fill)
    return image


def document(rng: np.random.Generator, letters: random.Random) -> Image.Image:
    """Black lines of text on white."""
    image = Image.new("RGB", (int(rng.integers(300, 900)), int(rng.integers(300, 900))), "white")
    draw = ImageDraw.Draw(image)
    for y in range(20, image.height - 20, int(rng.integers(14, 30))):
        words = ("".join(letters.choices("abcdefghijklmnop", k=letters.randint(2, 9))) for _ in range(18))
        draw.text((20, y), " ".join(words), fill="black")
    return image


if __name__ == "__main__":
    main()

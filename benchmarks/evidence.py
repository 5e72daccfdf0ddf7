"""Evidence against SLAKE's masks and boxes: `python benchmarks/evidence.py [BUNDLE] --source SLAKE [--card]`.

Takes every validation picture, lets the model localize each organ and finding that the picture's masks and boxes have,
and compares the outline with the mask (Dice) and the bounding box with the box (intersection over union, IoU), in
pixels of the picture. What is not localized counts as 0. A point is a hit where the most probable place lies in the
mask or box. What the model localizes although a completely annotated picture lacks it is counted as well.
``--card`` writes the figures into the bundle's card.

Chance is measured on the same pictures: the outline of the same entity in another validation picture.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from measured_model import MEASURED, require_unseen
from medical_vqa.data.imaging.geometry import PictureGeometry
from medical_vqa.data.prepared.dataset import default_root
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.models.base import Localization
from medical_vqa.models.guards.evidence import evidence_of
from medical_vqa.pipelines.bundles import find_bundle, load_model
from medical_vqa.pipelines.queries import queries
from medical_vqa.schema.bundle_card import LocalizationScore, LocalizationScores, read_bundle_card, write_bundle_card
from medical_vqa.schema.evidence import Evidence
from medical_vqa.schema.selection import Selection

RESULTS = Path(__file__).parent / "results" / "evidence.json"
FEWEST = 5
"""Entities in fewer pictures have no row of their own in the card."""
Mask = NDArray[np.bool_]
Box = tuple[float, float, float, float]


@dataclass
class Row:
    """One entity in one picture."""

    picture: str
    name: str
    dice: float | None
    box_iou: float | None
    hit: bool
    area_ratio: float | None = None
    dice_of_another_picture: float | None = None
    mask: Mask | None = field(default=None, repr=False)
    item: Evidence | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        """The figures."""
        figures = (self.dice, self.box_iou, self.area_ratio, self.dice_of_another_picture)
        dice, box_iou, ratio, other = (None if value is None else round(value, 4) for value in figures)
        return {
            "picture": self.picture,
            "name": self.name,
            "localized": self.item is not None,
            "learned_from": self.item.learned_from if self.item else None,
            "dice": dice,
            "box_iou": box_iou,
            "hit": self.hit,
            "area_over_that_of_the_mask": ratio,
            "dice_of_another_picture": other,
        }


def main() -> None:
    """Compare, print the medians, write the raw figures, and the card where that is requested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", default=MEASURED)
    parser.add_argument("--source", type=Path, required=True, help="SLAKE in the authors' layout, with its masks")
    parser.add_argument("--root", type=Path, default=default_root())
    parser.add_argument("--dataset", default="slake", help="SLAKE's prepared pictures, or a fold of cross_validate.py")
    parser.add_argument("--card", action="store_true", help="write the figures into the bundle's card")
    options = parser.parse_args()
    bundle = find_bundle(options.bundle)
    require_unseen(read_bundle_card(bundle))
    rows, absent, pictures = compared(
        bundle, options.source, Selection(dataset=options.dataset, root=options.root, where={"language": "en"})
    )
    scores = card_scores(rows, pictures, sum(absent.values()))
    card = read_bundle_card(bundle)
    results = {
        "model": card.name,
        "files": {name: card.files[name] for name in sorted(card.files) if name.endswith((".onnx", ".safetensors"))},
        "cores": len(os.sched_getaffinity(0)),
        "scores": scores.model_dump(mode="json"),
        "mask_of_another_picture_median_dice": median([row.dice_of_another_picture for row in rows]),
        "localized_although_absent": dict(sorted(absent.items())),
        "rows": [row.to_json() for row in rows],
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    json.dump({k: v for k, v in results.items() if k not in ("rows", "files")}, sys.stdout, indent=1)
    if options.card:
        write_bundle_card(bundle, card.model_copy(update={"localization": scores}))


def compared(bundle: Path, source: Path, selection: Selection) -> tuple[list[Row], dict[str, int], int]:
    """A row for every annotated entity in every validation picture, counts of entities localized although absent, and
    the number of pictures."""
    model: Any
    model, _ = load_model(bundle, "cpu")
    data = SelectedDataset.open(selection)
    one_row = {row.image_id: row for row in data.rows("validation")}
    lines = (source / "mask.txt").read_text(encoding="utf-8").splitlines()  # 70:Liver
    organs = {name.strip(): int(value) for value, name in (line.split(":", 1) for line in lines if line.strip())}
    rows: list[Row] = []
    absent: dict[str, int] = defaultdict(int)
    for query, image_id in zip(queries(data, list(one_row.values()), model), one_row, strict=True):
        stem = image_id.rpartition("/")[2]
        with Image.open(source / "imgs" / stem / "source.jpg") as image:
            geometry = PictureGeometry(*image.size)
        regions = model.to_numpy(model.vision.encode([query.visual])[0]["regions"]).astype(np.float64)
        by_name = localizations(regions, model.settings.regions)
        masks, boxes = masks_of(source, stem, organs, geometry), boxes_of(source, stem)
        items = {name: evidence_of(group, geometry, model.picture) for name, group in by_name.items()}
        for name in sorted(by_name):
            item = items[name][0] if items[name] else None
            if name in masks or name in boxes:
                place = most_probable_place(by_name[name], item, geometry)
                rows.append(row_of(stem, name, item, masks.get(name), boxes.get(name), place))
            elif masks and item is not None and item.learned_from == "mask":
                absent[name] += 1
    with_other_pictures(rows)
    return rows, dict(absent), len(one_row)


def localizations(regions: NDArray[np.float64], names: Sequence[str]) -> dict[str, list[Localization]]:
    """Name -> its localizations, from masks first, as the model returns them for a question."""
    by_name: dict[str, list[Localization]] = defaultdict(list)
    for number in sorted(range(len(names)), key=lambda number: not names[number].startswith("mask")):
        kind, _, name = names[number].partition(": ")
        by_name[name].append(Localization(name, "mask" if kind == "mask" else "box", regions[number]))
    return dict(by_name)


def masks_of(source: Path, stem: str, organs: Mapping[str, int], geometry: PictureGeometry) -> dict[str, Mask]:
    """Name -> mask of what a picture has, at the picture's size: most masks have half of it or less."""
    path = source / "masks" / f"{stem}.png"
    if not path.is_file():
        return {}
    with Image.open(path) as image:
        values = np.asarray(image.resize((geometry.width, geometry.height), Image.Resampling.NEAREST))
    if values.ndim != 2:
        return {}
    return {name: values == value for name, value in organs.items() if (values == value).any()}


def boxes_of(source: Path, stem: str) -> dict[str, Box]:
    """Name -> left, top, right and bottom of all boxes of that name together."""
    boxes: dict[str, Box] = {}
    annotations = json.loads((source / "imgs" / stem / "detection.json").read_text(encoding="utf-8"))
    for name, (x, y, width, height) in (item for annotation in annotations for item in annotation.items()):
        box = (x, y, x + width, y + height)
        other = boxes.get(name, box)
        boxes[name] = (*map(min, box[:2], other[:2]), *map(max, box[2:], other[2:]))  # type: ignore[assignment]
    return boxes


def row_of(stem: str, name: str, item: Evidence | None, mask: Mask | None, box: Box | None, place: Any) -> Row:
    """Compare one item with the mask and the box."""
    x, y = place
    if mask is not None:
        hit = bool(mask[min(int(y), mask.shape[0] - 1), min(int(x), mask.shape[1] - 1)])
    else:
        hit = box is not None and box[0] <= x <= box[2] and box[1] <= y <= box[3]
    return Row(
        stem,
        name,
        dice=None if mask is None else dice(drawn(item, mask.shape), mask),
        box_iou=None if box is None else box_iou(item, box),
        hit=bool(hit),
        area_ratio=item.area / float(mask.sum()) if item is not None and mask is not None else None,
        mask=mask,
        item=item,
    )


def with_other_pictures(rows: Sequence[Row]) -> None:
    """Add the Dice of the outline of the same entity in the next picture that has a mask of the same shape."""
    by_name: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.mask is not None:
            by_name[row.name].append(row)
    for members in by_name.values():
        for number, row in enumerate(members):
            others = [other for other in members[number + 1 :] + members[:number] if other.mask.shape == row.mask.shape]
            if others:
                row.dice_of_another_picture = dice(drawn(others[0].item, row.mask.shape), row.mask)


def drawn(item: Evidence | None, shape: tuple[int, ...]) -> Mask:
    """The polygon as a mask."""
    image = Image.new("1", (shape[1], shape[0]))
    draw = ImageDraw.Draw(image)
    for border, *holes in item.polygon.coordinates if item is not None else ():
        draw.polygon([(x - 0.5, y - 0.5) for x, y in border], fill=1)
        for hole in holes:
            draw.polygon([(x - 0.5, y - 0.5) for x, y in hole], fill=0)
    return np.array(image, bool)


def most_probable_place(candidates: Sequence[Localization], item: Evidence | None, geometry: PictureGeometry) -> Any:
    """x and y of the most probable cell, of the localization that the item was made of, or else of the first."""
    chosen = next(
        (one for one in candidates if item is not None and one.learned_from == item.learned_from), candidates[0]
    )
    row, column = np.unravel_index(int(chosen.probability.argmax()), chosen.probability.shape)
    rows, columns = chosen.probability.shape
    return (column + 0.5) / columns * geometry.width, (row + 0.5) / rows * geometry.height


def dice(one: Mask, other: Mask) -> float:
    """Twice the common area over the sum of the areas. Source: Dice 1945, Ecology 26 (3)."""
    total = one.sum() + other.sum()
    return float(2 * (one & other).sum() / total) if total else 0.0


def box_iou(item: Evidence | None, box: Box) -> float:
    """Intersection over union of the item's box and a box."""
    if item is None:
        return 0.0
    width = min(item.box[2], box[2]) - max(item.box[0], box[0])
    height = min(item.box[3], box[3]) - max(item.box[1], box[1])
    common = max(0.0, width) * max(0.0, height)
    union = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (item.box, box)) - common
    return common / union if union else 0.0


def card_scores(rows: Sequence[Row], pictures: int, absent: int) -> LocalizationScores:
    """Figures of all rows, and of each entity in enough pictures."""
    by_name: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_name[row.name].append(row)
    return LocalizationScores(
        measured_on=f"slake validation, {pictures} pictures",
        all=score("all", rows),
        entities=tuple(score(name, group) for name, group in sorted(by_name.items()) if len(group) >= FEWEST),
        localized_although_absent=absent,
    )


def score(name: str, rows: Sequence[Row]) -> LocalizationScore:
    """Medians and fractions of some rows."""
    return LocalizationScore(
        name=name,
        pictures=len(rows),
        localized=fraction([row.item is not None for row in rows]),
        pointing=fraction([row.hit for row in rows]),
        masks=sum(row.dice is not None for row in rows),
        median_dice=median([row.dice for row in rows]),
        boxes=sum(row.box_iou is not None for row in rows),
        median_box_iou=median([row.box_iou for row in rows]),
    )


def median(values: Sequence[float | None]) -> float | None:
    """Median of what was measured; None where nothing was."""
    measured = [value for value in values if value is not None]
    return round(float(np.median(measured)), 4) if measured else None


def fraction(values: Sequence[bool]) -> float:
    """Fraction of true values."""
    return round(sum(values) / len(values), 4)


if __name__ == "__main__":
    main()

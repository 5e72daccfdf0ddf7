"""SLAKE's radiographs among those of ChestX-ray14: `python benchmarks/slake_in_chestx_ray14.py SLAKE CHESTX_RAY14`.

Both are folders of published files; of ChestX-ray14 the tables of labels and boxes are enough. A radiograph of SLAKE
is found by its boxes of findings, which agree within a pixel. For every finding: in how many radiographs SLAKE has a
box, in how many of the others the report names the finding all the same, and the area under the ROC curve that the
labels of the reports reach against SLAKE's boxes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

from medical_vqa.data.formats.table_files import table_rows

NAMES = {
    "Atelectasis": "Atelectasis", "Cardiomegaly": "Cardiomegaly", "Effusion": "Effusion", "Infiltrate": "Infiltration",
    "Mass": "Mass", "Nodule": "Nodule", "Pneumonia": "Pneumonia", "Pneumothorax": "Pneumothorax",
}  # fmt: skip
"""Finding in SLAKE's boxes, as in those of ChestX-ray14 -> label of a report."""
Box = tuple[str, tuple[float, ...]]


def main() -> None:
    """Match every radiograph and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slake", type=Path)
    parser.add_argument("chestx_ray14", type=Path)
    arguments = parser.parse_args()
    published = published_boxes(arguments.chestx_ray14 / "BBox_List_2017.csv")
    (table,) = arguments.chestx_ray14.glob("Data_Entry_2017*.csv")
    reports = {str(row["Image Index"]): str(row["Finding Labels"]).split("|") for row in table_rows(table)}
    own = slake_boxes(arguments.slake)
    found = {image: matches for image, boxes in own.items() if (matches := matching(boxes, published))}
    several = sum(len(matches) > 1 for matches in found.values())
    pairs = [({name for name, _ in own[image]}, set(reports[matches[0]])) for image, matches in found.items()]
    figures = {
        "radiographs of SLAKE with boxes of findings": len(own),
        "their boxes": sum(map(len, own.values())),
        "radiographs all of whose boxes are those of one image of ChestX-ray14": len(found),
        "of more than one": several,
        "findings": {
            name: agreement([(name in boxed, NAMES[name] in report) for boxed, report in pairs]) for name in NAMES
        },
    }
    json.dump(figures, sys.stdout, indent=1)


def slake_boxes(source: Path) -> dict[str, list[Box]]:
    """The boxes of findings in each image of SLAKE that has any."""
    boxes: defaultdict[str, list[Box]] = defaultdict(list)
    for path in sorted(source.glob("imgs/*/detection.json")):
        for entry in json.loads(path.read_text(encoding="utf-8")):
            for name, box in entry.items():
                if name in NAMES and len(box) == 4:
                    boxes[path.parent.name].append((name, tuple(map(float, box))))
    return dict(boxes)


def published_boxes(path: Path) -> dict[str, list[Box]]:
    """The boxes of each image of ChestX-ray14 that has any."""
    boxes: defaultdict[str, list[Box]] = defaultdict(list)
    for row in table_rows(path):
        box = tuple(float(row[column]) for column in ("Bbox [x", "y", "w", "h]"))
        boxes[str(row["Image Index"])].append((str(row["Finding Label"]), box))
    return dict(boxes)


def matching(boxes: list[Box], published: dict[str, list[Box]]) -> list[str]:
    """The images of ChestX-ray14 that have all these boxes."""
    return [image for image, theirs in published.items() if all(any(same(a, b) for b in theirs) for a in boxes)]


def same(one: Box, other: Box) -> bool:
    """Whether two boxes are of one finding and agree within a pixel."""
    return one[0] == other[0] and all(abs(a - b) <= 1 for a, b in zip(one[1], other[1], strict=True))


def agreement(pairs: list[tuple[bool, bool]]) -> dict[str, float]:
    """How a label of reports agrees with SLAKE's boxes: (has a box, is in the report) of each radiograph."""
    sensitivity = sum(box and report for box, report in pairs) / sum(box for box, _ in pairs)
    without_box = sum(not box for box, _ in pairs)
    unmarked = sum(report and not box for box, report in pairs)
    return {
        "with a box": len(pairs) - without_box,
        "without": without_box,
        "of these, named in the report": unmarked,
        "fraction": round(unmarked / without_box, 3),
        "AUC of the report": round((sensitivity + 1 - unmarked / without_box) / 2, 3),
    }


if __name__ == "__main__":
    main()

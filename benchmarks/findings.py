"""How well the compact model tells which organs and findings a picture shows: `python benchmarks/findings.py [BUNDLE]`.

``--dataset`` and ``--root`` name other prepared pictures than SLAKE's, such as a fold of `tools/cross_validate.py`.

For every kind of region whose masks or boxes are known in SLAKE's English validation pictures: the area under the ROC
curve (Mann-Whitney) of the highest share that the network gives it in any cell, in all pictures and in radiographs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from measured_model import MEASURED, require_unseen
from medical_vqa.data.cache.regions import UNKNOWN
from medical_vqa.data.prepared.dataset import default_root
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.pipelines.bundles import find_bundle, load_model
from medical_vqa.pipelines.queries import queries
from medical_vqa.schema.selection import Selection

FEWEST = 2  # pictures with it, and without


def main() -> None:
    """Look at every picture once, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", default=MEASURED)
    parser.add_argument("--dataset", default="slake")
    parser.add_argument("--root", type=Path, default=default_root())
    arguments = parser.parse_args()
    model: Any
    model, card = load_model(find_bundle(arguments.bundle), "cpu")
    require_unseen(card)
    selection = Selection(dataset=arguments.dataset, root=arguments.root, where={"language": "en"})
    data = SelectedDataset.open(selection)
    rows = data.rows("validation")
    store = data.dataset.regions
    asked = {query.image: (query.visual, row) for query, row in zip(queries(data, rows, model), rows, strict=True)}
    found = {image: model.to_numpy(model.vision.encode([visual])[0]["regions"]) for image, (visual, _) in asked.items()}
    radiographs = {image for image, (_, row) in asked.items() if row.facts["modality"] == "X-Ray"}
    kinds = {}
    for place, name in enumerate(model.settings.regions):
        known = [image for image in found if store.get(image)[place, 0, 0] != UNKNOWN]
        areas = {
            where: area(
                [float(found[i][place].max()) for i in images], [bool(store.get(i)[place].max()) for i in images]
            )
            for where, images in (("all", known), ("radiographs", [i for i in known if i in radiographs]))
        }
        if areas["all"] is not None:
            kinds[name] = {"pictures": len(known), **areas}
    in_radiographs = [areas["radiographs"] for areas in kinds.values() if areas["radiographs"] is not None]
    found_areas = {
        "model": card.name,
        "files": dict(card.files),
        "mean of radiographs": round(float(np.mean(in_radiographs)), 3) if in_radiographs else None,
        "kinds": kinds,
    }
    json.dump(found_areas, sys.stdout, indent=1)


def area(scores: Sequence[float], there: Sequence[bool]) -> float | None:
    """The share of pairs, one with it and one without, that the scores put in order; None where there are too few."""
    with_it = np.array([score for score, yes in zip(scores, there, strict=True) if yes])
    without = np.array([score for score, yes in zip(scores, there, strict=True) if not yes])
    if min(len(with_it), len(without)) < FEWEST:
        return None
    above = (with_it[:, None] > without).mean() + 0.5 * (with_it[:, None] == without).mean()
    return round(float(above), 3)


if __name__ == "__main__":
    main()

"""What a wider field of view does to the score: `python benchmarks/field_of_view.py [BUNDLE ...]`.

SLAKE's English validation pictures as they are, and the same ones made smaller within a black margin, in the middle and
in a corner, as another scanner or a screenshot would show them. Exact match and its 95 % interval, clustered by image.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from measured_model import MEASURED, require_unseen
from medical_vqa.data.prepared.dataset import default_root
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.evaluation.statistics.intervals import clustered_bootstrap
from medical_vqa.models.base import Query
from medical_vqa.pipelines import queries as queries_stage
from medical_vqa.pipelines.bundles import find_bundle, load_model
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Example
from medical_vqa.schema.selection import Selection
from medical_vqa.text import squad_normalize

VIEWS = {"as published": (1.0, 0.5), "80 %": (0.8, 0.5), "65 %": (0.65, 0.5), "65 %, in the corner": (0.65, 0.0)}
"""How large the picture stays, and where in the margin it lies (0 first, 0.5 in the middle)."""


def main() -> None:
    """Ask every bundle about every view, and print one JSON object."""
    bundles = [Path(word) for word in sys.argv[1:]] or [MEASURED]
    data = SelectedDataset.open(Selection(dataset="slake", root=default_root(), where={"language": "en"}))
    rows = data.rows("validation")
    found: dict[str, Any] = {}
    for bundle in bundles:
        model: Any
        model, card = load_model(find_bundle(bundle), "cpu")
        require_unseen(card)
        asked = list(queries_stage.queries(data, rows, model))
        name = f"{card.name}, {card.files['weights.safetensors'][:8]}"
        found[name] = {view: score(model, shown(asked, *how), rows) for view, how in VIEWS.items()}
        found[name]["foreground"] = model.settings.foreground
    json.dump(found, sys.stdout, indent=1)


def shown(queries: Sequence[Query], size: float, place: float) -> list[Query]:
    """The same questions about pictures within a margin."""
    made: dict[str, NDArray[np.uint8]] = {}
    for query in queries:
        if query.image not in made:
            made[query.image] = within(np.asarray(query.visual), size, place)
    return [dataclasses.replace(query, visual=made[query.image]) for query in queries]


def within(picture: NDArray[np.uint8], size: float, place: float) -> NDArray[np.uint8]:
    """A picture (side, side, 1) made smaller, black around it."""
    side = len(picture)
    small = round(side * size)
    start = round((side - small) * place)
    view = np.zeros_like(picture)
    view[start : start + small, start : start + small, 0] = np.asarray(
        Image.fromarray(picture[:, :, 0]).resize((small, small), Image.Resampling.BILINEAR)
    )
    return view


def score(model: Any, queries: Sequence[Query], rows: Sequence[Example]) -> dict[str, Any]:
    """EM in per cent with its interval."""
    parts = [model.answer(queries[n : n + 64], Decoding()) for n in range(0, len(queries), 64)]
    answers = [prediction.answer for part in parts for prediction in part]
    right = [squad_normalize(a) == squad_normalize(row.answers[0]) for a, row in zip(answers, rows, strict=True)]
    counts = np.array([[hit, 1.0] for hit in right])
    interval = clustered_bootstrap(counts, [row.group for row in rows], lambda sums: sums[..., 0] / sums[..., 1])
    return {"em": 100 * float(np.mean(right)), "interval": [100 * interval.low, 100 * interval.high]}


if __name__ == "__main__":
    main()

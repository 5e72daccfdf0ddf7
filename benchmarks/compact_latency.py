"""How long the compact model takes on one core: `python benchmarks/compact_latency.py [BUNDLE]`.

Medians over many calls of wall-clock time and of processor time; on a shared machine the latter says what one core of
one's own would take.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from medical_vqa.models.base import Query
from medical_vqa.models.bundle import load_bundle
from medical_vqa.pipelines.bundles import find_bundle, shipped_bundle
from medical_vqa.schema.bundle_card import Decoding

CALLS = 100


def main() -> None:
    """Time a question, a picture, a look and a doubt, and print one JSON object."""
    torch.set_num_threads(1)
    bundle = Path(sys.argv[1]) if len(sys.argv) > 1 else shipped_bundle()
    model: Any
    model, card = load_bundle(find_bundle(bundle), device=torch.device("cpu"))
    side = model.picture.side
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 1), dtype=np.uint8)
    query = Query("q", "Where is the liver?", "a", model.vision.encode([picture])[0])
    answer = model.answer([query], Decoding())[0]
    found = {
        "model": card.name,
        "megabytes": round(sum(f.stat().st_size for f in find_bundle(bundle).iterdir()) / 1e6, 2),
        "picture": timed(lambda: model.vision.encode([picture])),
        "question": timed(lambda: model.answer([query], Decoding())),
        "attention_map": timed(lambda: model.attention_maps([query])),
        "doubt": timed(lambda: model.abstention_reason(query, answer)),
    }
    print(json.dumps(found, indent=1))


def timed(call: Callable[[], object]) -> dict[str, float]:
    """Medians in milliseconds."""
    walls, cpus = [], []
    for _ in range(CALLS):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        walls.append(1000 * (time.perf_counter() - wall))
        cpus.append(1000 * (time.process_time() - cpu))
    return {"wall, ms": round(median(walls), 2), "processor, ms": round(median(cpus), 2)}


if __name__ == "__main__":
    main()

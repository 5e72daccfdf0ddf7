"""The exported model against the model: every validation question of SLAKE, answered by both, image by image in turn.

    python benchmarks/onnx_same_answers.py [--model BUNDLE] [--root DIR]

Counts equal answers, and how far apart logits, looks and doubts are at most; and takes the time of both, each image
encoded anew and all its questions answered at once, as the server does it. Needs SLAKE prepared under --root.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from medical_vqa import pipelines
from medical_vqa.data.images import prepare_picture
from medical_vqa.data.prepared import PreparedDataset, default_root
from medical_vqa.models.model import Decoding, Query

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=pipelines.shipped_bundle())
    parser.add_argument("--root", type=Path, default=default_root())
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, _ = pipelines.export_onnx(arguments.model, Path(place) / "onnx")
        model, card = pipelines.load_model(pipelines.find_bundle(arguments.model), "cpu")
        graphs, _ = pipelines.load_model(folder, "cpu")
    results = {
        "model": card.name,
        "weights": card.files["weights.safetensors"],
        "cores": len(os.sched_getaffinity(0)),
        **compared(model, graphs, questions(PreparedDataset(arguments.root, "slake"), model.picture)),
    }
    print(json.dumps({k: v for k, v in results.items() if not k.endswith("_per_image")}, indent=2))
    (HERE / "results" / "onnx_same_answers.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def questions(prepared, picture):
    """All questions of the validation split, in both languages, by image."""
    by_image: dict[str, list[Query]] = {}
    for row in prepared.examples("validation"):
        asked = by_image.setdefault(row.image_id, [])
        visual = asked[0].visual if asked else prepare_picture(prepared.images.load(row.image_id), picture)
        asked.append(Query(row.id, row.question, row.image_id, visual))
    return list(by_image.values())


def compared(model, graphs, by_image):
    equal = doubts = rows = 0
    logits = looks = 0.0
    seconds: dict[str, list[float]] = {"torch": [], "onnx": []}
    for queries in by_image:
        ours, took = timed(model, queries)
        seconds["torch"].append(took)
        theirs, took = timed(graphs, queries)
        seconds["onnx"].append(took)
        rows += len(queries)
        equal += sum(a.answer == b.answer for a, b in zip(ours, theirs, strict=True))
        doubts += model.doubt(queries[0], ours[0]) == graphs.doubt(queries[0], theirs[0])
        logits = max(logits, float(np.abs(model.logits(queries).numpy() - graphs.logits(queries)).max()))
        pairs = zip(model.look(queries), graphs.look(queries), strict=True)
        looks = max(looks, *(float(np.abs(a - b).max()) for a, b in pairs))
    ratios = [a / b for a, b in zip(seconds["torch"], seconds["onnx"], strict=True)]
    return {
        "images": len(by_image),
        "questions": rows,
        "equal_answers": equal,
        "equal_doubts_on_first_questions": doubts,
        "largest_difference_of_logits": logits,
        "largest_difference_of_looks": looks,
        "torch_seconds_over_onnx_seconds_median": round(statistics.median(ratios), 2),
        **{f"{name}_seconds_per_image": [round(value, 5) for value in values] for name, values in seconds.items()},
    }


def timed(model, queries):
    began = time.perf_counter()
    answers = model.answer(queries, Decoding())
    return answers, time.perf_counter() - began


if __name__ == "__main__":
    main()

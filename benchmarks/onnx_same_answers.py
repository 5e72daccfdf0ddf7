"""The exported model against the model: every validation question of SLAKE, answered by both, image by image in turn.

    python benchmarks/onnx_same_answers.py [--model BUNDLE] [--root DIR] [--out FILE]

Counts equal answers, and how far apart logits are at most, and for the first question about each image also attention
and doubts; and takes the time of both, each image encoded anew and all its questions answered at once. Needs SLAKE
prepared under --root.
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
import torch

from medical_vqa.data.imaging.preprocessing import prepare_picture
from medical_vqa.data.prepared.dataset import PreparedDataset, default_root
from medical_vqa.models.base import Query
from medical_vqa.models.compact.model import Compact
from medical_vqa.models.compact.onnx_model import CompactOnnx
from medical_vqa.pipelines.bundles import find_bundle, load_model, shipped_bundle
from medical_vqa.pipelines.export import export_onnx
from medical_vqa.schema.bundle_card import read_bundle_card
from medical_vqa.schema.records import Prediction

HERE = Path(__file__).parent
NOTHING = Prediction("", "", "", None, ())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=shipped_bundle())
    parser.add_argument("--root", type=Path, default=default_root())
    parser.add_argument("--out", type=Path, default=HERE / "results" / "onnx_same_answers.json")
    arguments = parser.parse_args()
    bundle = find_bundle(arguments.model)
    card = read_bundle_card(bundle)
    with tempfile.TemporaryDirectory() as place:
        exported = card.family == CompactOnnx.family  # such as the shipped one: its weights are those of both
        folder = bundle if exported else export_onnx(bundle, Path(place) / "onnx")[0]
        model = Compact.load(bundle, device=torch.device("cpu"))
        graphs, _ = load_model(folder, "cpu")
    results = {
        "model": card.name,
        "weights": card.files["weights.safetensors"],
        "cores": len(os.sched_getaffinity(0)),
        **compared(model, graphs, questions(PreparedDataset.open("slake", arguments.root), model.picture)),
    }
    print(json.dumps({k: v for k, v in results.items() if not k.endswith("_per_image")}, indent=2))
    arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


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
    logits = attention_maps = 0.0
    seconds: dict[str, list[float]] = {"torch": [], "onnx": []}
    for queries in by_image:
        ours, took = timed(model, queries)
        seconds["torch"].append(took)
        theirs, took = timed(graphs, queries)
        seconds["onnx"].append(took)
        rows += len(queries)
        equal += int((ours.argmax(1) == theirs.argmax(1)).sum())
        logits = max(logits, float(np.abs(ours - theirs).max()))
        first = queries[:1]
        doubts += model.abstention_reason(first[0], NOTHING) == graphs.abstention_reason(first[0], NOTHING)
        attention_maps = max(
            attention_maps, float(np.abs(model.attention(first)[0] - graphs.attention(first)[0]).max())
        )
    ratios = [a / b for a, b in zip(seconds["torch"], seconds["onnx"], strict=True)]
    return {
        "images": len(by_image),
        "questions": rows,
        "equal_answers": equal,
        "equal_doubts_on_first_questions": doubts,
        "largest_difference_of_logits": logits,
        "largest_difference_of_attention_on_first_questions": attention_maps,
        "torch_seconds_over_onnx_seconds_median": round(statistics.median(ratios), 2),
        **{f"{name}_seconds_per_image": [round(value, 5) for value in values] for name, values in seconds.items()},
    }


def timed(model, queries):
    began = time.perf_counter()
    logits = np.asarray(model.logits(queries))
    return logits, time.perf_counter() - began


if __name__ == "__main__":
    main()

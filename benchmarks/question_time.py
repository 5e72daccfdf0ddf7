"""How long a question takes on one core once its image is encoded, with keys and values stored or computed anew.

    python benchmarks/question_time.py [--model BUNDLE] [--before BUNDLE]

Median processor time of `answer`, for one question and for each of eight in a batch about one image, in PyTorch and in
ONNX Runtime. In PyTorch the other side of the ratio computes the keys and values of the image's tokens for each call;
in ONNX Runtime it is the bundle ``--before``, an earlier export whose answer graph takes tokens. Both sides take turns
in one run. Also: the bytes that a server stores of one image, and the time of encoding a picture.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # read by ONNX Runtime's sessions as well

import numpy as np
import torch

from medical_vqa.models.base import Query
from medical_vqa.models.compact.image_encoder import to_unit_range
from medical_vqa.models.compact.model import Compact
from medical_vqa.models.compact.network import ImageMemory
from medical_vqa.models.compact.onnx_model import CompactOnnx
from medical_vqa.pipelines.bundles import find_bundle, shipped_bundle
from medical_vqa.schema.bundle_card import Decoding

RESULTS = Path(__file__).parent / "results" / "question_time.json"
ROUNDS, IN_A_ROW = 15, 12
QUESTIONS = (
    "Where is the liver?",
    "What modality is used to take this image?",
    "Is the lung healthy?",
    "Does the picture contain heart?",
    "Which is bigger, liver or spleen?",
    "What diseases are included in the picture?",
    "What is the main organ in the image?",
    "What is the color of the lung in the picture?",
)


class ProjectsEachTime(Compact):
    """A compact model that stores tokens, and computes their keys and values for each call."""

    def _inputs(self, queries: Any) -> Any:
        _, image_of, words = super()._inputs(queries)
        return self.module.memory(self.tokens), image_of, words


def main() -> None:
    """Measure all four, print and store the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=shipped_bundle())
    parser.add_argument("--before", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder, cpu = find_bundle(arguments.model), torch.device("cpu")
    models = {"torch": Compact.load(folder, device=cpu), "torch, before": ProjectsEachTime.load(folder, device=cpu)}
    side = models["torch"].picture.side
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 1), dtype=np.uint8)
    with torch.inference_mode():
        encoder = models["torch, before"].module.image_encoder
        models["torch, before"].tokens = encoder(to_unit_range(torch.from_numpy(picture[None])))
    if (folder / "answer.onnx").is_file():
        models["onnx"] = CompactOnnx.load(folder)
        if arguments.before:
            models["onnx, before"] = CompactOnnx.load(find_bundle(arguments.before))
    calls: dict[str, Callable[[], object]] = {}
    for name, model in models.items():
        features = model.vision.encode([picture])[0]
        queries = [Query(str(number), text, "image", features) for number, text in enumerate(QUESTIONS)]
        calls[f"{name}, 1"] = lambda model=model, queries=queries: model.answer(queries[:1], Decoding())
        calls[f"{name}, 8"] = lambda model=model, queries=queries: model.answer(queries, Decoding())
        calls[f"{name}, picture"] = lambda model=model: model.vision.encode([picture])
    milliseconds = interleaved(calls)
    features = models["torch"].vision.encode([picture])[0]
    result = {
        "model": str(arguments.model.name),
        "milliseconds": {
            name: {
                "one question": round(milliseconds[f"{name}, 1"], 2),
                "each of eight": round(milliseconds[f"{name}, 8"] / 8, 2),
                "a picture": round(milliseconds[f"{name}, picture"], 2),
            }
            for name in models
        },
        "before over after": {
            f"{name}, {count}": round(milliseconds[f"{name}, before, {count}"] / milliseconds[f"{name}, {count}"], 2)
            for name in ("torch", "onnx")
            for count in (1, 8)
            if f"{name}, before" in models
        },
        "bytes stored of an image": {
            "all": sum(tensor.nbytes for tensor in features.values()),
            "keys, values and mean": sum(features[name].nbytes for name in ImageMemory._fields),
        },
    }
    print(json.dumps(result, indent=1))
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def interleaved(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median processor time of each call in milliseconds; they take turns, some calls of each in a row."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            call()
            for _ in range(IN_A_ROW):
                begin = time.process_time()
                call()
                times[name].append(1000 * (time.process_time() - begin))
    return {name: median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()

"""Training the compact model: all questions of an image in one step, against a picture for every question.

Both sides take whole optimizer steps (forward, backward, AdamW) of the same model on the same rows of the shipped
sample, in turn within one run, so that a noisy machine slows both. The usual ways are measured twice: batches of as
many questions as ours, each with its own picture (`per question`), and literally one question per step (`one by one`).

    python benchmarks/grouped_training.py [--rounds 5] [--images 48]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from medical_vqa.config import load_recipe
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.models.base import Query
from medical_vqa.models.compact.model import Compact
from medical_vqa.pipelines import queries as queries_stage
from medical_vqa.pipelines.prepare import prepare_dataset
from medical_vqa.pipelines.queries import learnable
from medical_vqa.runtime.devices import use_all_cores
from medical_vqa.schema.selection import Selection
from medical_vqa.training.batching import BatchPlan
from medical_vqa.training.optimizer import adamw

HERE = Path(__file__).parent


def main() -> None:
    arguments = parse()
    threads = use_all_cores()
    rows, model = load(arguments.images)
    sides = {
        "grouped": batches(rows, size=192),
        "per question": batches(alone(rows), size=192),
        "one by one": batches(alone(rows)[: arguments.single], size=1),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for name, steps in sides.items():
        rate(model, steps[:2])  # warm-up: allocator, convolution algorithms
        print(f"{name}: {len(steps)} steps of up to {max(map(len, steps))} questions", flush=True)
    for number in range(arguments.rounds):
        for name, steps in sides.items():
            rates[name].append(rate(model, steps))
        print(f"round {number + 1}: " + ", ".join(f"{n} {r[-1]:.0f} questions/s" for n, r in rates.items()), flush=True)
    report(rates, rows, model, threads)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is measured")
    parser.add_argument("--images", type=int, default=48, help="how many images, with all their questions")
    parser.add_argument("--single", type=int, default=60, help="how many questions the one-by-one side takes")
    return parser.parse_args()


def load(images: int) -> tuple[list[Query], Compact]:
    """Training queries about the first images of the sample, and a fresh model of the size SLAKE is trained with."""
    recipe = load_recipe(HERE.parent / "recipes" / "slake-compact.yaml")
    with tempfile.TemporaryDirectory() as folder:
        prepare_dataset("slake-mini", source=None, root=Path(folder))
        data = SelectedDataset.open(Selection(dataset="slake-mini", root=Path(folder)))
        rows = learnable(data.rows("train"))
        model = Compact.build(rows, **recipe.model.model_dump(exclude={"family"}))
        chosen = set(list(dict.fromkeys(row.image_id for row in rows))[:images])
        asked = queries_stage.queries(data, [r for r in rows if r.image_id in chosen], model, learn=True)
        return [replace(asked[i], visual=asked[i].visual.copy()) for i in range(len(asked))], model


def alone(rows: list[Query]) -> list[Query]:
    """The same questions, each with a picture of its own, as loaders that know no groups deliver them."""
    return [replace(row, image=row.id) for row in rows]


def batches(rows: list[Query], *, size: int) -> list[list[Query]]:
    plan = BatchPlan([row.image for row in rows], size)
    return [[rows[index] for index in batch] for batch in plan.epoch(0)]


def rate(model: Compact, steps: list[list[Query]]) -> float:
    """Questions per second over whole steps, collation included."""
    optimizer = adamw(model.module, learning_rate=1e-4, weight_decay=0.05)
    model.module.train()
    began = time.perf_counter()
    for queries in steps:
        batch = model.collate(queries)
        optimizer.zero_grad()
        (model.module(batch) / batch["supervised"]).backward()
        optimizer.step()
    return sum(map(len, steps)) / (time.perf_counter() - began)


def report(rates: dict[str, list[float]], rows: list[Query], model: Compact, threads: int) -> None:
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {
        name: statistics.median(g / o for g, o in zip(rates["grouped"], values, strict=True))
        for name, values in rates.items()
        if name != "grouped"
    }
    images = len({row.image for row in rows})
    result: dict[str, Any] = {
        "what": "training steps of the compact model, questions per second",
        "questions": len(rows), "images": images, "parameters": model.describe()["parameters"],
        "threads": threads, "machine": platform.processor() or platform.machine(), "torch": torch.__version__,
        "questions_per_second": rates, "median": medians, "ratio_of_grouped_to": ratios,
    }  # fmt: skip
    path = HERE / "results" / "grouped_training.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, ratio in ratios.items():
        print(f"grouped is {ratio:.1f} times as fast as {name} (median of {len(rates[name])} rounds)")
    print(f"raw figures: {path}")


if __name__ == "__main__":
    main()

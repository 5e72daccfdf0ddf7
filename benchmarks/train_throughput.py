"""Fine-tuning BLIP-2 with LoRA: the usual way against ours; same model, same rows, same run.

The usual way is the well-known one: a picture encoded for every question, prompts padded to 36 tokens and answers to
12, ``Blip2ForConditionalGeneration``'s own forward. Ours encodes each image once, keeps its features, and pads to the
batch. Both take whole optimizer steps, in turn, so that a noisy machine slows both.

    python benchmarks/train_throughput.py                                  # CPU, proportional small size
    python benchmarks/train_throughput.py --size xl --device cuda          # GPU, the published size
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import published as shared
from medical_vqa.models.base import Query
from medical_vqa.models.hf.blip2 import Blip2
from medical_vqa.models.hf.generation import IGNORED_LABEL, fill_prompt
from medical_vqa.runtime.devices import use_all_cores
from medical_vqa.training.batching import BatchPlan
from medical_vqa.training.optimizer import adamw

PROMPT_TOKENS, ANSWER_TOKENS = 36, 12


def main() -> None:
    arguments = parse()
    use_all_cores()
    device = torch.device(arguments.device)
    with tempfile.TemporaryDirectory() as place:
        figures = compare(arguments, device, Path(arguments.hub or place))
    shared.write(f"train_throughput_{arguments.device}_{arguments.size}_{arguments.targets}", figures)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=shared.SIZES, default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--targets", choices=("language", "qformer", "both"), default="language")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--rounds", type=int, default=7, help="steps of each side that are timed, after one that is not"
    )
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=10, help="over how many the one encoding of each image is shared")
    parser.add_argument("--hub", help="folder in which the random checkpoint is kept")
    return parser.parse_args()


def compare(arguments: argparse.Namespace, device: torch.device, folder: Path) -> dict[str, Any]:
    data, examples = shared.rows(folder / "data", 16 * arguments.batch, arguments.images)
    sides, names = {}, {"usual_fp32": "fp32"} | ({"usual_bf16": "bf16"} if device.type == "cuda" else {})
    weights: dict[str, int] = {}
    ours_dtype = "bf16" if device.type == "cuda" else "fp32"
    for name, dtype in names.items():
        whole = shared.build(folder, arguments.size, examples, arguments.targets, dtype)
        weights[name] = shared.weight_bytes(whole.module, whole.module.vision_encoder)
        sides[name] = usual(whole, device, dtype)
    model = shared.build(folder, arguments.size, examples, arguments.targets, ours_dtype)
    rows = shared.queries(data, examples, model)
    cached, encode_seconds = encoded(model, rows, device)
    steps = {name: on_rows(side, rows) for name, side in sides.items()}
    weights["ours"] = shared.weight_bytes(model.module)
    steps["ours"] = on_rows(ours(model, device, ours_dtype), cached)
    images, lengths = [q.image for q in rows], [len(q.question) for q in rows]
    plans = {name: BatchPlan(images, arguments.batch, "question", 0).epoch(0) for name in sides}
    grouping = "question" if arguments.targets == "language" else "image"
    plans["ours"] = BatchPlan(images, arguments.batch, grouping, 0, 1, lengths).epoch(0)
    rounds, peaks = measure(steps, plans, device, arguments.rounds)
    speeds = {name: statistics.median(1 / taken.seconds for taken in of) for name, of in rounds.items()}
    with FlopCounterMode(display=False) as counter:
        steps["ours"](plans["ours"][0])
    operations = counter.get_total_flops() / len(plans["ours"][0])
    rate = shared.matrix_rate(device, torch.bfloat16 if ours_dtype == "bf16" else torch.float32)
    per_question = encode_seconds / (len(rows) * arguments.epochs)
    with_encoding = 1 / (1 / speeds["ours"] + per_question)
    ratio = {name: ratio_of(rounds, name, "seconds") for name in sides}
    return {
        "machine": shared.machine(device),
        "size": arguments.size,
        "targets": arguments.targets,
        "rows": len(rows),
        "images": len(set(images)),
        "questions_per_second": speeds | {"ours_with_encoding": with_encoding},
        "weight_bytes": weights,
        "step_peak_bytes": peaks,
        "encoding_seconds_once": encode_seconds,
        "ratio": ratio,
        "ratio_with_encoding": {name: value * with_encoding / speeds["ours"] for name, value in ratio.items()},
        "ratio_of_processor_time": {name: ratio_of(rounds, name, "processor_seconds") for name in sides},
        "operations_per_question": operations,
        "matrix_rate": rate,
        "share_of_matrix_rate": operations * speeds["ours"] / rate,
    }


def on_rows(step: Any, rows: list[Query]) -> Any:
    return lambda batch: step([rows[index] for index in batch])


def measure(
    steps: Any, plans: Any, device: torch.device, rounds: int
) -> tuple[dict[str, list[shared.Taken]], dict[str, int | None]]:
    """What each side took per question, in rounds taken in turn, and what its first step needs in memory."""
    peaks: dict[str, int | None] = {}
    taken: dict[str, list[shared.Taken]] = {name: [] for name in steps}
    for name, step in steps.items():
        peaks[name] = shared.peak_bytes(device, lambda step=step, name=name: step(plans[name][0]))
    for number in range(1, rounds + 1):
        for name, step in steps.items():
            batch = plans[name][number % len(plans[name])]
            whole = shared.timed(device, lambda step=step, batch=batch: step(batch))
            taken[name].append(shared.Taken(whole.seconds / len(batch), whole.processor_seconds / len(batch)))
    return taken, peaks


def ratio_of(rounds: dict[str, list[shared.Taken]], usual: str, what: str) -> float:
    """How many times as fast ours is, the median over rounds: both sides of a round met the same load."""
    pairs = zip(rounds[usual], rounds["ours"], strict=True)
    return statistics.median(getattr(theirs, what) / getattr(own, what) for theirs, own in pairs)


def encoded(model: Blip2, rows: list[Query], device: torch.device) -> tuple[list[Query], float]:
    """The rows with features in place of pictures, and the seconds that encoding every image once took."""
    pictures = {query.image: query.visual for query in rows}
    model.vision.to(device)
    features: dict[str, Any] = {}

    def work() -> None:
        for start in range(0, len(pictures), 32):
            some = dict(list(pictures.items())[start : start + 32])
            features.update(zip(some, model.vision.encode(list(some.values())), strict=True))  # type: ignore[arg-type]

    seconds = shared.timed(device, work).seconds
    kept = {image: {"tokens": found["tokens"].cpu()} for image, found in features.items()}
    model.vision.to(torch.device("cpu"))
    return [Query(q.id, q.question, q.image, kept[q.image], q.target) for q in rows], seconds


def ours(model: Blip2, device: torch.device, dtype: str) -> Any:
    model.module.to(device).train()
    optimizer = adamw(model.module, learning_rate=1e-4, weight_decay=0.0)

    def step(rows: list[Query]) -> None:
        batch = {key: value.to(device, non_blocking=True) for key, value in model.collate(rows).items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16"):
            loss = model.module(batch) / batch["supervised"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def usual(model: Blip2, device: torch.device, dtype: str) -> Any:
    """The same network put together again, fed the usual way."""
    base = model.module.base
    encoder = model.module.vision_encoder
    for name, part in (*encoder.named_children(), *encoder.named_parameters(recurse=False)):
        setattr(base, name, part)
    base.to(device).train()
    optimizer = adamw(base, learning_rate=1e-4, weight_decay=0.0)
    image_token, queries = base.config.image_token_id, base.config.num_query_tokens

    def step(rows: list[Query]) -> None:
        pixels = model.processor.image_processor(images=[row.visual for row in rows], return_tensors="pt")[
            "pixel_values"
        ]
        settings = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        texts = [fill_prompt(model.prompt, row.question) for row in rows]
        words = model.tokenizer(texts, max_length=PROMPT_TOKENS, **settings)
        answers = model.tokenizer(text_target=[row.target for row in rows], max_length=ANSWER_TOKENS, **settings)
        labels = answers["input_ids"].masked_fill(answers["input_ids"] == model.tokenizer.pad_token_id, IGNORED_LABEL)
        ids = torch.cat([torch.full((len(rows), queries), image_token), words["input_ids"]], 1)
        mask = torch.cat([torch.ones(len(rows), queries, dtype=torch.long), words["attention_mask"]], 1)
        inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        inputs = {key: value.to(device) for key, value in inputs.items()}
        weight = base.language_projection.weight.dtype
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16"):
            loss = base(pixel_values=pixels.to(device, weight), **inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    main()

"""Answering with BLIP-2: one ``generate`` with its picture per question, against ours; same model, same questions.

Ours encodes each image once and answers in batches; its time includes the encoding. Both write greedily. The usual way
is timed on the first ``--sample`` questions, ours on all of them, and the answers of the sample are compared.

    python benchmarks/answer_throughput.py                                  # CPU, proportional small size
    python benchmarks/answer_throughput.py --size xl --device cuda --sample 1061
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

import published as shared
from medical_vqa.evaluation.predicting import image_batches
from medical_vqa.models.base import Query
from medical_vqa.models.hf.blip2 import Blip2
from medical_vqa.models.hf.generation import fill_prompt
from medical_vqa.runtime.devices import use_all_cores
from medical_vqa.schema.bundle_card import Decoding


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=shared.SIZES, default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--questions", type=int, default=1061)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--sample", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--hub", help="folder in which the random checkpoint is kept")
    arguments = parser.parse_args()
    use_all_cores()
    with tempfile.TemporaryDirectory() as place:
        figures = compare(arguments, torch.device(arguments.device), Path(arguments.hub or place))
    shared.write(f"answer_throughput_{arguments.device}_{arguments.size}", figures)


def compare(arguments: argparse.Namespace, device: torch.device, folder: Path) -> dict[str, Any]:
    data, examples = shared.rows(folder / "data", arguments.questions, arguments.images)
    dtype = "bf16" if device.type == "cuda" else "fp32"
    model = shared.build(folder, arguments.size, examples, "language", dtype)
    model.module.to(device).eval()
    model.vision.to(device)
    rows = shared.queries(data, examples, model)
    decoding = Decoding(max_tokens=8)
    model.answer(rows[:2], decoding)
    usual: list[str] = []
    usual_took = shared.timed(
        device, lambda: usual.extend(alone(model, row, decoding) for row in rows[: arguments.sample])
    )
    answers: dict[str, str] = {}
    ours_took = shared.timed(device, lambda: answers.update(together(model, rows, decoding, arguments.batch)))
    speeds = {"usual": arguments.sample / usual_took.seconds, "ours": len(rows) / ours_took.seconds}
    spent = (usual_took.processor_seconds / arguments.sample) / (ours_took.processor_seconds / len(rows))
    equal = sum(answers[row.id] == text for row, text in zip(rows, usual, strict=False))
    return {
        "machine": shared.machine(device),
        "size": arguments.size,
        "questions": len(rows),
        "images": len({row.image for row in rows}),
        "timed": {"usual": arguments.sample, "ours": len(rows)},
        "questions_per_second": speeds,
        "ratio": speeds["ours"] / speeds["usual"],
        "ratio_of_processor_time": spent,
        "equal_answers": f"{equal} of {arguments.sample}",
    }


@torch.inference_mode()
def alone(model: Blip2, row: Query, decoding: Decoding) -> str:
    """One question the usual way: its picture encoded, one generate."""
    base, tower = model.module.base, model.module.vision_encoder
    pixels = model.processor.image_processor(images=[row.visual], return_tensors="pt")["pixel_values"]
    weight = next(tower.parameters())
    image = tower(pixels.to(weight.device, weight.dtype))
    words = model.tokenizer([fill_prompt(model.prompt, row.question)], return_tensors="pt").to(weight.device)
    embeds = torch.cat([image, base.language_model.get_input_embeddings()(words["input_ids"])], 1)
    mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=weight.device)
    out = base.language_model.generate(
        inputs_embeds=embeds, attention_mask=mask, max_new_tokens=decoding.max_tokens, do_sample=False
    )
    return str(model.tokenizer.decode(out[0], skip_special_tokens=True)).strip()


def together(model: Blip2, rows: list[Query], decoding: Decoding, size: int) -> dict[str, str]:
    """All questions our way: each image encoded once, then batches of questions."""
    pictures = {row.image: row.visual for row in rows}
    features: dict[str, Any] = {}
    names = list(pictures)
    for start in range(0, len(names), 32):
        some = names[start : start + 32]
        features.update(zip(some, model.vision.encode([pictures[n] for n in some]), strict=True))  # type: ignore[misc]
    found: dict[str, str] = {}
    for batch in image_batches([row.image for row in rows], range(len(rows)), size):
        asked = [Query(rows[i].id, rows[i].question, rows[i].image, features[rows[i].image]) for i in batch]
        found |= {prediction.id: prediction.answer for prediction in model.answer(asked, decoding)}
    return found


if __name__ == "__main__":
    main()

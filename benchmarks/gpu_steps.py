"""Single training steps that only a GPU shows fully: T5 in fp16, 4-bit weights, two processes on one card.

Each prints and writes its losses, seconds and peak memory; `gpu.sh` runs them.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch

import published as shared
from medical_vqa.models.hf.blip2 import Blip2
from medical_vqa.training.optimizer import adamw

BATCH, STEPS = 32, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("fp16", "qlora", "two"))
    parser.add_argument("--size", choices=shared.SIZES, default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--hub", required=True)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    figures = {"machine": shared.machine(device), "size": arguments.size} | globals()[arguments.kind](arguments, device)
    if torch.distributed.is_initialized():
        if torch.distributed.get_rank() == 0:
            shared.write(f"{arguments.kind}_{arguments.device}_{arguments.size}", figures)
        torch.distributed.destroy_process_group()
        return
    shared.write(f"{arguments.kind}_{arguments.device}_{arguments.size}", figures)


def fp16(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Losses of the same steps under fp16 and bf16 autocast: fp16 must stay finite and close."""
    out = {}
    for name in ("fp16", "bf16"):
        weights = name if device.type == "cuda" else "fp32"
        out[name] = steps(*model_and_rows(arguments, weights), device, getattr(torch, LONG[name]))
    return out


def qlora(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Steps with the language model in 4 bits, 8-bit AdamW and adapters on all linear layers."""
    if device.type != "cuda":
        return {"left_out": "4-bit weights need an NVIDIA GPU"}
    try:
        import bitsandbytes  # noqa: PLC0415 - an extra
    except ImportError:
        return {"left_out": "bitsandbytes is not installed"}
    lora = {"layers": "all-linear"}
    model, rows = model_and_rows(arguments, "bf16", four_bit=True, **lora)
    return steps(model, rows, device, torch.bfloat16, "adamw-8bit") | {"bitsandbytes": bitsandbytes.__version__}


def two(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Losses of two processes on one card, which gloo allows and NCCL does not; each takes half of every batch."""
    torch.distributed.init_process_group("gloo")
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    dtype = "bf16" if device.type == "cuda" else "fp32"
    if rank == 0:
        model, rows = model_and_rows(arguments, dtype)
    torch.distributed.barrier()  # the first one writes the checkpoint and the data that the others read
    if rank > 0:
        model, rows = model_and_rows(arguments, dtype)
    return steps(model, rows[rank::world], device, torch.bfloat16) | {"processes": world}


LONG = {"fp16": "float16", "bf16": "bfloat16"}


def model_and_rows(arguments: argparse.Namespace, dtype: str, **options: Any) -> tuple[Blip2, list[Any]]:
    folder = Path(arguments.hub)
    data, examples = shared.rows(folder / "data", BATCH * STEPS, 16)
    model = shared.build(folder, arguments.size, examples, "language", dtype, **options)
    return model, shared.queries(data, examples, model)


def steps(model: Blip2, rows: list[Any], device: torch.device, precision: torch.dtype, name: Any = "adamw") -> Any:
    """Optimizer steps over the rows, on features that are encoded once."""
    pictures = {query.image: query.visual for query in rows}
    model.vision.to(device)
    features = dict(zip(pictures, model.vision.encode(list(pictures.values())), strict=True))
    model.vision.to(torch.device("cpu"))
    rows = [type(row)(row.id, row.question, row.image, features[row.image], row.target) for row in rows]
    model.module.to(device).train()
    optimizer = adamw(model.module, learning_rate=1e-4, weight_decay=0.0, name=name)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    losses, seconds = [], []
    peak = 0
    for start in range(0, len(rows), BATCH):
        batch = {key: value.to(device) for key, value in model.collate(rows[start : start + BATCH]).items()}

        def step(batch: Any = batch) -> None:
            with torch.autocast(device.type, precision):
                loss = model.module(batch) / batch["supervised"]
            scaler.scale(loss).backward()
            if torch.distributed.is_initialized():
                for parameter in model.module.parameters():
                    if parameter.grad is not None:
                        host = parameter.grad.cpu()  # gloo
                        torch.distributed.all_reduce(host)
                        parameter.grad.copy_(host / torch.distributed.get_world_size())
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            losses.append(loss.item())

        seconds.append(shared.timed(device, step).seconds)
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated()
    return {
        "losses": losses,
        "finite": all(map(torch.isfinite, torch.tensor(losses))),
        "seconds_per_step": statistics.median(seconds),
        "questions_per_second": BATCH / statistics.median(seconds),
        "peak_bytes": peak,
    }


if __name__ == "__main__":
    main()

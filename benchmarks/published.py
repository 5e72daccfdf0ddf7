"""What both throughput benchmarks share: a BLIP-2 of a chosen size with random weights, rows, the machine's rate.

`SIZES` are proportional: ``small`` has an eighth of the width and of the depth of flan-t5-xl's BLIP-2 and the same 257
image tokens, 32 queries and prompts; ``xl`` has the published sizes.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medical_vqa.data.imaging.preprocessing import prepare_picture
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.models.base import Query
from medical_vqa.models.hf.blip2 import Blip2
from medical_vqa.pipelines.prepare import prepare_dataset
from medical_vqa.runtime.environment import environment
from medical_vqa.schema.selection import Selection

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "hub"))
import tiny_hub  # noqa: E402 - found beside the tests

CLEAR_PEAK = Path("/proc/self/clear_refs")
PROMPT = "Answer the following question based on the image: {question}"
SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "vision": {"hidden_size": 176, "intermediate_size": 768, "num_hidden_layers": 5, "num_attention_heads": 4,
                   "image_size": 224, "patch_size": 14},
        "qformer": {"hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 4},
        "d_model": 256, "d_kv": 32, "d_ff": 640, "num_layers": 3, "num_decoder_layers": 3, "num_heads": 8,
    },
    "xl": {
        "vision": {"hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 39, "num_attention_heads": 16,
                   "image_size": 224, "patch_size": 14},
        "qformer": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
        "d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_layers": 24, "num_decoder_layers": 24, "num_heads": 32,
    },
}  # fmt: skip


def rows(root: Path, count: int, images: int) -> tuple[SelectedDataset, list[Any]]:
    """That many rows of the shipped sample on that many images, in published order."""
    prepare_dataset("slake-mini", source=None, root=root)
    data = SelectedDataset.open(Selection(dataset="slake-mini", root=root))
    asked: dict[str, list[Any]] = {}
    for row in data.rows("train"):
        if row.answers and (row.image_id in asked or len(asked) < images):
            asked.setdefault(row.image_id, []).append(row)
    turns = max(map(len, asked.values()))
    kept = [rows[turn] for turn in range(turns) for rows in asked.values() if turn < len(rows)]
    return data, (kept * (count // len(kept) + 1))[:count]


def build(
    folder: Path,
    size: str,
    examples: list[Any],
    targets: str,
    dtype: str,
    dropout: float = 0.1,
    *,
    four_bit: bool = False,
    layers: str = "attention",
) -> Blip2:
    """The model, its checkpoint saved once under `folder` in the hub's layout, at the published size in 16 bits."""
    hub = folder / size
    if not (hub / "config.json").is_file():
        begun = (
            folder / f"{size}.begun"
        )  # renamed when it is complete: a part of `gpu.sh` may be killed while it writes
        shutil.rmtree(begun, ignore_errors=True)
        texts = [PROMPT, *(f"{e.question} {e.answers[0]}" for e in examples)]
        device = "cuda" if torch.cuda.is_available() and size == "xl" else "cpu"
        torch.set_default_dtype(torch.bfloat16 if size == "xl" else torch.float32)
        try:
            with torch.device(device):
                tiny_hub.blip2(begun, "t5", texts, queries=32, **SIZES[size])
        finally:
            torch.set_default_dtype(torch.float32)
            if device == "cuda":
                torch.cuda.empty_cache()
        begun.rename(hub)
    lora = {"targets": targets, "layers": layers, "rank": 8, "alpha": 32.0, "dropout": dropout}
    torch.manual_seed(0)
    options: Any = {"dtype": dtype, "four_bit": four_bit}
    return Blip2.build(examples, checkpoint=str(hub), lora=lora, prompt=PROMPT, **options)


def queries(data: SelectedDataset, examples: list[Any], model: Blip2) -> list[Query]:
    """Queries with pictures, each image prepared once."""
    images = data.images
    pictures = {i: prepare_picture(images.load(i), model.picture) for i in {e.image_id for e in examples}}
    return [Query(f"{n}", e.question, e.image_id, pictures[e.image_id], e.answers[0]) for n, e in enumerate(examples)]


def matrix_rate(device: torch.device, dtype: torch.dtype, seconds: float = 2.0) -> float:
    """The machine's measured rate of matrix products, operations per second, best of several sizes."""
    best = 0.0
    for side in (1024, 2048) if device.type == "cpu" else (4096, 8192):
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        a @ b
        count, began = 0, clock(device)
        while clock(device) - began < seconds / 2:
            a @ b
            count += 1
        best = max(best, 2 * side**3 * count / (clock(device) - began))
    return best


def clock(device: torch.device) -> float:
    """Seconds, after the device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


@dataclass(frozen=True)
class Taken:
    """What some work took."""

    seconds: float
    processor_seconds: float


def timed(device: torch.device, work: Callable[[], Any]) -> Taken:
    """Seconds that the work takes; those of the processor leave out what other programs took from it."""
    began, spent = clock(device), time.process_time()
    work()
    return Taken(clock(device) - began, time.process_time() - spent)


def peak_bytes(device: torch.device, work: Callable[[], Any]) -> int | None:
    """The most memory that the work holds beyond what was held before it; None where nobody keeps count."""
    if device.type == "cuda":
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - held
    if not CLEAR_PEAK.exists():
        work()
        return None
    ctypes.CDLL(None).malloc_trim(0)  # what an earlier side has freed would hide what this one needs
    CLEAR_PEAK.write_text("5", encoding="ascii")  # Linux: forget the process's peak
    held = status_bytes("VmRSS")
    work()
    return status_bytes("VmHWM") - held


def status_bytes(key: str) -> int:
    """A size in this process's status, bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def weight_bytes(*modules: torch.nn.Module) -> int:
    """Bytes of the modules' parameters, shared ones once."""
    return sum({p.data_ptr(): p.nbytes for module in modules for p in module.parameters()}.values())


def machine(device: torch.device) -> dict[str, Any]:
    """Where this ran."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    about = environment()
    return {"device": device.type, "name": name, "threads": torch.get_num_threads(), "packages": about["packages"],
            "command": " ".join(sys.argv)}  # fmt: skip


def write(name: str, figures: dict[str, Any]) -> None:
    """Print the figures and keep them."""
    text = json.dumps(figures, indent=2) + "\n"
    print(text)
    folder = Path(os.environ.get("BENCHMARK_RESULTS", HERE / "results"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(text, encoding="utf-8")

"""How the time and memory of `medical-vqa prepare` and `audit` grow with the number of images.

    python benchmarks/prepare_scale.py [--images 1000 10000 100000] [--pixels 128] [--limit 240]

The images are made up: gray PNG files of smooth random fields with noise, all different, with one question each. They
are small (by default 128 x 128 pixels, 10 KB), so that 100,000 fit on a disk; a larger image takes longer to decode and
nothing else. Each measurement is one process of the command line: `prepare`, the same again (which verifies what is
there), and `audit`. A command that takes longer than ``--limit`` seconds is stopped and reported as such, and run again
from where it was. Goals: all cores, at most 2 GB of memory, resumable.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent


def write_source(folder: Path, images: int, pixels: int) -> None:
    """Write a folder in the generic layout: questions.jsonl, and the images it names."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(images):
        name = f"{number // 1000:03}/{number}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        field = Image.fromarray(rng.integers(0, 256, (9, 9), dtype=np.uint8)).resize((pixels, pixels), Image.BICUBIC)
        noisy = np.asarray(field) // 2 + rng.integers(0, 32, (pixels, pixels), dtype=np.uint8)
        Image.fromarray(noisy.astype(np.uint8)).save(folder / name, compress_level=1)
        split = "test" if number % 10 == 0 else "train"
        lines.append(json.dumps({"image": name, "question": "Which organ?", "answer": "lung", "split": split}))
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def measured(arguments: list[str], limit: float) -> dict[str, float]:
    """Wall and processor time in seconds, peak memory in MB, and how often a command was stopped and run again."""
    script = (
        "import json, resource, subprocess, sys, time\n"
        "began = time.perf_counter()\n"
        "try:\n"
        "    stopped = subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL, timeout=float(sys.argv[1])).returncode\n"
        "except subprocess.TimeoutExpired:\n"
        "    stopped = -1\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "seconds, processor = time.perf_counter() - began, used.ru_utime + used.ru_stime\n"
        "print(json.dumps([seconds, processor, used.ru_maxrss / 1024, stopped]))"
    )
    total = {"seconds": 0.0, "processor_seconds": 0.0, "peak_mb": 0.0, "interruptions": -1.0}
    stopped = -1
    while stopped == -1 and total["interruptions"] < 3:
        command = [sys.executable, "-c", script, str(limit), sys.executable, "-m", "medical_vqa", *arguments]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds, processor_seconds, peak_mb, stopped = json.loads(out)
        total["seconds"] += seconds
        total["processor_seconds"] += processor_seconds
        total["peak_mb"] = max(total["peak_mb"], peak_mb)
        total["interruptions"] += 1
    if stopped:
        raise SystemExit(f"{arguments[0]} ended with status {stopped}")
    return {name: round(value, 2) for name, value in total.items()}


def main() -> None:
    """Measure every size and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--pixels", type=int, default=128)
    parser.add_argument("--limit", type=float, default=3600.0)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "prepare_scale.json")
    arguments = parser.parse_args()
    curve: dict[int, dict[str, dict[str, float]]] = {}
    for images in sorted(arguments.images):
        with tempfile.TemporaryDirectory() as folder:
            source, root = Path(folder) / "source", Path(folder) / "root"
            began = time.perf_counter()
            write_source(source, images, arguments.pixels)
            print(images, "written in", round(time.perf_counter() - began), "s", flush=True)
            prepare = ["prepare", "folder", "--source", str(source), "--root", str(root), "--as", "mine"]
            audit = ["audit", "mine", "--root", str(root), "--out", str(Path(folder) / "audit.html")]
            commands = {"prepare": prepare, "again": prepare, "audit": audit}
            curve[images] = {}
            for name, command in commands.items():
                curve[images][name] = measured(command, arguments.limit)
                print(images, name, curve[images][name], flush=True)
        record = {"cores": os.cpu_count(), "load": os.getloadavg(), "pixels": arguments.pixels, "images": curve}
        arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

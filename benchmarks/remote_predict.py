"""`predict` of 10,000 questions with a remote model, killed with -9 on the way and resumed.

The engine answers after a fixed delay and counts how often each question is asked. Shown are the answers in the file,
the questions that were asked twice (those that were on their way when the process was killed), and the requests,
tokens and cost that `predict` reports, which lack the answers that were on their way.

    python benchmarks/remote_predict.py
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from remote_overhead import engine  # noqa: E402 - the script next to this one

PICTURES, QUESTIONS, CONCURRENCY = 100, 100, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay", type=float, default=0.0, help="of the engine, milliseconds")
    parser.add_argument("--kill-after", type=int, default=4000, help="answers after which predict is killed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, engine(arguments.delay) as (port, _):
        figures = measure(Path(place), port, arguments.kill_after)
    figures = {"questions": PICTURES * QUESTIONS, "delay_ms": arguments.delay, "concurrency": CONCURRENCY, **figures}
    text = json.dumps(figures, indent=2) + "\n"
    print(text)
    (HERE / "results" / "remote_predict.json").write_text(text, encoding="utf-8")


def measure(folder: Path, port: int, kill_after: int) -> dict[str, Any]:
    environ = {**os.environ, "MEDICAL_VQA_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    write_dataset(folder / "raw")
    prepare = ["prepare", "folder", "--source", str(folder / "raw"), "--as", "many"]
    subprocess.run([sys.executable, "-m", "medical_vqa", *prepare], env=environ, check=True, capture_output=True)
    out = folder / "predictions-train.jsonl"
    command = [
        sys.executable, "-m", "medical_vqa", "predict", "openai:m", "--base-url", f"http://127.0.0.1:{port}/v1",
        "--dataset", "many", "--split", "train", "--out", str(out), "--concurrency", str(CONCURRENCY),
        "--no-logprobs", "--price", "0.1", "0.4",
    ]  # fmt: skip
    start = time.monotonic()
    first = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    partial = out.with_name(out.name + ".partial")
    while not partial.is_file() or partial.read_bytes().count(b"\n") < kill_after:
        assert first.poll() is None, "predict ended before it was killed"
        time.sleep(0.2)
    first.kill()
    first.wait()
    before_kill = partial.read_bytes().count(b"\n")
    second = subprocess.run(command, env=environ, check=True, capture_output=True, text=True)
    seconds = time.monotonic() - start
    ids = [json.loads(line)["id"] for line in out.read_text().splitlines()]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/asked") as reply:
        counts = Counter(json.load(reply))
    counts.pop("What is shown?", None)  # the probe
    return {
        "answers_before_kill": before_kill,
        "answers": len(ids),
        "distinct_answers": len(set(ids)),
        "asked_twice": sum(n > 1 for n in counts.values()),
        "requests_at_engine": sum(counts.values()),
        "never_asked": PICTURES * QUESTIONS - len(counts),
        "seconds": round(seconds, 1),
        "reported": re.findall(r"spent: (.*)", second.stdout)[0],
    }


def write_dataset(folder: Path) -> None:
    """Pictures of noise, each with questions that are all different."""
    folder.mkdir()
    with (folder / "questions.jsonl").open("w", encoding="utf-8") as file:
        for picture in range(PICTURES):
            pixels = np.random.default_rng(picture).integers(0, 255, (64, 64), np.uint8)
            Image.fromarray(pixels).save(folder / f"{picture}.png")
            for number in range(picture * QUESTIONS, (picture + 1) * QUESTIONS):
                row = {"image": f"{picture}.png", "question": f"Which one is number {number}?", "split": "train"}
                file.write(json.dumps(row | {"answer": str(number)}) + "\n")


if __name__ == "__main__":
    main()

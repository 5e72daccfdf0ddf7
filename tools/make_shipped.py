"""Make the shipped model again: `python tools/make_shipped.py --source SLAKE`, about an hour.

Prepares SLAKE, trains ``recipes/slake-compact.yaml`` (a run that was cut short goes on), stores the bundle with 16 bits
a weight in the package, answers the validation split with what is stored, and writes temperature and threshold into its
card.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from medical_vqa.pipelines.bundles import shipped_bundle
from medical_vqa.pipelines.calibrate import calibrate
from medical_vqa.pipelines.export import ship
from medical_vqa.pipelines.load import load
from medical_vqa.pipelines.predict import predict

RUN = Path("runs/slake-compact")
RISK = 0.1


def main() -> None:
    """Prepare, train, ship, predict, calibrate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="SLAKE in the authors' layout, with its masks")
    source = parser.parse_args().source
    command("prepare", "slake", "--source", source, "--partial")
    if not (RUN / "finished.json").is_file():
        command("train", "recipes/slake-compact.yaml", "--run", RUN)
    shipped = ship(RUN, shipped_bundle())
    predictions = RUN / "shipped-validation.jsonl"
    predictions.unlink(missing_ok=True)
    predict(load(shipped, device="cpu"), split="validation", out=predictions)
    calibrate(predictions, risk=RISK)
    command("score", predictions)
    sys.stdout.write(f"shipped: {shipped}, {sum(f.stat().st_size for f in shipped.iterdir()):,} bytes\n")


def command(*words: object) -> None:
    """Run one command of the package, as a person would."""
    subprocess.run([sys.executable, "-m", "medical_vqa", *map(str, words)], check=True)


if __name__ == "__main__":
    main()

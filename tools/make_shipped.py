"""Make the shipped model again: `python tools/make_shipped.py --source SLAKE`, about an hour.

Prepares SLAKE, trains ``recipes/slake-compact-trunk.yaml`` or ``--recipe`` (an interrupted run resumes), stores the
bundle with 16 bits a weight in the package, answers the validation split with what is stored, and writes temperature,
thresholds and guards into it. `python tools/make_shipped.py --calibrate-only [--root DATA]` does the last two alone, in
about two minutes.
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

RECIPE = Path("recipes/slake-compact-trunk.yaml")
RISK = 0.1


def main() -> None:
    """Prepare, train, ship, and calibrate; or calibrate what ships."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--source", type=Path, help="SLAKE in the authors' layout, with its masks")
    what.add_argument("--calibrate-only", action="store_true", help="calibrate the model in the package")
    parser.add_argument("--root", type=Path, help="folder of prepared datasets; that of the recipe by default")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="what is trained")
    arguments = parser.parse_args()
    if arguments.source is not None:
        command("prepare", "slake", "--source", arguments.source, "--partial")
        run = Path("runs") / arguments.recipe.stem
        if not (run / "finished.json").is_file():
            command("train", arguments.recipe, "--run", run)
        ship(run, shipped_bundle())
    shipped = shipped_bundle()
    command("score", calibrated(shipped, arguments.root))
    sys.stdout.write(f"shipped: {shipped}, {sum(f.stat().st_size for f in shipped.iterdir()):,} bytes\n")


def calibrated(bundle: Path, root: Path | None) -> Path:
    """Predictions of the validation split by a bundle, which has its temperature, thresholds and guards from them."""
    loaded = load(bundle, device="cpu")
    assert loaded.card.data is not None
    selection = loaded.card.data.selection
    if root is not None:
        selection = selection.model_copy(update={"root": root})
    predictions = Path("runs") / bundle.name / "shipped-validation.jsonl"
    predictions.parent.mkdir(parents=True, exist_ok=True)
    predictions.unlink(missing_ok=True)
    predict(loaded, split="validation", out=predictions, selection=selection)
    calibrate(predictions, risk=RISK)
    return predictions


def command(*words: object) -> None:
    """Run one command of the package, as a person would."""
    subprocess.run([sys.executable, "-m", "medical_vqa", *map(str, words)], check=True)


if __name__ == "__main__":
    main()

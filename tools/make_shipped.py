"""Make the shipped model again: `python tools/make_shipped.py --source SLAKE`, about an hour and a half.

1. Prepares SLAKE, trains ``recipes/slake-compact-trunk.yaml`` or ``--recipe`` on the training rows, stores the bundle
   with 8 bits a weight in ``benchmarks/models/``, answers the validation split with what is stored, writes
   temperature, thresholds and guards into it, and measures where it localizes organs and findings. Every figure on the
   validation split is of this model.
2. Trains the same recipe on the training and validation rows, stores that in the package, and gives it the calibration
   of the first.

An interrupted training resumes, and a finished one is not repeated. `python tools/make_shipped.py --calibrate-only
[--root DATA]` only answers the validation split with the stored model of 1 and calibrates both, in about three minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.pipelines.bundles import shipped_bundle
from medical_vqa.pipelines.calibrate import calibrate, calibrate_refit
from medical_vqa.pipelines.export import ship
from medical_vqa.pipelines.inputs import short_digest
from medical_vqa.pipelines.load import load
from medical_vqa.pipelines.predict import predict
from medical_vqa.pipelines.prepare import prepare_dataset
from medical_vqa.schema.bundle_card import read_bundle_card, write_bundle_card
from medical_vqa.schema.records import Split
from medical_vqa.schema.selection import Selection

RECIPE = Path("recipes/slake-compact-trunk.yaml")
MODELS = Path("benchmarks/models")
RISK = 0.1
SPLITS: tuple[Split, ...] = ("train", "validation")


def main() -> None:
    """Prepare, train twice, ship, and calibrate; or calibrate what ships."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--source", type=Path, help="SLAKE in the authors' layout, with its masks")
    what.add_argument("--calibrate-only", action="store_true", help="calibrate the model in the package")
    parser.add_argument("--root", type=Path, help="folder of prepared datasets; that of the recipe by default")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="what is trained")
    arguments = parser.parse_args()
    measured, shipped = MODELS / arguments.recipe.stem, shipped_bundle()
    if arguments.source is not None:
        command("prepare", "slake", "--source", arguments.source, "--partial")
        ship(trained(arguments.recipe, "train"), measured)
    command("score", calibrated(measured, arguments.root))
    if arguments.source is not None:
        script("benchmarks/evidence.py", measured, "--source", arguments.source, "--card")
        ship(trained(arguments.recipe, "train+validation"), shipped)
    for bundle in (measured, shipped):
        name_images(bundle, arguments.root)
    calibrate_refit(shipped, measured, arguments.root)
    sys.stdout.write(f"shipped: {shipped}, {sum(f.stat().st_size for f in shipped.iterdir()):,} bytes\n")


def trained(recipe: Path, rows: str) -> Path:
    """The run of a recipe on some rows; it is trained, or resumed, unless it is finished."""
    run = Path("runs") / f"{recipe.stem}-{rows}"
    if not (run / "finished.json").is_file():
        command("train", recipe, "--run", run, "--set", f"data.train={rows}")
    return run


def calibrated(bundle: Path, root: Path | None) -> Path:
    """Predictions of the validation split by a bundle, which has its temperature, thresholds and guards from them."""
    loaded = load(bundle, device="cpu")
    assert loaded.card.data is not None
    selection = loaded.card.data.selection
    if root is not None:
        selection = selection.model_copy(update={"root": root})
    predictions = Path("runs") / "shipped" / "predictions-validation.jsonl"
    predictions.parent.mkdir(parents=True, exist_ok=True)
    predictions.unlink(missing_ok=True)
    predict(loaded, split="validation", out=predictions, selection=selection)
    calibrate(predictions, risk=RISK)
    return predictions


def name_images(bundle: Path, root: Path | None) -> None:
    """List in a bundle's card the images that its model has learned, and their copies in the shipped sample.

    The sample has the same pictures in files of its own, whose digests are others.
    """
    card = read_bundle_card(bundle)
    assert card.data is not None
    data = SelectedDataset.open(card.data.selection.model_copy(update={"root": root}))
    learned = {row.image_id for row in data.rows("train")}
    with tempfile.TemporaryDirectory() as folder:
        prepare_dataset("slake-mini", source=None, root=Path(folder))
        sample = SelectedDataset.open(Selection(dataset="slake-mini", root=Path(folder)))
        images = {row.image_id for split in SPLITS for row in sample.rows(split)}
        copies = {short_digest(sample, name) for name in images if name.replace("slake-mini/", "slake/") in learned}
    digests = copies | {short_digest(data, name) for name in learned}
    changed = card.data.model_copy(update={"image_digests": tuple(sorted(digests))})
    write_bundle_card(bundle, card.model_copy(update={"data": changed}))


def command(*words: object) -> None:
    """Run one command of the package, as a person would."""
    script("-m", "medical_vqa", *words)


def script(*words: object) -> None:
    """Run Python with these arguments."""
    subprocess.run([sys.executable, *map(str, words)], check=True)


if __name__ == "__main__":
    main()

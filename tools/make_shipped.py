"""Make the shipped model again: `python tools/make_shipped.py --source SLAKE`, an hour and a half on two cores.

Prepares SLAKE, trains the teachers (``recipes/slake-compact-teacher.yaml`` in four variants and two seeds each, one on
each core), distils them by ``recipes/slake-compact-distilled.yaml``, stores the bundle with 16 bits a weight in the
package, answers the validation split with what is stored, and writes temperature and threshold into its card. A run
that was cut short goes on, and one that is finished is kept.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from medical_vqa import delivery, pipelines, trust
from medical_vqa.runtime import cores

RUN, TEACHERS = Path("runs/slake-compact-distilled"), Path("runs/teachers")
RISK, SEEDS = 0.1, (0, 1)
VARIANTS = {
    "plain": ("data.regions=false",),
    "regions": (),
    "mirror": ("model.mirror=0.3",),
    "reword": ("model.mirror=0.3", "model.reword=0.5"),
}
"""Each adds one signal to the one before: they are the rows of the ablation table as well."""


def main() -> None:
    """Prepare, train teachers, distil, ship, predict, calibrate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="SLAKE in the authors' layout, with its masks")
    source = parser.parse_args().source
    command("prepare", "slake", "--source", source, "--partial")
    with ThreadPoolExecutor(cores()) as pool:  # a teacher trains best on one core
        list(pool.map(teach, [(variant, seed) for variant in VARIANTS for seed in SEEDS]))
    if not finished(RUN):
        command("train", "recipes/slake-compact-distilled.yaml", "--run", RUN)
    shipped = delivery.ship(RUN, pipelines.shipped_bundle())
    predictions = RUN / "shipped-validation.jsonl"
    predictions.unlink(missing_ok=True)
    pipelines.predict(shipped, split="validation", out=predictions, device="cpu")
    trust.calibrate(predictions, risk=RISK)
    command("score", predictions)
    sys.stdout.write(f"shipped: {shipped}, {sum(f.stat().st_size for f in shipped.iterdir()):,} bytes\n")


def teach(which: tuple[str, int]) -> None:
    """Train one teacher on one core, unless it is there."""
    variant, seed = which
    run = TEACHERS / f"{variant}-{seed}"
    if finished(run):
        return
    changes = [f"--set={change}" for change in (*VARIANTS[variant], f"training.seed={seed}")]
    command("train", "recipes/slake-compact-teacher.yaml", "--run", run, *changes, threads=1)


def finished(run: Path) -> bool:
    """Whether a run has been completed."""
    return (run / "finished.json").is_file()


def command(*words: object, threads: int | None = None) -> None:
    """Run one command of the package, as a person would."""
    limit = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    subprocess.run([sys.executable, "-m", "medical_vqa", *map(str, words)], check=True, env={**os.environ, **limit})


if __name__ == "__main__":
    main()

"""How long one waits: for `--help`, for `import medical_vqa`, and for the first training step on SLAKE.

    python benchmarks/startup.py [--root DIR]

The first step is timed from the start of the process, with the prepared pictures in the cache and without (they are
then decoded and resized first). Needs SLAKE prepared under --root; without it that part is left out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from medical_vqa.data.prepared.dataset import default_root
from medical_vqa.data.prepared.manifest import MANIFEST_NAME

HERE = Path(__file__).parent
FIRST_STEP = """
import sys
from medical_vqa.training import loop
class Stop(Exception): ...
def stop(self, *a, **k):
    real(self, *a, **k)
    raise Stop
real, loop._TrainingRun.step = loop._TrainingRun.step, stop
from medical_vqa.cli import main
try: main()
except Stop: pass
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=default_root())
    arguments = parser.parse_args()
    results = {
        "help_seconds": seconds([sys.executable, "-m", "medical_vqa", "--help"], 10),
        "import_seconds": seconds([sys.executable, "-c", "import medical_vqa"], 10),
        "bare_python_seconds": seconds([sys.executable, "-c", "pass"], 10),
    }
    if (arguments.root / "slake" / MANIFEST_NAME).is_file():
        results |= first_step(arguments.root)
    for name, values in results.items():
        print(f"{name}: median {statistics.median(values):.2f} of {len(values)}")
    (HERE / "results" / "startup.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def first_step(root: Path) -> dict[str, list[float]]:
    """From the start of the process to the end of the first optimizer step, on SLAKE's 450 English training images."""
    times: dict[str, list[float]] = {"first_step_cold_seconds": [], "first_step_warm_seconds": []}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "data"
        shutil.copytree(root / "slake", copy / "slake", ignore=shutil.ignore_patterns("pictures"))
        command = [sys.executable, "-c", FIRST_STEP, "train", "slake-compact", "--fresh", "--run", f"{folder}/run"]
        for number in range(3):
            shutil.rmtree(copy / "slake" / "pictures", ignore_errors=True)
            for name in times:
                times[name] += seconds([*command, "--set", f"data.root={copy}"], 1)
                print(f"round {number + 1}: {name} {times[name][-1]:.1f}", flush=True)
    return times


def seconds(command: list[str], times: int) -> list[float]:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - began)
    return taken


if __name__ == "__main__":
    main()

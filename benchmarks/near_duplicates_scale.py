"""How the time and memory of the search for near-duplicates grow with the number of images.

    python benchmarks/near_duplicates_scale.py [--images 1000 10000 100000] [--before ../before/src]

The images are derived from those of slake-mini: each is a blend of three of them with noise, of 64 x 64 pixels, so that
many resemble each other as those of a real dataset do, and one in a hundred is a copy of the one before it, brighter by
a tenth. Only the comparison of their fingerprints is measured, in one process for each size. With ``--before``, the
sources of an earlier state are measured in turn with these, and the script fails unless both find the same pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from medical_vqa.data.audit.near_duplicates import fingerprint

HERE = Path(__file__).parent
PIXELS = 64
MEASURED = """
import json, pickle, resource, sys, time
from medical_vqa.data.audit.near_duplicates import Fingerprint, near_duplicates
with open(sys.argv[1], "rb") as file:
    arrays = pickle.load(file)
prints = [Fingerprint(*(column[number].copy() for column in arrays)) for number in range(len(arrays[0]))]
del arrays
wall, processor = time.perf_counter(), time.process_time()
pairs = near_duplicates(prints)
numbers = time.perf_counter() - wall, time.process_time() - processor
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([numbers, peak, [[pair.first, pair.second, pair.change] for pair in pairs]]))
"""


def write_fingerprints(path: Path, images: int) -> None:
    """Write the fingerprints of made-up pictures as arrays."""
    rng = np.random.default_rng(0)
    files = sorted((HERE.parent / "src/medical_vqa/assets/slake-mini/imgs").glob("*/source.jpg"))
    size = PIXELS, PIXELS
    known = np.array([np.asarray(Image.open(file).convert("L").resize(size), np.float32) for file in files])
    prints, last = [], known[0]
    for number in range(images):
        if number % 100 == 99:
            picture = last * 1.1
        else:
            chosen = known[rng.integers(0, len(known), 3)]
            picture = np.tensordot(rng.dirichlet((1, 1, 1)), chosen, 1) + rng.normal(0, 6, size)
        last = picture
        prints.append(fingerprint(Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))))
    fields = "hashes", "turned_hashes", "copy", "thumbnail"
    columns = [np.stack([getattr(one, field) for one in prints]) for field in fields]
    with path.open("wb") as file:
        pickle.dump(columns, file)


def measured(fingerprints: Path, source: Path) -> tuple[dict[str, float], list[list[object]]]:
    """Seconds and peak memory in MB of the search with the sources in a folder, and the pairs."""
    environment = os.environ | {"PYTHONPATH": str(source)}
    command = [sys.executable, "-c", MEASURED, str(fingerprints)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    (seconds, processor_seconds), peak, pairs = json.loads(out)
    numbers = {"seconds": round(seconds, 2), "processor_seconds": round(processor_seconds, 2), "peak_mb": round(peak)}
    return numbers | {"pairs": len(pairs)}, pairs


def main() -> None:
    """Measure every size and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--before", type=Path, help="Folder src of an earlier state.")
    parser.add_argument("--before-up-to", type=int, default=10_000, help="Most images for the earlier state.")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "near_duplicates_scale.json")
    arguments = parser.parse_args()
    curve: dict[int, dict[str, dict[str, float]]] = {}
    for images in sorted(arguments.images):
        with tempfile.TemporaryDirectory() as folder:
            fingerprints = Path(folder) / "fingerprints.pickle"
            write_fingerprints(fingerprints, images)
            sources = {"after": HERE.parent / "src"}
            if arguments.before and images <= arguments.before_up_to:
                sources["before"] = arguments.before.resolve()
            results = {name: measured(fingerprints, source) for name, source in sources.items()}
        if "before" in results and results["before"][1] != results["after"][1]:
            raise SystemExit(f"{images} images: the pairs differ")
        curve[images] = {name: numbers for name, (numbers, _) in results.items()}
        print(images, curve[images], flush=True)
        record = {"cores": os.cpu_count(), "load": os.getloadavg(), "images": curve}
        arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""How the time and memory of `medical-vqa score` grow with the number of rows.

    python benchmarks/score_scale.py [--rows 10000 100000 1000000] [--rounds 1] [--before ../before/src]

Rows are made up: eleven questions per image, answers
from 180 labels, half of them wrong, 1 in 11 of the texts its own. Each size is a prepared dataset on disk with a
training split a tenth as large, and a predictions file as `predict` writes it; each measurement is one process of the
command line, with its peak of memory (goal: a million rows in 15 s). With ``--before``, the sources of an earlier state
are measured in turn with these, on the same files, and the script fails unless both write the same results.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from medical_vqa.data.prepared.manifest import ImageFile, Manifest, SplitFile, write_manifest
from medical_vqa.io import sha256

HERE = Path(__file__).parent
PER_IMAGE = 11
ORGANS = ("lung", "liver", "heart", "kidney", "spleen", "brain", "bladder", "colon", "trachea")
FINDINGS = ("mass", "nodule", "cyst", "edema", "effusion", "atelectasis", "pneumonia", "cancer", "stone", "infarction")
LABELS = [f"{side} {organ} {finding}" for side in ("left", "right") for organ in ORGANS for finding in FINDINGS]


def example(number: int, split: str) -> dict[str, object]:
    """One row of a prepared dataset."""
    image = f"big/{split}-{number // PER_IMAGE}"
    return {
        "id": f"big/{split}/{number}",
        "image_id": image,
        "question": f"What is at place {number % 5000} of the {ORGANS[number % 5000 % 9]}?",
        "answers": [LABELS[number % 180]],
        "group": image,
        "facts": {
            "answer_type": "OPEN" if number % 3 else "CLOSED",
            "organ": ORGANS[number % 9],
            "modality": "CT" if number % 2 else "MRI",
        },
    }


def prediction(number: int) -> dict[str, object]:
    """The answer to one row: half of them right, one in eleven a text of its own."""
    answer = LABELS[number % 180 if number % 2 else number % 77]
    answer = answer if number % PER_IMAGE else f"{answer} {number}"
    return {"id": f"big/test/{number}", "answer": answer, "raw": answer, "confidence": (number % 97) / 97}


def write_data(folder: Path, rows: int) -> Path:
    """Write the prepared dataset ``big`` under a folder, and return its predictions file."""
    dataset = folder / "big"
    dataset.mkdir(parents=True)
    splits, images = {}, {}
    for split, n in (("train", rows // 10), ("test", rows)):
        text = "".join(json.dumps(example(number, split)) + "\n" for number in range(n))
        (dataset / f"{split}.jsonl").write_text(text, encoding="utf-8")
        splits[split] = SplitFile(file=f"{split}.jsonl", rows=n, sha256=sha256(text.encode()))
        for number in range(0, n, PER_IMAGE):
            name = f"{split}-{number // PER_IMAGE}"
            images[f"big/{name}"] = ImageFile(
                file=f"images/{name}.png", sha256=sha256(name.encode()), width=512, height=512, bytes=1000
            )
    manifest = Manifest(
        name="big",
        dataset="folder",
        title="made up",
        license="none",
        citation="",
        homepage="",
        partial=False,
        official_rows={},
        official_images=None,
        default_where={},
        splits=splits,
        images=images,
        missing=(),
        notes=(),
        source_digest="",
    )
    write_manifest(dataset, manifest)
    predictions = folder / "predictions.jsonl"
    predictions.write_text("".join(json.dumps(prediction(n)) + "\n" for n in range(rows)), encoding="utf-8")
    return predictions


def measured(predictions: Path, out: Path, source: Path) -> dict[str, float]:
    """Seconds of processor and wall time, and peak memory in MB, of scoring the file with the sources in a folder."""
    command = [sys.executable, "-m", "medical_vqa", "score", str(predictions), "--dataset", "big", "--split", "test"]
    command += ["--root", str(predictions.parent), "--out", str(out)]
    script = (
        "import json, resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))"
    )
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    # the process in between has no other child, so that the peak of memory is that of this one
    process = subprocess.run(
        [sys.executable, "-c", script, *command], check=True, capture_output=True, text=True, env=environment
    )
    seconds = time.perf_counter() - began
    processor_seconds, peak_mb = json.loads(process.stdout)
    return {"seconds": round(seconds, 2), "processor_seconds": round(processor_seconds, 2), "peak_mb": round(peak_mb)}


def main() -> None:
    """Measure every size and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--before", type=Path, help="Folder src of an earlier state.")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "score_scale.json")
    arguments = parser.parse_args()
    sources = {"after": HERE.parent / "src"} | ({"before": arguments.before.resolve()} if arguments.before else {})
    curve: dict[str, dict[int, dict[str, float]]] = {name: {} for name in sources}
    for rows in sorted(arguments.rows):
        with tempfile.TemporaryDirectory() as folder:
            predictions = write_data(Path(folder), rows)
            results = {name: Path(folder) / f"{name}.json" for name in sources}
            rounds = [
                {name: measured(predictions, results[name], source) for name, source in sources.items()}
                for _ in range(arguments.rounds)
            ]
            if len({path.read_bytes() for path in results.values()}) > 1:
                raise SystemExit(f"{rows} rows: the results differ")
        for name in sources:
            curve[name][rows] = {key: statistics.median(one[name][key] for one in rounds) for key in rounds[0][name]}
            print(rows, name, curve[name][rows], flush=True)
    same = {"same_results": True} if arguments.before else {}
    text = json.dumps({"cores": os.cpu_count(), "load": os.getloadavg(), **same, "rows": curve}, indent=2)
    arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

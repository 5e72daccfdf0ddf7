"""How long it takes to score, to report and to draw intervals, and what one matrix product saves over a plain loop.

    python benchmarks/evaluation.py [--million]

Rows are made up: eleven questions per image, answers from 180 labels, half of them wrong, every text different.
Measures `score --protocol all` on 2,000 predictions (goal: under 5 s), a report on 10,000 (under 20 s and 10 MB), 2,000
resamples of 10,000 rows (a second) beside the same resamples drawn one by one, and with --million a million rows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from medical_vqa import registry
from medical_vqa.evaluation.joining import join
from medical_vqa.evaluation.reporting.report import write_report
from medical_vqa.evaluation.scoring import ScoringSettings, score_answers
from medical_vqa.evaluation.statistics.breakdown import default_facts
from medical_vqa.evaluation.statistics.intervals import clustered_bootstrap
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.schema.results import Bootstrap, DatasetRef, Results

HERE = Path(__file__).parent
RESAMPLES, PER_IMAGE = 2000, 11
ORGANS = ("lung", "liver", "heart", "kidney", "spleen", "brain", "bladder", "colon", "trachea")
FINDINGS = ("mass", "nodule", "cyst", "edema", "effusion", "atelectasis", "pneumonia", "cancer", "stone", "infarction")
LABELS = [f"{side} {organ} {finding}" for side in ("left", "right") for organ in ORGANS for finding in FINDINGS]
PROTOCOLS = registry.names("protocols")
DATASET = DatasetRef(name="made-up", split="test")


class Noise:
    """An image source whose pictures are noise, the hardest to compress."""

    def load(self, image_id: str) -> Image.Image:
        pixels = np.random.default_rng(int(image_id.rpartition("-")[2])).integers(0, 256, (512, 512, 3), dtype=np.uint8)
        return Image.fromarray(pixels)

    def digest(self, image_id: str) -> str:
        return image_id


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    results: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        for name, value in one_round().items():
            results.setdefault(name, []).append(round(value, 4))
    if arguments.million:
        results["million_rows_seconds"] = [round(seconds(lambda: scored(1_000_000, resamples=100)), 1)]
    medians = {name: statistics.median(values) for name, values in results.items()}
    ratio = medians["loop_seconds"] / medians["bootstrap_seconds"]
    for name, value in medians.items():
        print(f"{name}: {value:.2f}")
    print(f"intervals: {ratio:.0f} times as fast as a loop; torch imported: {'torch' in sys.modules}")
    found = {"cores": os.cpu_count(), "load": os.getloadavg(), "ratio": ratio, "torch_imported": "torch" in sys.modules}
    text = json.dumps(found | {"medians": medians, "rounds": results}, indent=2)
    (HERE / "results" / "evaluation.json").write_text(text + "\n", encoding="utf-8")


def one_round() -> dict[str, float]:
    """Seconds, and the size of the page in MB."""
    counts = np.stack([np.arange(10_000) % 3 > 0, np.ones(10_000)], axis=1).astype(float)
    groups = [f"scan-{n // PER_IMAGE}" for n in range(10_000)]
    return {
        "protocols_2000_seconds": seconds(lambda: scored(2000, protocols=PROTOCOLS)),
        **report_on(10_000),
        "bootstrap_seconds": seconds(lambda: clustered_bootstrap(counts, groups, mean, resamples=RESAMPLES, seed=1)),
        "loop_seconds": seconds(lambda: loop(counts, groups)),
    }


def rows(n: int) -> tuple[list[Example], list[Prediction]]:
    """Questions with their reference, and an answer to each."""
    examples = [
        Example(
            str(i),
            f"scan-{i // PER_IMAGE}",
            f"What is at place {i % 50}?",
            (LABELS[i % 180],),
            f"scan-{i // PER_IMAGE}",
            {
                "answer_type": "OPEN" if i % 3 else "CLOSED",
                "organ": ORGANS[i % 9],
                "modality": "CT" if i % 2 else "MRI",
            },
        )
        for i in range(n)
    ]
    answers = [f"{LABELS[i % 180 if i % 2 else i % 77]} {i}" for i in range(n)]
    return examples, [Prediction(str(i), answer, "", (i % 97) / 97) for i, answer in enumerate(answers)]


def scored(n: int, *, protocols: Sequence[str] = (), resamples: int = RESAMPLES) -> Results:
    """The numbers of a predictions file of `n` rows, with one baseline."""
    examples, predictions = rows(n)
    settings = ScoringSettings(
        published_protocols=protocols,
        breakdowns=[("organ",), ("modality",)],
        bootstrap=Bootstrap(resamples=resamples),
    )
    return score_answers(
        join(examples, predictions),
        baselines={"question-only": [Prediction(row.id, LABELS[0]) for row in examples]},
        dataset=DATASET,
        training_rows=examples,
        settings=settings,
    )


def report_on(n: int) -> dict[str, float]:
    """Scoring under every rule and writing the page."""
    examples, predictions = rows(n)
    baselines = {"question-only": [Prediction(row.id, LABELS[0]) for row in examples]}
    settings = ScoringSettings(published_protocols=PROTOCOLS, breakdowns=default_facts(examples))
    with tempfile.TemporaryDirectory() as folder:
        page, began = Path(folder) / "report.html", time.perf_counter()
        answered = join(examples, predictions)
        results = score_answers(
            answered, baselines=baselines, dataset=DATASET, training_rows=examples, settings=settings
        )
        write_report(page, results=results, answered=answered, baselines=baselines, images=Noise(), title="made up")
        taken, size = time.perf_counter() - began, page.stat().st_size / 1e6
    return {"report_10000_seconds": taken, "report_10000_megabytes": size}


def mean(totals: np.ndarray) -> np.ndarray:
    return totals[:, 0] / totals[:, 1]


def loop(counts: np.ndarray, groups: Sequence[str]) -> tuple[float, float]:
    """The usual way: draw groups, gather their rows, take the mean; once per resample."""
    names, index = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(index == number) for number in range(len(names))]
    rng, values = np.random.default_rng(1), []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([members[number] for number in rng.integers(0, len(names), len(names))])
        values.append(counts[drawn, 0].mean())
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

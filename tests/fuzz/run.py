"""Passes mutated uploads through `ingest` and prints the results, the slowest one, and the peak of memory.

python tests/fuzz/run.py [COUNT] [SEED]
"""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from mutate import bombs, uploads

from medical_vqa.data.imaging.decode import decode_image
from medical_vqa.errors import ImageError


def outcome(data: bytes) -> str:
    try:
        return f"read as {decode_image(data).format}"
    except ImageError as error:
        return type(error).__name__


def peak_mb() -> float:
    """The most memory that this process has had resident, MB of 10^6 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main(count: int, seed: int) -> None:
    first = list(uploads(len(bombs()), seed))
    outcome(first[0][1])
    start, counts, slowest = peak_mb(), Counter[str](), (0.0, "")
    peaks = []
    for number, (name, data) in enumerate(uploads(count, seed), 1):
        began = time.perf_counter()
        counts[outcome(data)] += 1
        slowest = max(slowest, (time.perf_counter() - began, name))
        if number == len(first) or number % max(1, count // 5) == 0:
            peaks.append(f"{number:,}: {peak_mb():.0f}")
    for what, times in counts.most_common():
        print(f"{times:7,} {what}")
    print(f"slowest {slowest[0]:.2f} s ({slowest[1]})")
    print(f"peak memory, MB: {start:.0f} with the bombs made; after " + ", ".join(peaks))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000, int(sys.argv[2]) if len(sys.argv) > 2 else 0)

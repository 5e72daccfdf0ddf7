"""Random requests of one tenant for what another owns, each next to the same request for what nobody owns.

Every route that names an image, a series, a job or a conversation is tried; replies must be equal in status, body and
headers, and none may succeed. What their time tells is measured too: how often the reply about another tenant's id took
longer than its neighbor about an unknown id (a fair coin says half), and the medians of both. The server is
`medical-vqa serve` with the shipped model; the two requests of a pair take random order.

    python benchmarks/serve_tenants.py --operations 2000 --out benchmarks/results/serve_tenants.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from medical_vqa.serving.middleware.access import hash_key

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "serving"))
import foreign_ids
from live import client_of

from started_server import started_server


def series_of_three_slices(folder: Path) -> bytes:
    values = np.arange(48 * 64 * 3, dtype=np.int16).reshape(64, 48, 3)
    path = folder / "series.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 3, 1])), path)
    return path.read_bytes()


def measure(url: str, folder: Path, count: int) -> dict[str, Any]:
    anna, boris = (client_of(base_url=url, headers={"Authorization": f"Bearer {key}"}) for key in ("anna", "boris"))
    with anna, boris:
        file = series_of_three_slices(folder)
        owned = foreign_ids.create(anna, file)
        operations = foreign_ids.operations(foreign_ids.create(boris, file))
        choose = random.Random(0)
        tried: Counter[str] = Counter()
        different: list[str] = []
        succeeded: list[str] = []
        statuses: Counter[str] = Counter()
        times: dict[str, list[float]] = {"another_tenants": [], "unknown": []}
        for _ in range(count):
            route = choose.choice(list(operations))
            operation = choose.choice(operations[route])
            ids = {"another_tenants": owned, "unknown": foreign_ids.Ids.unknown()}
            replies = {}
            for kind in choose.sample(list(ids), 2):
                start = time.perf_counter()
                replies[kind] = operation(boris, ids[kind])
                times[kind].append(time.perf_counter() - start)
            foreign, unknown = replies["another_tenants"], replies["unknown"]
            tried[route] += 1
            statuses[str(foreign.status_code)] += 1
            if foreign_ids.seen_by_client(foreign) != foreign_ids.seen_by_client(unknown):
                different.append(route)
            if not foreign_ids.reaches_nothing(foreign):
                succeeded.append(route)
        intact = foreign_ids.everything_is_there(anna, owned)
    longer = sum(a > b for a, b in zip(times["another_tenants"], times["unknown"], strict=True))
    return {
        "operations": count,
        "routes": dict(sorted(tried.items())),
        "statuses": dict(statuses),
        "succeeded": succeeded,
        "different": different,
        "owner_finds_everything": intact,
        "median_ms": {kind: round(1000 * statistics.median(values), 3) for kind, values in times.items()},
        "longer_for_another_tenants": round(longer / count, 3),
        "standard_deviations_from_half": round((longer - count / 2) / math.sqrt(count / 4), 2),
        "load_average": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        environ = {
            **os.environ,
            "PORT": str(port),
            "MEDICAL_VQA_API_KEYS": ",".join(f"{name}:{hash_key(name)}" for name in ("anna", "boris")),
            "MEDICAL_VQA_STORE": f"{folder}/store",
            "MEDICAL_VQA_JOBS": f"{folder}/jobs",
            "MEDICAL_VQA_FEEDBACK": f"{folder}/ratings",
        }
        with started_server(port, environ) as url:
            result = measure(url, Path(folder), arguments.operations)
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

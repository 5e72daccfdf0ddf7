"""Thousands of mutated uploads against the running server: no crash, no 5xx, constant memory.

The uploads are those of ``tests/fuzz/mutate.py``: known bombs first, then valid files of every format (with DICOM and
NIfTI) with one to three changes each. Every response must be 200 or a 4xx in the documented format, the process must be
the same one afterwards and must still answer.

    python benchmarks/serve_fuzz.py                 # 10,000
    python benchmarks/serve_fuzz.py --count 300
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
for folder in ("serving", "fuzz"):
    sys.path.insert(0, str(HERE.parent / "tests" / folder))
import mutate  # noqa: E402 - a module of the tests
from live import Connection, Instance, png, question, upload  # noqa: E402

from medical_vqa.pipelines.bundles import shipped_bundle  # noqa: E402
from medical_vqa.serving.schema.errors import Problem  # noqa: E402

MEBIBYTE = 1 << 20
# Small caches, which fill soon, and deadlines that a slow machine meets.
BOUNDS = {
    "store_bytes": 64 * MEBIBYTE, "max_upload_bytes": 32 * MEBIBYTE, "image_cache_bytes": 16 * MEBIBYTE,
    "deadline": 60, "drain_timeout": 61,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    figures = fuzz(shipped_bundle(), arguments.count, arguments.seed)
    text = json.dumps(figures, indent=2) + "\n"
    print(text)
    (HERE / "results" / "serve_fuzz.json").write_text(text, encoding="utf-8")


def fuzz(model: Path, count: int, seed: int, clients: int = 4) -> dict[str, Any]:
    """Send the uploads; returns the responses by status, or raises `AssertionError` for one that must not occur."""
    with Instance(model, **BOUNDS) as server:
        pid, began = server.process.pid, time.monotonic()
        statuses: Counter[str] = Counter()
        memory: list[tuple[int, int]] = []  # (uploads done, bytes)
        asyncio.run(_send_all(server, mutate.uploads(count, seed), clients, statuses, memory))
        assert server.process.pid == pid and server.process.poll() is None, "the server died"
        assert "Traceback" not in server.logs(), server.logs()[-3000:]
        seconds = time.monotonic() - began
    later = [size for done, size in memory if done >= count // 4]
    return {
        "uploads": count, "seed": seed, "seconds": round(seconds, 1), "statuses": dict(statuses.most_common()),
        "server_errors": sum(n for status, n in statuses.items() if status.startswith("5")),
        "peak_megabytes": round(max(size for _, size in memory) / 1e6),
        "megabytes_at_first_quarter_and_end": [round(later[0] / 1e6), round(later[-1] / 1e6)],
        "of": "the server and its decoding process, resident",
    }  # fmt: skip


async def _send_all(
    server: Instance,
    uploads: Iterator[tuple[str, bytes]],
    clients: int,
    statuses: Counter[str],
    memory: list[tuple[int, int]],
) -> None:
    async def client() -> None:
        async with Connection(server.url) as connection:
            for _, data in uploads:  # one iterator for all: each takes the next
                status, _, body = await connection.send(upload(data))
                code = "" if status == 200 else Problem.model_validate_json(body).detail.code
                statuses[f"{status} {code}".strip()] += 1
                done = sum(statuses.values())
                if done % 25 == 0:
                    memory.append((done, server.memory()))

    await asyncio.gather(*(client() for _ in range(clients)))
    async with Connection(server.url) as connection:
        status, _, body = await connection.send(upload(png()))
        assert status == 200, body
        status, _, body = await connection.send(question(json.loads(body)["image_id"], "What modality is this?"))
        assert status == 200, body
    memory.append((sum(statuses.values()), server.memory()))


if __name__ == "__main__":
    main()

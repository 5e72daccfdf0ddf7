"""A server under steady use for half an hour: uploads, questions, deletions, disconnects; memory must not grow.

After a first fifth in which its caches fill, the memory at the end must be within 5 % of the memory then.

    python benchmarks/serve_soak.py                 # 30 minutes
    python benchmarks/serve_soak.py --minutes 1
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "serving"))
from live import Connection, Instance, png, question, upload  # noqa: E402 - a module of the tests

from medical_vqa.pipelines.bundles import shipped_bundle  # noqa: E402

MEBIBYTE = 1 << 20
BOUNDS = {
    "store_bytes": 33 * MEBIBYTE, "max_upload_bytes": 32 * MEBIBYTE, "image_cache_bytes": 8 * MEBIBYTE,
    "answer_cache_size": 500, "store_ttl": 2,
}  # fmt: skip
WORDS = ("liver", "lung", "heart", "brain", "kidney", "spleen", "chest", "abdomen")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=10.0, help="rounds per second")
    arguments = parser.parse_args()
    figures = soak(shipped_bundle(), 60 * arguments.minutes, arguments.rate)
    text = json.dumps(figures, indent=2) + "\n"
    print(text)
    (HERE / "results" / "serve_soak.json").write_text(text, encoding="utf-8")


def soak(model: Path, seconds: float, rate: float) -> dict[str, Any]:
    """Use a server for some seconds; returns its memory over time and its responses by status."""
    with Instance(model, **BOUNDS) as server:
        statuses: Counter[int | str] = Counter()
        memory: list[tuple[float, int]] = []  # (seconds, bytes)
        asyncio.run(_use(server, seconds, rate, statuses, memory))
        assert "Traceback" not in server.logs(), server.logs()[-3000:]
    filled = [size for at, size in memory if 0.2 * seconds <= at < 0.4 * seconds]
    last = [size for at, size in memory if at >= 0.8 * seconds]
    before, after = statistics.median(filled), statistics.median(last)
    return {
        "minutes": round(seconds / 60, 2), "requests": sum(statuses.values()), "statuses": dict(statuses),
        "megabytes": [round(size / 1e6, 1) for _, size in memory[:: max(1, len(memory) // 30)]],
        "median_megabytes_second_and_last_fifth": [round(before / 1e6, 1), round(after / 1e6, 1)],
        "growth": round(after / before - 1, 4),
    }  # fmt: skip


async def _use(
    server: Instance, seconds: float, rate: float, statuses: Counter[int | str], memory: list[tuple[float, int]]
) -> None:
    began, rng, number = time.monotonic(), random.Random(0), 0
    async with Connection(server.url) as connection:
        while (at := time.monotonic() - began) < seconds:
            await _round(server, connection, rng, number, statuses)
            if not memory or at - memory[-1][0] >= seconds / 300:
                memory.append((at, server.memory()))
            number += 1
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))


async def _round(
    server: Instance, connection: Connection, rng: random.Random, number: int, statuses: Counter[int | str]
) -> None:
    """An upload, three questions, a refused upload, at times a deletion or a client that disconnects in a request."""
    start = time.monotonic()
    status, _, body = await connection.send(upload(png(rng.randrange(256), side=rng.choice((64, 256, 512)))))
    statuses[status] += 1
    id_ = json.loads(body)["image_id"]
    requests = [question(id_, f"Is the {rng.choice(WORDS)} {rng.choice(WORDS)} healthy?") for _ in range(3)]
    requests.append(upload(rng.randbytes(500)))
    if number % 3 == 0:
        requests.append(f"DELETE /images/{id_} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    for request in requests:
        status = (await connection.send(request))[0]
        late = time.monotonic() - start > BOUNDS["store_ttl"]
        statuses["expired" if status == 404 and late else status] += 1
    if number % 10 == 0:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(question(id_, "Who is there?")[: rng.randrange(20, 200)])
        writer.close()


if __name__ == "__main__":
    main()

"""How long a polite client waits beside a heavy one: its 95th percentile alone and with the heavy one, in turns.

The polite client asks one new question after another about its image, with a pause between two; the heavy one sends
batches of 32 new questions about another image from several connections at once. Both have keys, so each is a tenant.
The server is `medical-vqa serve` with the shipped model.

    python benchmarks/serve_fairness.py --out benchmarks/results/serve_fairness.json
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import socket
import sys
import time
from pathlib import Path

import numpy as np

from medical_vqa.data.formats.slake_mini import SlakeMini
from medical_vqa.serving.middleware.access import hash_key

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "serving"))
from live import Connection, post, upload

from started_server import started_server

PAUSE = 0.02  # seconds between two questions of the polite client
NUMBERS = itertools.count()


def keyed(request: bytes, key: str) -> bytes:
    return request.replace(b"\r\n", b"\r\nAuthorization: Bearer " + key.encode() + b"\r\n", 1)


async def new_image(url: str, key: str, data: bytes) -> str:
    async with Connection(url) as connection:
        status, _, body = await connection.send(keyed(upload(data), key))
        assert status == 200, body
        return str(json.loads(body)["image_id"])


async def polite(url: str, image_id: str, seconds: float, latencies: list[float]) -> None:
    until = time.monotonic() + seconds
    async with Connection(url) as connection:
        while time.monotonic() < until:
            body = json.dumps({"image_id": image_id, "question": f"What is shown in this image {next(NUMBERS)}?"})
            start = time.perf_counter()
            status, _, _ = await connection.send(
                keyed(post("/ask_question", body.encode(), "application/json"), "polite")
            )
            assert status == 200, status
            latencies.append(time.perf_counter() - start)
            await asyncio.sleep(PAUSE)


async def heavy(url: str, image_id: str, statuses: list[int]) -> None:
    async with Connection(url) as connection:
        while True:
            questions = [f"Is there a mass in this image {next(NUMBERS)}?" for _ in range(32)]
            body = json.dumps({"image_id": image_id, "questions": questions}).encode()
            status, _, _ = await connection.send(keyed(post("/ask_questions", body, "application/json"), "heavy"))
            statuses.append(status)


async def measure(url: str, seconds: float, turns: int, connections: int) -> dict[str, object]:
    first, second = (path.read_bytes() for path in sorted((SlakeMini().bundled() / "imgs").glob("*/source.jpg"))[:2])
    polite_id, heavy_id = await new_image(url, "polite", first), await new_image(url, "heavy", second)
    alone: list[float] = []
    beside: list[float] = []
    statuses: list[int] = []
    await polite(url, polite_id, 1.0, [])
    for _ in range(turns):
        await polite(url, polite_id, seconds, alone)
        tasks = [asyncio.create_task(heavy(url, heavy_id, statuses)) for _ in range(connections)]
        await asyncio.sleep(0.5)
        await polite(url, polite_id, seconds, beside)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.5)
    p95_alone, p95_beside = (round(1000 * float(np.percentile(part, 95)), 2) for part in (alone, beside))
    p50_alone, p50_beside = (round(1000 * float(np.percentile(part, 50)), 2) for part in (alone, beside))
    return {
        "heavy_connections": connections,
        "polite_questions": [len(alone), len(beside)],
        "heavy_batches": {str(status): statuses.count(status) for status in sorted(set(statuses))},
        "p50_ms": {"alone": p50_alone, "beside": p50_beside},
        "p95_ms": {"alone": p95_alone, "beside": p95_beside, "ratio": round(p95_beside / p95_alone, 2)},
        "load_average": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    keys = ",".join(f"{name}:{hash_key(name)}" for name in ("polite", "heavy"))
    environ = {**os.environ, "PORT": str(port), "MEDICAL_VQA_API_KEYS": keys}
    with started_server(port, environ) as url:
        result = asyncio.run(measure(url, arguments.seconds, arguments.turns, arguments.connections))
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""The cost of a request, of this tree and of another one: cached answers, new questions, and a thousand clients.

Both trees serve their shipped model with default settings, as `medical-vqa serve` does; one client asks one question
about one image again and again on one connection, so that every answer comes from the cache. What remains is HTTP,
middleware, validation and logging. The two servers take short turns, which a busy machine disturbs alike; even so their
latencies on one are mostly those of its scheduler, and the processor time of the servers says more.

Then eight clients ask new questions, again in turns; and 1,000 clients at once ask this tree's server one question each
that it has answered before, ten times over.

    git worktree add --detach ../before REVISION
    python benchmarks/serve_overhead.py --against ../before/src
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "serving"))
from live import Connection, png, question, upload  # noqa: E402 - a module of the tests

SCAN = HERE.parent / "src/medical_vqa/assets/slake-mini/imgs/xmlab112/source.jpg"
NEW_QUESTION = "What modality is used to take this image {}?"
NUMBERS = itertools.count()
WARM_UP = 200
"""Requests to each server before the first turn."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, required=True, help="the folder src of another tree")
    parser.add_argument("--turns", type=int, default=60, help="of each server, alternating")
    parser.add_argument("--requests", type=int, default=100, help="in each turn")
    parser.add_argument("--new-seconds", type=float, default=4.0, help="of new questions in each of eight turns")
    arguments = parser.parse_args()
    trees = {"before": arguments.against.resolve(), "after": HERE.parent / "src"}
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(started(source)) for name, source in trees.items()}
        figures: dict[str, Any] = {"cached": asyncio.run(measure(servers, arguments.turns, arguments.requests))}
        figures["new_questions"] = asyncio.run(measure_new(servers, arguments.new_seconds))
        figures["thousand_clients"] = asyncio.run(measure_many(servers["after"][0]))
    figures = {"turns": arguments.turns, "requests_per_turn": arguments.requests, **figures}
    text = json.dumps(figures, indent=2) + "\n"
    print(text)
    (HERE / "results" / "serve_overhead.json").write_text(text, encoding="utf-8")


@contextlib.contextmanager
def started(source: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A server of one tree; its URL and process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "medical_vqa", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


async def measure(servers: dict[str, tuple[str, psutil.Process]], turns: int, requests: int) -> dict[str, Any]:
    """Latency of the client and processor time of the server, per request, in microseconds."""
    latencies: dict[str, list[float]] = {name: [] for name in servers}
    processor = dict.fromkeys(servers, 0.0)
    async with contextlib.AsyncExitStack() as stack:
        connections = {name: await stack.enter_async_context(Connection(url)) for name, (url, _) in servers.items()}
        bodies = {}
        for name, connection in connections.items():
            _, _, body = await connection.send(upload(png()))
            bodies[name] = question(json.loads(body)["image_id"], "What modality is used to take this image?")
            await ask(connection, bodies[name], WARM_UP)
        for turn in range(turns):
            for name in sorted(servers, reverse=bool(turn % 2)):
                before = servers[name][1].cpu_times()
                latencies[name] += await ask(connections[name], bodies[name], requests)
                after = servers[name][1].cpu_times()
                processor[name] += after.user + after.system - before.user - before.system
    medians = {name: statistics.median(values) for name, values in latencies.items()}
    tenths = {name: statistics.quantiles(values, n=10)[0] for name, values in latencies.items()}
    times = {name: seconds / (turns * requests) for name, seconds in processor.items()}
    return {
        "median_latency_us": {name: round(1e6 * value, 1) for name, value in medians.items()},
        "median_latency_ratio": round(medians["after"] / medians["before"], 3),
        "fastest_tenth_us": {name: round(1e6 * value, 1) for name, value in tenths.items()},
        "fastest_tenth_ratio": round(tenths["after"] / tenths["before"], 3),
        "processor_time_us": {name: round(1e6 * value, 1) for name, value in times.items()},
        "processor_time_ratio": round(times["after"] / times["before"], 3),
        "load_average": round(os.getloadavg()[0], 1),
    }


async def measure_new(servers: dict[str, tuple[str, psutil.Process]], seconds: float) -> dict[str, Any]:
    """New questions per second of eight clients, and processor time per question."""
    counts = dict.fromkeys(servers, 0)
    took = dict.fromkeys(servers, 0.0)
    processor = dict.fromkeys(servers, 0.0)
    for turn in range(8):
        for name in sorted(servers, reverse=bool(turn % 2)):
            url, process = servers[name]
            before, start = process.cpu_times(), time.perf_counter()
            counts[name] += await new_questions(url, start + seconds)
            after = process.cpu_times()
            took[name] += time.perf_counter() - start
            processor[name] += after.user + after.system - before.user - before.system
    rates = {name: counts[name] / took[name] for name in servers}
    return {
        "clients": 8,
        "questions": counts,
        "per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "per_second_ratio": round(rates["after"] / rates["before"], 2),
        "processor_ms": {name: round(1000 * processor[name] / counts[name], 2) for name in servers},
    }


async def new_questions(url: str, until: float) -> int:
    """Eight clients ask new questions about an image of their own; how many were answered."""
    count = 0

    async def client() -> None:
        nonlocal count
        async with Connection(url) as connection:
            _, _, body = await connection.send(upload(SCAN.read_bytes()))
            image_id = json.loads(body)["image_id"]
            while time.perf_counter() < until:
                status, _, _ = await connection.send(question(image_id, NEW_QUESTION.format(next(NUMBERS))))
                assert status == 200, status
                count += 1

    await asyncio.gather(*(client() for _ in range(8)))
    return count


async def measure_many(url: str, clients: int = 1000, times: int = 10) -> dict[str, Any]:
    """What many clients receive that are connected at once."""
    statuses: Counter[str] = Counter()
    latencies: list[float] = []
    async with Connection(url) as connection:
        _, _, body = await connection.send(upload(png()))
        request = question(json.loads(body)["image_id"], "What modality is used to take this image?")
        await connection.send(request)

    async def client() -> None:
        async with Connection(url) as connection:
            for _ in range(times):
                start = time.perf_counter()
                try:
                    status, _, _ = await connection.send(request)
                    statuses[str(status)] += 1
                except (OSError, asyncio.IncompleteReadError) as error:
                    statuses[type(error).__name__] += 1
                    return
                latencies.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return {
        "clients": clients,
        "received": dict(statuses),
        "per_second": round(len(latencies) / (time.perf_counter() - start)),
        "p99_ms": round(1000 * statistics.quantiles(latencies, n=100)[98], 1),
    }


async def ask(connection: Connection, body: bytes, count: int) -> list[float]:
    latencies = []
    for _ in range(count):
        start = time.perf_counter()
        status, _, _ = await connection.send(body)
        latencies.append(time.perf_counter() - start)
        assert status == 200
    return latencies


if __name__ == "__main__":
    main()

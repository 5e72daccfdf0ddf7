"""The server in front of a remote model against asking the engine directly, and what happens when the engine dies.

The engine answers after a fixed delay (`fixed_delay_engine.py`), so that the difference is the server's: HTTP twice,
validation, guards, the client, the picture in base64. Both sides send the engine the same picture; their turns
alternate, and in each the clients begin at moments spread over one delay, as people do. `burst` has them begin at once,
so that the last waits for the work on all others. `server_cpu_ms` is the processor time of the server's process for a
question: engine, clients and server share the cores of one machine, so that it is the figure that another machine
confirms. `checked` measures the same with `check_image`, which asks about a gray picture as well. `two_hundred`: 200
clients ask at once, each for an answer of its own. `killed`: the engine is killed with -9 once 64 clients have their
first answers and wait for the next. Every part adds its figures to the same file.

    python benchmarks/remote_overhead.py                              # all parts
    python benchmarks/remote_overhead.py --part plain --clients 32
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import dataclasses
import io
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "serving"))
from live import Connection, Instance, post, question, request, upload  # noqa: E402 - a module of the tests

PROMPT = (
    "Answer the question about this medical image with one word or a short phrase, without explanation.\nQuestion: {}"
)
PARTS = ("plain", "burst", "checked", "two_hundred", "killed")
CLIENTS = (1, 8, 32)
DEADLINE = 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument("--clients", type=int, action="append", help="not of the last two; default: 1, 8 and 32")
    parser.add_argument("--delay", type=float, default=500.0, help="of the engine, milliseconds")
    parser.add_argument("--turns", type=int, default=4, help="of each side, alternating")
    parser.add_argument("--requests", type=int, default=4, help="per client in each turn")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "remote_overhead.json")
    arguments = parser.parse_args()
    figures = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    figures["picture"] = f"512 x 512, gray noise, PNG ({len(engine_picture()):,} bytes in base64)"
    for part in arguments.part or PARTS:
        with engine(arguments.delay) as (port, process), server(port) as (url, pid):
            if part in ("plain", "burst", "checked"):
                for clients in arguments.clients or CLIENTS:
                    load = Load(clients, arguments.requests, 0.0 if part == "burst" else arguments.delay / 1000)
                    row = asyncio.run(compare(port, url, pid, load, arguments.turns, check_image=part == "checked"))
                    figures.setdefault(part, {})[str(clients)] = {"delay_ms": arguments.delay, **row}
            elif part == "two_hundred":
                figures[part] = {"delay_ms": arguments.delay, **asyncio.run(two_hundred(url))}
            else:
                figures[part] = {"delay_ms": arguments.delay, **asyncio.run(killed(url, process))}
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))


@contextlib.contextmanager
def engine(delay: float, port: int = 0) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The engine with a fixed delay; its port and process."""
    if not port:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(HERE / "fixed_delay_engine.py"), str(port), str(delay)])
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield port, process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def server(port: int) -> Iterator[tuple[str, int]]:
    """`medical-vqa serve` in front of it; its address and process."""
    environ = {"remote_concurrency": 300, "remote_deadline": DEADLINE, "base_url": f"http://127.0.0.1:{port}/v1"}
    with Instance(Path("openai:m"), **environ) as instance:
        while request("GET", f"{instance.url}/readyz").status_code != 200:
            time.sleep(0.1)
        yield instance.url, instance.process.pid


@dataclasses.dataclass(frozen=True)
class Load:
    """What a side of a comparison has to do in one turn."""

    clients: int
    requests: int
    spread: float
    """Seconds over which the clients begin."""


def picture() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (512, 512), np.uint8)).save(out, "PNG")
    return out.getvalue()


def engine_picture() -> str:
    """The same picture as the server sends it."""
    out = io.BytesIO()
    Image.open(io.BytesIO(picture())).save(out, "PNG", compress_level=1)
    return base64.b64encode(out.getvalue()).decode()


def direct_request(words: str, data_url: str) -> bytes:
    content = [{"type": "image_url", "image_url": {"url": data_url}}, {"type": "text", "text": PROMPT.format(words)}]
    body = {"model": "m", "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 64}
    return post("/v1/chat/completions", json.dumps(body).encode(), "application/json")


async def compare(port: int, url: str, pid: int, load: Load, turns: int, *, check_image: bool) -> dict[str, Any]:
    async with Connection(url) as connection:
        _, _, body = await connection.send(upload(picture()))
        image_id = json.loads(body)["image_id"]
    data_url = f"data:image/png;base64,{engine_picture()}"

    def server_request(words: str) -> bytes:
        fields = {"image_id": image_id, "question": words, "check_image": check_image}
        return post("/ask_question", json.dumps(fields).encode(), "application/json")

    sides = {
        "direct": (f"http://127.0.0.1:{port}", lambda words: direct_request(words, data_url)),
        "server": (url, server_request),
    }
    number, clients, requests = 0, load.clients, load.requests
    process, cpu = psutil.Process(pid), 0.0
    latencies: dict[str, list[float]] = {name: [] for name in sides}
    seconds = dict.fromkeys(sides, 0.0)
    for turn in range(turns + 1):  # the first warms up
        for name, (address, make) in sides.items():
            start, cpu_start = time.perf_counter(), sum(process.cpu_times()[:2])
            results = await asyncio.gather(
                *(
                    one_client(address, make, requests, number + k * requests, load.spread * k / clients)
                    for k in range(clients)
                )
            )
            number += clients * requests
            if turn:
                seconds[name] += time.perf_counter() - start
                if name == "server":
                    cpu += sum(process.cpu_times()[:2]) - cpu_start
                latencies[name] += [value for result in results for value in result]
    count = clients * requests * turns
    rates = {name: count / seconds[name] for name in sides}
    medians = {name: 1000 * statistics.median(values) for name, values in latencies.items()}
    return {
        "requests": count,
        "per_second": {name: round(rate, 2) for name, rate in rates.items()},
        "throughput_overhead": round(1 - rates["server"] / rates["direct"], 4),
        "median_ms": {name: round(value, 2) for name, value in medians.items()},
        "median_difference_ms": round(medians["server"] - medians["direct"], 2),
        "server_cpu_ms": round(1000 * cpu / count, 2),
    }


async def one_client(address: str, make: Any, requests: int, first: int, wait: float) -> list[float]:
    latencies = []
    await asyncio.sleep(wait)
    async with Connection(address) as connection:
        for number in range(first, first + requests):
            start = time.perf_counter()
            status, _, _ = await connection.send(make(f"Which one is number {number}?"))
            latencies.append(time.perf_counter() - start)
            assert status == 200, status
    return latencies


async def two_hundred(url: str) -> dict[str, int]:
    """Each client uploads a picture of its own and asks for a number of its own."""
    async with Connection(url) as connection:
        _, _, body = await connection.send(upload(picture()))
        image_id = json.loads(body)["image_id"]

    async def client(number: int) -> bool:
        async with Connection(url) as connection:
            _, _, body = await connection.send(question(image_id, f"Say {number}?"))
        return json.loads(body).get("answer") == str(number)

    right = await asyncio.gather(*(client(number) for number in range(200)))
    return {"clients": 200, "own_answer": sum(right), "mixed_up": 200 - sum(right)}


async def killed(url: str, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Kill the engine once 64 clients have their first answers; each request must end, within its deadline."""
    async with Connection(url) as connection:
        _, _, body = await connection.send(upload(picture()))
        image_id = json.loads(body)["image_id"]
    outcomes: Counter[str] = Counter()
    longest = 0.0
    first_answers = 0
    all_answered = asyncio.Event()

    async def client(number: int) -> None:
        nonlocal longest, first_answers
        async with Connection(url) as connection:
            for turn in range(3):
                start = time.perf_counter()
                status, _, body = await connection.send(question(image_id, f"Say {number} {turn}?"))
                longest = max(longest, time.perf_counter() - start)
                outcomes["answer" if status == 200 else json.loads(body)["detail"]["code"]] += 1
                first_answers += status == 200 and turn == 0
                if first_answers == 64:
                    all_answered.set()

    clients = asyncio.gather(*(client(number) for number in range(64)))
    await all_answered.wait()
    await asyncio.sleep(0.2)  # the next questions are at the engine
    os.kill(process.pid, signal.SIGKILL)
    await clients
    return {"requests": 192, "outcomes": dict(outcomes), "longest_s": round(longest, 2), "deadline_s": DEADLINE}


if __name__ == "__main__":
    main()

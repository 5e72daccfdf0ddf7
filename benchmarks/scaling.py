"""How many servers which load needs: a queueing simulation with measured service times, checked against real servers.

    python benchmarks/scaling.py measure    # service times, memory and blobs of one server with the shipped model
    python benchmarks/scaling.py simulate   # instances, delays, store traffic and memory for 10 to 100,000 per second
    python benchmarks/scaling.py check      # one and two servers behind nginx (deploy/nginx.conf), and simulated

An instance is one process with one core. Sessions arrive at random: an upload, then eight questions, of which a third
was asked before; the answer is cached only in the instance that gave it, and the balancer sends a request to any. What
would wait longer than the deadline is refused, as the server does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import heapq
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "serving"))
import proxy  # noqa: E402 - a module of the tests
from live import Connection, Instance, question, upload  # noqa: E402

from medical_vqa.data.formats.slake_mini import SlakeMini  # noqa: E402
from medical_vqa.pipelines.bundles import shipped_bundle  # noqa: E402

RESULTS = HERE / "results" / "scaling.json"
KEYS = {"measure": "measured", "simulate": "simulated", "check": "checked"}
QUESTIONS_PER_IMAGE = 8
REPEATED = 1 / 3  # of the questions, whose answer one of the instances has
DEADLINE = 7.0  # seconds, as the server's default
RATES = (10, 100, 1_000, 10_000, 100_000)  # questions per second
LOADS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # part of the time that an instance works
DELAY_LIMIT = 1.0  # seconds that 99 % of the questions may take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["measure", "simulate", "check"])
    parser.add_argument("--seconds", type=float, default=25.0, help="of each load, with check")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    if arguments.part == "measure":
        results = {"measured": measure()}  # what was computed from other times is gone
    elif arguments.part == "simulate":
        results["simulated"] = simulate(results["measured"])
    else:
        results["checked"] = check(results["measured"], arguments.seconds)
    shown = {key: value for key, value in results[KEYS[arguments.part]].items() if not key.endswith("_ms")}
    print(json.dumps(shown, indent=2))
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


# --- service times ----------------------------------------------------------------------------------------------------


def sample() -> tuple[list[bytes], list[str]]:
    """The shipped sample: pictures, and its different questions in English."""
    folder = SlakeMini().bundled()
    rows = [row for split in ("train", "validation") for row in json.loads((folder / f"{split}.json").read_bytes())]
    questions = list(dict.fromkeys(row["question"] for row in rows if row["q_lang"] == "en"))
    return [path.read_bytes() for path in sorted(folder.glob("imgs/*/source.jpg"))], questions


def measure(images: int = 60, questions: int = 6) -> dict[str, Any]:
    """Times of one client on an idle server: what a request costs, without any wait."""
    pictures, texts = sample()
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        server = Instance(shipped_bundle(), store=f"{folder}/store", log_level="warning", store_bytes=1 << 30).wait()
        times: dict[str, list[float]] = {"upload": [], "question": [], "cached": [], "first_of_a_stored": []}

        async def use(upload_first: bool, ids: list[str]) -> None:
            async with Connection(server.url) as connection:

                async def timed(kind: str, request: bytes) -> bytes:
                    start = time.perf_counter()
                    status, _, body = await connection.send(request)
                    assert status == 200, body
                    times[kind].append(1000 * (time.perf_counter() - start))
                    return body

                for picture in pictures[:images] if upload_first else []:
                    ids.append(json.loads(await timed("upload", upload(picture)))["image_id"])
                    for text in chance.sample(texts, questions):
                        await timed("question", question(ids[-1], text))
                    await timed("cached", question(ids[-1], text))
                for id_ in [] if upload_first else ids:
                    await timed("first_of_a_stored", f"GET /images/{id_} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

        ids: list[str] = []
        asyncio.run(use(True, ids))
        memory = server.memory()
        server.stop()
        blobs = [path.stat().st_size for path in Path(folder).glob("store/??/*.image")]
        server = Instance(shipped_bundle(), store=f"{folder}/store", log_level="warning", store_bytes=1 << 30).wait()
        asyncio.run(use(False, ids))
        server.stop()
    figures = {f"{kind}_ms": [round(value, 2) for value in values] for kind, values in times.items()}
    return {
        "load_average": round(os.getloadavg()[0], 1),
        "mean_ms": {kind: round(statistics.mean(values), 2) for kind, values in times.items()},
        "median_ms": {kind: round(statistics.median(values), 2) for kind, values in times.items()},
        "blob_bytes": round(statistics.mean(blobs)),
        "memory_bytes": memory,
        **figures,
    }


# --- the simulation ---------------------------------------------------------------------------------------------------


Request = tuple[float, float, bool]
"""Time of arrival, service time, and whether it is a question."""


def requests(
    rate: float, count: int, cached: float, measured: dict[str, Any], chance: random.Random
) -> Iterator[Request]:
    """Requests that arrive at random; `cached` is the part of the questions whose answer is cached."""
    now = 0.0
    per_second = rate * (1 + 1 / QUESTIONS_PER_IMAGE)
    for _ in range(count):
        now += chance.expovariate(per_second)
        if chance.random() < 1 / (QUESTIONS_PER_IMAGE + 1):
            yield now, chance.choice(measured["upload_ms"]) / 1000, False
            continue
        kind = "cached_ms" if chance.random() < cached else "question_ms"
        yield now, chance.choice(measured[kind]) / 1000, True


def seconds_per_question(measured: dict[str, Any], instances: int = 1) -> float:
    """Work for a question, with its part of the upload, where so many instances share the load."""
    mean, cached = measured["mean_ms"], REPEATED / instances
    own = cached * mean["cached"] + (1 - cached) * mean["question"]
    return float(own + mean["upload"] / QUESTIONS_PER_IMAGE) / 1000


def one_instance(rate: float, cached: float, measured: dict[str, Any], count: int = 100_000) -> dict[str, float]:
    """Delays of the questions of an instance that receives `rate` of them a second; first come, first served."""
    chance, free_at, delays, refused = random.Random(0), 0.0, [], 0
    for arrival, service, is_question in requests(rate, count, cached, measured, chance):
        begin = max(arrival, free_at)
        if begin + service - arrival > DEADLINE:
            refused += is_question
            continue
        free_at = begin + service
        if is_question:
            delays.append(free_at - arrival)
    return {**quantiles(delays), "refused": round(refused / count, 4)}


def several_instances(rate: float, instances: int, measured: dict[str, Any], count: int = 40_000) -> dict[str, float]:
    """The same where a balancer sends each request to the instance that has the fewest."""
    chance = random.Random(0)
    free_at = [0.0] * instances
    open_requests: list[list[float]] = [[] for _ in range(instances)]  # times at which they end
    delays = []
    for arrival, service, is_question in requests(rate, count, REPEATED / instances, measured, chance):
        for ends in open_requests:
            while ends and ends[0] <= arrival:
                heapq.heappop(ends)
        fewest = min(map(len, open_requests))
        chosen = chance.choice([n for n, ends in enumerate(open_requests) if len(ends) == fewest])
        free_at[chosen] = max(arrival, free_at[chosen]) + service
        heapq.heappush(open_requests[chosen], free_at[chosen])
        if is_question:
            delays.append(free_at[chosen] - arrival)
    return quantiles(delays)


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        name: round(1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))], 1)
        for name, part in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99))
    }


def simulate(measured: dict[str, Any]) -> dict[str, Any]:
    """Delays by load, and what each rate needs."""
    work = seconds_per_question(measured)
    by_load = {str(load): one_instance(load / work, REPEATED, measured) for load in LOADS}
    knee = max(load for load in LOADS if by_load[str(load)]["p99_ms"] <= 1000 * DELAY_LIMIT)
    return {
        "work_per_question_ms": round(1000 * work, 2),
        "questions_per_second_of_an_instance": round(1 / work, 1),
        "delays_by_load": by_load,
        "knee": knee,
        "rates": {str(rate): needs(rate, knee, measured) for rate in RATES},
        "with_an_engine": {str(rate): fronts(rate, knee) for rate in RATES},
    }


def needs(rate: int, load: float, measured: dict[str, Any]) -> dict[str, Any]:
    """Instances for a rate at a load; what they read and write of the store, and their memory."""
    instances = max(1, int(-(-rate * seconds_per_question(measured) // load)))
    instances = max(1, int(-(-rate * seconds_per_question(measured, instances) // load)))
    uploads = rate / QUESTIONS_PER_IMAGE
    met = instances * (1 - (1 - 1 / instances) ** (QUESTIONS_PER_IMAGE + 1))  # instances that a session meets
    return {
        "instances": instances,
        "gib_of_memory": round(instances * measured["memory_bytes"] / (1 << 30), 1),
        "store_writes_per_s": round(uploads, 1),
        "store_reads_per_s": round(uploads * (met - 1), 1),
        "store_mib_per_s": round(uploads * met * measured["blob_bytes"] / (1 << 20), 1),
        "store_gib_for_an_hour": round(3600 * uploads * measured["blob_bytes"] / (1 << 30), 1),
        **several(rate, instances, measured),
    }


def several(rate: float, instances: int, measured: dict[str, Any]) -> dict[str, float]:
    """Delays with that many instances; from 32 on each as if it were alone, which is what random balancing does."""
    if instances > 32:
        return one_instance(rate / instances, REPEATED / instances, measured)
    return several_instances(rate, instances, measured)


def fronts(rate: int, load: float) -> dict[str, Any]:
    """Servers in front of an engine, which only pass on; from the processor time in results/remote_overhead.json."""
    overhead = json.loads((HERE / "results" / "remote_overhead.json").read_text(encoding="utf-8"))
    seconds = overhead["plain"]["32"]["server_cpu_ms"] / 1000
    delay = overhead["plain"]["32"]["delay_ms"] / 1000
    return {
        "instances": max(1, int(-(-rate * seconds // load))),
        "requests_in_flight_at_the_engine": round(rate * delay),
        "delay_of_the_engine_ms": 1000 * delay,
    }


# --- real servers -----------------------------------------------------------------------------------------------------


def check(measured: dict[str, Any], seconds: float) -> dict[str, Any]:
    """One and two servers behind nginx at some loads, and what the simulation says for them."""
    rows = []
    for instances, load in itertools.product((1, 2), (0.3, 0.5, 0.7)):
        rate = instances * load / seconds_per_question(measured, instances)
        with tempfile.TemporaryDirectory() as folder:
            rows.append(
                {
                    "instances": instances,
                    "load": load,
                    "questions_per_s": round(rate, 1),
                    "measured": real(rate, instances, Path(folder), seconds),
                    "simulated": several_instances(rate, instances, measured),
                }
            )
    return {"load_average": round(os.getloadavg()[0], 1), "cores": os.cpu_count(), "rows": rows}


def real(rate: float, instances: int, folder: Path, seconds: float) -> dict[str, Any]:
    """Send requests at random times, whether earlier ones are answered or not; delays of the questions."""
    pictures, texts = sample()
    nginx_folder = folder / "nginx"
    nginx_folder.mkdir()
    with contextlib.ExitStack() as stack:
        servers = [
            Instance(shipped_bundle(), store=str(folder / "store"), log_level="warning", store_bytes=1 << 30)
            for _ in range(instances)
        ]
        for server in servers:
            stack.enter_context(server)
        url = stack.enter_context(proxy.nginx([server.url for server in servers], nginx_folder))
        return asyncio.run(arrivals(url, rate, seconds, pictures, texts))


async def arrivals(url: str, rate: float, seconds: float, pictures: list[bytes], texts: list[str]) -> dict[str, Any]:
    chance, delays, statuses = random.Random(1), [], []
    idle: list[Connection] = []
    pairs = [(n, text) for n in range(len(pictures)) for text in texts]
    chance.shuffle(pairs)
    new_pairs, asked = iter(pairs), []
    ids: dict[int, str] = {}

    async def send(request: bytes) -> tuple[int, bytes]:
        connection = idle.pop() if idle else Connection(url)
        status, _, body = await connection.send(request)
        idle.append(connection)
        return status, body

    for n, picture in enumerate(pictures):
        ids[n] = json.loads((await send(upload(picture)))[1])["image_id"]

    async def one() -> None:
        if chance.random() < 1 / (QUESTIONS_PER_IMAGE + 1):
            await send(upload(chance.choice(pictures)))
            return
        pair = chance.choice(asked) if asked and chance.random() < REPEATED else next(new_pairs)
        asked.append(pair)
        start = time.perf_counter()
        status, _ = await send(question(ids[pair[0]], pair[1]))
        delays.append(time.perf_counter() - start)
        statuses.append(status)

    tasks, begin, at = [], time.perf_counter(), 0.0
    while at < seconds:
        at += chance.expovariate(rate * (1 + 1 / QUESTIONS_PER_IMAGE))
        await asyncio.sleep(max(0.0, begin + at - time.perf_counter()))
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks)
    for connection in idle:
        await connection.close()
    return {**quantiles(delays), "questions": len(delays), "refused": sum(status != 200 for status in statuses)}


if __name__ == "__main__":
    main()

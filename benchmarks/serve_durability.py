"""What a server has acknowledged through kill -9, power failures and damage: uploads, deletions and jobs.

    python benchmarks/serve_durability.py uploads     # 1,000 uploads, killed at random times; then damaged blobs
    python benchmarks/serve_durability.py power       # what a power failure would have left at random moments (strace)
    python benchmarks/serve_durability.py job         # a job of 20,000 questions, killed at random times

Each runs `medical-vqa serve` on a folder in which everything is synced before it is acknowledged. The job is answered
by the shipped model without its guards, which take ten times as long and say nothing about durability.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx2
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "serving"))
import power_loss  # noqa: E402 - a module of the tests
from live import Connection, Instance, png, question, upload  # noqa: E402

from medical_vqa.data.formats.slake_mini import SlakeMini  # noqa: E402
from medical_vqa.pipelines.bundles import shipped_bundle  # noqa: E402

CLIENTS = 4
_UPLOADED = re.compile(r'"\{\\"image_id\\": ?\\"([\w-]+)\\"')  # as strace shows the body of a response
SETTINGS = {"store_ttl": "none", "store_bytes": 1 << 30, "log_level": "warning"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["uploads", "power", "job"])
    parser.add_argument("--count", type=int, help="uploads or questions  [default: 1000, 150, 20000]")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    part, default = {"uploads": (uploads, 1000), "power": (power, 150), "job": (job, 20_000)}[arguments.part]
    with tempfile.TemporaryDirectory() as folder:
        figures = part(Path(folder).resolve(), arguments.count or default, random.Random(arguments.seed))
    text = json.dumps(figures, indent=2) + "\n"
    print(text)
    (HERE / "results" / f"serve_durability_{arguments.part}.json").write_text(text, encoding="utf-8")


# --- uploads, kill -9, damage -----------------------------------------------------------------------------------------


def uploads(folder: Path, count: int, chance: random.Random) -> dict[str, Any]:
    """Upload from several clients and kill the server at random times, until so many are acknowledged; then damage."""
    store, start = folder / "store", time.monotonic()
    acknowledged: dict[str, int] = {}
    kills = []
    numbers = iter(range(100 * count))
    while len(acknowledged) < count:
        before = len(acknowledged)
        server = Instance(shipped_bundle(), store=str(store), **SETTINGS).wait()
        lifetime = chance.uniform(0.2, 4.0)
        asyncio.run(upload_until_killed(server, numbers, acknowledged, lifetime, count))
        server.kill()
        kills.append({"after_s": round(lifetime, 2), "acknowledged": len(acknowledged) - before})
    with Instance(shipped_bundle(), store=str(store), **SETTINGS) as server:
        pictures = asyncio.run(wrong_pictures(server, acknowledged))
        statuses = asyncio.run(ask_each(server, acknowledged))
    damage = {id_: chance.choice(list(DAMAGE)) for id_ in chance.sample(sorted(acknowledged), count // 10)}
    for id_, kind in damage.items():
        damage_file(blob(store, id_), kind, chance)
    with Instance(shipped_bundle(), store=str(store), **SETTINGS) as server:
        after = asyncio.run(ask_each(server, acknowledged))
        undamaged = {id_: n for id_, n in acknowledged.items() if id_ not in damage}
        wrong_after = asyncio.run(wrong_pictures(server, undamaged))
    return {
        "acknowledged": len(acknowledged),
        "kills": len(kills),
        "lost": sum(status != 200 for status in statuses.values()),
        "wrong_pictures": len(pictures),
        "damaged": dict(Counter(damage.values())),
        "statuses_of_damaged": dict(Counter(after[id_] for id_ in damage)),
        "statuses_of_others": dict(Counter(after[id_] for id_ in undamaged)),
        "wrong_pictures_of_others": len(wrong_after),
        "quarantined": len([*store.glob("??/*.damaged")]),
        "partial_files_left": len([*store.glob("??/*.partial")]),
        "seconds": round(time.monotonic() - start),
        "each_kill": kills,
    }


async def upload_until_killed(
    server: Instance, numbers: Iterable[int], acknowledged: dict[str, int], lifetime: float, count: int
) -> None:
    """Upload on several connections until the server dies; `acknowledged` receives ids and numbers of pictures."""

    async def client() -> None:
        async with Connection(server.url) as connection:
            for number in numbers:
                status, _, body = await connection.send(upload(picture(number)))
                assert status == 200, body
                acknowledged[json.loads(body)["image_id"]] = number
                if len(acknowledged) >= count:
                    return

    tasks = [asyncio.create_task(client()) for _ in range(CLIENTS)]
    await asyncio.wait(tasks, timeout=lifetime)
    server.process.kill()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, OSError | asyncio.IncompleteReadError):
            raise result


def picture(number: int) -> bytes:
    """A picture that shows its number by its gray value and size."""
    return png(number % 250, side=16 + number // 250)


def number_in(content: bytes) -> int:
    with Image.open(io.BytesIO(content)) as image:
        return 250 * (image.width - 16) + image.convert("L").getpixel((0, 0))  # type: ignore[operator]


async def wrong_pictures(server: Instance, expected: Mapping[str, int]) -> list[str]:
    """The images that are not there, or show another picture than was uploaded."""
    wrong = []
    async with Connection(server.url) as connection:
        for id_, number in expected.items():
            request = f"GET /images/{id_}/picture HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            status, _, body = await connection.send(request)
            if status != 200 or number_in(body) != number:
                wrong.append(id_)
    return wrong


async def ask_each(server: Instance, ids: Iterable[str]) -> dict[str, int]:
    """The status of a question about each image."""
    async with Connection(server.url) as connection:
        return {id_: (await connection.send(question(id_, "What modality is this?")))[0] for id_ in ids}


def blob(store: Path, image_id: str) -> Path:
    return store / image_id[:2] / f"{image_id}.image"


def damage_file(path: Path, kind: str, chance: random.Random) -> None:
    """Damage a file, again where it is unchanged because the block was of zeros already."""
    before = path.read_bytes()
    while path.read_bytes() == before:
        path.write_bytes(DAMAGE[kind](before, chance))


def flip_a_bit(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def zero_a_block(content: bytes, chance: random.Random) -> bytes:
    begin = chance.randrange(len(content))
    return content[:begin] + bytes(min(512, len(content) - begin)) + content[begin + 512 :]


DAMAGE = {
    "bit flipped": flip_a_bit,
    "truncated": lambda content, chance: content[: chance.randrange(len(content))],
    "block of zeros": zero_a_block,
    "emptied": lambda _content, _chance: b"",
    "block repeated": lambda content, _chance: content[:100] + content,
}


# --- power failures ---------------------------------------------------------------------------------------------------


def power(folder: Path, count: int, chance: random.Random, moments: int = 200) -> dict[str, Any]:
    """Record a server that takes uploads, deletions and a job; examine what power failures would have left."""
    data, contents = folder / "data", folder / "contents"
    for name in ("store", "jobs"):
        (data / name).mkdir(parents=True)
    server = Instance(model_without_guards(folder), store=str(data / "store"), **SETTINGS, jobs=data / "jobs").wait()
    recording, disk = power_loss.Recording(server.process.pid, folder / "calls.txt"), power_loss.Disk(data)
    asyncio.run(use(server, count, data, contents))
    server.kill()
    lines = recording.lines()
    shutil.copytree(data, contents, dirs_exist_ok=True, copy_function=copy_missing)
    events = acknowledgments(lines)
    begin = next(line for line, kind, _ in events if kind == "uploaded")
    chosen = sorted(chance.sample(range(begin, len(lines)), moments))
    counts: Counter[str] = Counter()
    for number, moment in enumerate(disk.replay(lines, chosen)):
        left = folder / f"left{number}"
        disk.leave(left, contents, chance)
        counts.update(examine(left, contents, [event for event in events if event[0] <= moment]))
        if number % (moments // 4) == moments // 8:  # and as a server finds it
            counts.update(start_on(left, folder, [event for event in events if event[0] <= moment]))
        shutil.rmtree(left)
    kinds = Counter(kind for _, kind, _ in events)
    return {"system_calls": len(power_loss.calls(lines)), **kinds, "moments": moments, **dict(sorted(counts.items()))}


async def use(server: Instance, count: int, data: Path, contents: Path) -> None:
    """Uploads from several clients, every fifth deleted again; then a job, of which a part is answered."""
    ids: list[str] = []

    async def client(numbers: Iterable[int]) -> None:
        async with Connection(server.url) as connection:
            for number in numbers:
                status, _, body = await connection.send(upload(picture(number)))
                assert status == 200, body
                image_id = json.loads(body)["image_id"]
                link(blob(data / "store", image_id), data, contents)
                if number % 5 == 0:
                    status, _, _ = await connection.send(
                        f"DELETE /images/{image_id} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
                    )
                    assert status == 204
                else:
                    ids.append(image_id)

    await asyncio.gather(*(client(range(n, count, CLIENTS)) for n in range(CLIENTS)))
    async with httpx2.AsyncClient(base_url=server.url, timeout=120) as http:
        job_id = (await http.post("/jobs", content=job_lines(ids, 10 * count))).json()["id"]
        while (await http.get(f"/jobs/{job_id}")).json()["done"] < 5 * count:
            await asyncio.sleep(0.05)


def copy_missing(source: str, target: str) -> str:
    return target if Path(target).exists() else shutil.copy2(source, target)


def link(path: Path, data: Path, contents: Path) -> None:
    """Keep a file's content beyond its deletion."""
    kept = contents / path.relative_to(data)
    kept.parent.mkdir(parents=True, exist_ok=True)
    os.link(path, kept)


def acknowledgments(lines: list[str]) -> list[tuple[int, str, str]]:
    """Line, kind and id of what the server has acknowledged, and of the deletions that it may have begun."""
    statuses = {204: "deleted", 202: "job accepted"}
    events = [(line, statuses[status], "") for line, status, _ in power_loss.responses(lines) if status in statuses]
    for call in power_loss.calls(lines):
        if call.name == "write" and (uploaded := _UPLOADED.search(call.arguments)) is not None:
            events.append((call.ended, "uploaded", uploaded[1]))
        elif call.name == "unlink" and call.paths()[0].endswith(".image"):
            events.append((call.began, "deletion begun", Path(call.paths()[0]).stem))
    return sorted(events)


def expected(events: list[tuple[int, str, str]]) -> tuple[set[str], set[str]]:
    """Images that must be there, and all that may be deleted."""
    begun = {id_ for _, kind, id_ in events if kind == "deletion begun"}
    return {id_ for _, kind, id_ in events if kind == "uploaded"} - begun, begun


def examine(left: Path, contents: Path, events: list[tuple[int, str, str]]) -> Counter[str]:
    """Compare what is left with what was acknowledged."""
    must, begun = expected(events)
    counts: Counter[str] = Counter(images_expected=len(must))
    counts["lost"] = sum(not blob(left / "store", id_).exists() for id_ in must)
    for path in left.glob("store/??/*.image"):
        counts["damaged"] += path.read_bytes() != (contents / path.relative_to(left)).read_bytes()
    still_there = [id_ for id_ in begun if blob(left / "store", id_).exists()]
    unacknowledged = len(begun) - sum(kind == "deleted" for _, kind, _ in events)
    counts["deleted_and_back"] = max(0, len(still_there) - unacknowledged)
    if any(kind == "job accepted" for _, kind, _ in events):
        (job,) = (contents / "jobs").iterdir()
        for file in (job / "job.json", job / "input.jsonl"):
            copy = left / file.relative_to(contents)
            counts["job_files_lost"] += not copy.exists() or copy.read_bytes() != file.read_bytes()
    return counts


def start_on(left: Path, folder: Path, events: list[tuple[int, str, str]]) -> Counter[str]:
    """Start a server on what is left: every image is answered about, and the job ends complete."""
    must, _ = expected(events)
    jobs = [path.name for path in (left / "jobs").iterdir()] if any(e[1] == "job accepted" for e in events) else []
    model = model_without_guards(folder)
    with Instance(model, store=str(left / "store"), **SETTINGS, jobs=left / "jobs") as server:
        statuses = asyncio.run(ask_each(server, sorted(must)))
        counts = Counter(servers=1, answered=sum(status == 200 for status in statuses.values()))
        counts["unanswered"] = len(must) - counts["answered"]
        for job_id in jobs:
            output = finish(server, job_id)
            ids = [json.loads(line)["id"] for line in output.splitlines()]
            counts["jobs_completed"] += ids == list(range(len(ids))) and b'"error"' not in output
            counts["jobs_incomplete"] += ids != list(range(len(ids))) or b'"error"' in output
    return counts


# --- jobs -------------------------------------------------------------------------------------------------------------


def job(folder: Path, count: int, chance: random.Random) -> dict[str, Any]:
    """A job through kill -9 at random times: the state at each kill, and what the output holds at the end."""
    model, start = model_without_guards(folder), time.monotonic()
    options = {**SETTINGS, "store": str(folder / "store"), "jobs": folder / "jobs", "max_connections": 64}
    with Instance(model, **options) as server:
        ids = asyncio.run(upload_sample(server))
        reply = httpx2.post(f"{server.url}/jobs", content=job_lines(ids, count), timeout=120)
        job_id = reply.json()["id"]
    kills: list[dict[str, float]] = []
    output = folder / "jobs" / job_id / "output.jsonl"
    while True:
        server, lifetime = Instance(model, **options).wait(), chance.uniform(2.0, 20.0)
        until = time.monotonic() + lifetime
        while time.monotonic() < until and (done := lines_of(output)) < count:
            time.sleep(0.05)
        if done >= count:
            break
        server.kill()
        kills.append({"after_s": round(lifetime, 2), "lines": lines_of(output)})
    content = finish(server, job_id)
    server.kill()
    rows = [json.loads(line) for line in content.splitlines()]
    line_ids = [row["id"] for row in rows]
    answers = [row["answer"]["answer"] for row in rows if "answer" in row]
    return {
        "questions": count,
        "kills": len(kills),
        "lines": len(rows),
        "distinct": len(set(line_ids)),
        "in_order": line_ids == list(range(count)),
        "errors": sum("error" in row for row in rows),
        "distinct_answers": len(set(answers)),
        "seconds": round(time.monotonic() - start),
        "each_kill": kills,
    }


def lines_of(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes().count(b"\n")
    return 0


def finish(server: Instance, job_id: str) -> bytes:
    """The output of a job once it is complete."""
    with httpx2.Client(base_url=server.url, timeout=120) as http:
        while http.get(f"/jobs/{job_id}").json()["state"] != "complete":
            time.sleep(0.05)
        return http.get(f"/jobs/{job_id}/output").content


async def upload_sample(server: Instance) -> list[str]:
    """The ids of the shipped sample's pictures."""
    ids = []
    async with Connection(server.url) as connection:
        for path in sorted((SlakeMini().bundled() / "imgs").glob("*/source.jpg")):
            _, _, body = await connection.send(upload(path.read_bytes()))
            ids.append(json.loads(body)["image_id"])
    return ids


def sample_questions() -> list[str]:
    """The different questions of the shipped sample in English."""
    folder = SlakeMini().bundled()
    rows = [row for split in ("train", "validation") for row in json.loads((folder / f"{split}.json").read_bytes())]
    return list(dict.fromkeys(row["question"] for row in rows if row["q_lang"] == "en"))


def job_lines(ids: list[str], count: int) -> bytes:
    """The sample's questions about the images in turn, no pair twice."""
    questions = sample_questions()
    assert count <= len(ids) * len(questions)
    rows = ({"id": n, "image_id": ids[n % len(ids)], "question": questions[n // len(ids)]} for n in range(count))
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def model_without_guards(folder: Path) -> Path:
    """The shipped model as it answers everything."""
    target = folder / "model"
    if not target.exists():
        shutil.copytree(shipped_bundle(), target, ignore=shutil.ignore_patterns("guards.*"))
        card = json.loads((target / "card.json").read_text(encoding="utf-8"))
        card["files"] = {name: digest for name, digest in card["files"].items() if not name.startswith("guards.")}
        card["calibration"] = None  # nothing is abstained from, so that no other questions are tried
        (target / "card.json").write_text(json.dumps(card), encoding="utf-8")
    return target


if __name__ == "__main__":
    main()

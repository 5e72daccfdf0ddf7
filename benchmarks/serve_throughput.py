"""Questions per second over HTTP: a typical small backend and this one; same model, same decoding, same questions.

The typical one keeps uploads in a dictionary and, for every question, decodes and encodes the image and generates one
answer in the event loop, without guards. The other is `medical_vqa.serving` without answer cache, so that every
question is computed; with the shipped model it is what `medical-vqa serve` runs, guards and suggestions included. Both
run in separate processes; 1, 8 and 32 clients each ask, wait, and ask again, eight questions per image. With ``same``
all ask about one image; with ``different`` every client uploads a new one after eight questions, and the time of the
uploads counts.

Every question is asked in words of its own: ``What is shown in this image 17?``, which the shipped model refuses for a
word that it does not know, so that each costs suggestions too. With the shipped model the same is measured with
questions that it understands, those of the shipped sample in turn.

    python benchmarks/serve_throughput.py                                    # CPU: BLIP-2 small, and the shipped model
    python benchmarks/serve_throughput.py --model blip2 --size xl --device cuda
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, File, Form, UploadFile

import published as shared
from medical_vqa.data.formats.slake_mini import SlakeMini
from medical_vqa.data.imaging.preprocessing import prepare_picture
from medical_vqa.data.imaging.raster import open_image
from medical_vqa.models.base import Query
from medical_vqa.pipelines.bundles import load_model, shipped_bundle
from medical_vqa.pipelines.serve import CPU_BATCH_SIZE, GPU_BATCH_SIZE, build_engine
from medical_vqa.runtime.devices import use_all_cores
from medical_vqa.schema.bundle_card import BundleCard, Decoding
from medical_vqa.serving.engine.answers import EngineOptions
from medical_vqa.serving.engine.local import Engine
from medical_vqa.serving.server import run
from medical_vqa.serving.settings import read_settings

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "serving"))
from live import Connection, post, question, upload

from started_server import wait_for_connections

CLIENTS = (1, 8, 32)
PER_IMAGE = 8
SAMPLE = SlakeMini().bundled()
DESIGNS = ("typical", "serving")
QUESTIONS = ("unknown words", "understood")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("blip2", "shipped"), action="append")
    parser.add_argument("--size", choices=shared.SIZES, default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each turn")
    parser.add_argument("--turns", type=int, default=3, help="of each design, one after the other")
    parser.add_argument("--hub", help="folder in which the random checkpoint is kept")
    parser.add_argument("--serve", choices=DESIGNS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.model = arguments.model or ["blip2", "shipped"]
    if arguments.serve:
        serve(arguments)
        return
    for model in arguments.model:
        figures = measure(arguments, model)
        size = f"_{arguments.size}" if model == "blip2" else ""
        shared.write(f"serve_throughput_{arguments.device}_{model}{size}", figures)


# --- the two servers --------------------------------------------------------------------------------------------------


def serve(arguments: argparse.Namespace) -> None:
    use_all_cores()
    model, card = load(arguments)
    if arguments.serve == "typical":
        uvicorn.run(typical(model, card), port=arguments.port, log_level="error", access_log=False)
        return
    batch_size = CPU_BATCH_SIZE if arguments.device == "cpu" else GPU_BATCH_SIZE
    settings = read_settings(
        port=arguments.port, log_level="error", deadline=110.0, drain_timeout=120.0, answer_cache_size=0
    )
    if arguments.model == ["shipped"]:
        run(build_engine(settings), settings)
        return
    engine = Engine(model, card, EngineOptions(batch_size=batch_size, deadline=110.0, answer_cache_size=0))
    run(engine, settings)


def load(arguments: argparse.Namespace) -> tuple[Any, BundleCard]:
    if arguments.model == ["shipped"]:
        return load_model(shipped_bundle(), arguments.device)
    folder, device = Path(arguments.hub), torch.device(arguments.device)
    _, examples = shared.rows(folder / "data", 512, 64)
    model = shared.build(folder, arguments.size, examples, "language", "bf16" if device.type == "cuda" else "fp32")
    model.module.to(device).eval()
    model.vision.to(device)
    return model, BundleCard(family="blip2", name=f"blip2-{arguments.size}", decoding=Decoding(max_tokens=8))


def typical(model: Any, card: BundleCard) -> Any:
    """A typical first version: images in a dictionary, everything else in the request."""
    app, images = FastAPI(), dict[str, bytes]()

    @app.post("/upload_image")
    async def upload_image(image_file: Annotated[UploadFile, File()]) -> dict[str, str]:
        image_id = str(uuid.uuid4())
        images[image_id] = await image_file.read()
        return {"image_id": image_id}

    @app.post("/ask_question")
    async def ask_question(image_id: Annotated[str, Form()], question: Annotated[str, Form()]) -> dict[str, str]:
        picture = prepare_picture(open_image(images[image_id], "upload"), model.picture)
        (prediction,) = model.answer([Query("q", question, image_id, picture)], card.decoding)
        return {"question": question, "answer": prediction.answer}

    return app


# --- the clients ------------------------------------------------------------------------------------------------------


def measure(arguments: argparse.Namespace, model: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        hub = arguments.hub or place
        shared.rows(Path(hub) / "data", 512, 64)
        if model == "blip2":
            load(argparse.Namespace(**{**vars(arguments), "hub": hub, "model": ["blip2"]}))  # written once, read twice
        urls = {design: stack.enter_context(started(arguments, model, design, hub)) for design in DESIGNS}
        cells = [
            cell(arguments, urls, questions, images, clients)
            for questions in (QUESTIONS if model == "shipped" else QUESTIONS[:1])
            for images in ("same", "different")
            for clients in CLIENTS
        ]
    return {
        "machine": shared.machine(torch.device(arguments.device)),
        "model": model if model == "shipped" else f"blip2 {arguments.size}",
        "questions_per_image": PER_IMAGE,
        "seconds_per_turn": arguments.seconds,
        "turns": arguments.turns,
        "load_average": round(os.getloadavg()[0], 1),
        "cells": cells,
    }


@contextlib.contextmanager
def started(arguments: argparse.Namespace, model: str, design: str, hub: str) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, __file__, "--serve", design, "--model", model, "--size", arguments.size, "--hub", hub]
    environ = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}  # as the command line sets it: see `runtime.wait_passively`
    process = subprocess.Popen([*command, "--device", arguments.device, "--port", str(port)], env=environ)
    try:
        wait_for_connections(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def cell(
    arguments: argparse.Namespace, urls: dict[str, str], questions: str, images: str, clients: int
) -> dict[str, Any]:
    """One number of clients, both designs in turn."""
    latencies_by_design: dict[str, list[float]] = {design: [] for design in DESIGNS}
    seconds = dict.fromkeys(DESIGNS, 0.0)
    for design in DESIGNS * arguments.turns:
        latencies, took = asyncio.run(turn(urls[design], design, questions, images, clients, arguments.seconds))
        latencies_by_design[design] += latencies
        seconds[design] += took
    summaries = {design: summary(latencies_by_design[design], seconds[design]) for design in DESIGNS}
    figures = {
        "questions": questions, "images": images, "clients": clients, **summaries,
        "throughput_ratio": round(summaries["serving"]["per_second"] / summaries["typical"]["per_second"], 2),
        "p50_ratio": round(summaries["typical"]["p50_ms"] / summaries["serving"]["p50_ms"], 2),
    }  # fmt: skip
    print(json.dumps(figures), flush=True)
    return figures


def summary(latencies: list[float], seconds: float) -> dict[str, float]:
    p50, p95, p99 = (round(1000 * float(np.percentile(latencies, q)), 2) for q in (50, 95, 99))
    return {"questions": len(latencies), "per_second": round(len(latencies) / seconds, 2),
            "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}  # fmt: skip


async def turn(
    url: str, design: str, questions: str, images: str, clients: int, seconds: float
) -> tuple[list[float], float]:
    """Let the clients ask for some seconds; the latencies of their questions, and the seconds until the last answer."""
    pictures, words = itertools.cycle(_pictures()), texts(questions)
    shared_id = await new_image(url, next(pictures)) if images == "same" else None
    latencies: list[float] = []
    began = time.perf_counter()

    async def client() -> None:
        async with Connection(url) as connection:
            while time.perf_counter() - began < seconds:
                id_ = shared_id or await new_image(url, next(pictures), connection)
                for _ in range(PER_IMAGE):
                    if time.perf_counter() - began >= seconds:
                        return
                    latencies.append(await ask(connection, design, id_, next(words)))

    await asyncio.gather(*(client() for _ in range(clients)))
    return latencies, time.perf_counter() - began


async def new_image(url: str, data: bytes, connection: Connection | None = None) -> str:
    if connection is None:
        async with Connection(url) as own:
            return await new_image(url, data, own)
    status, _, body = await connection.send(upload(data))
    assert status == 200, body
    return str(json.loads(body)["image_id"])


async def ask(connection: Connection, design: str, id_: str, words: str) -> float:
    request = question(id_, words) if design == "serving" else _form(id_, words)
    began = time.perf_counter()
    status, _, body = await connection.send(request)
    assert status == 200, body
    return time.perf_counter() - began


def texts(questions: str) -> Iterator[str]:
    """Questions without end: each with a number of its own, or those of the shipped sample in turn."""
    if questions == "unknown words":
        return (f"What is shown in this image {number}?" for number in itertools.count(time.time_ns() % 10**9))
    rows = [row for name in ("train", "validation") for row in json.loads((SAMPLE / f"{name}.json").read_text("utf-8"))]
    return itertools.cycle(list(dict.fromkeys(row["question"] for row in rows)))


def _form(id_: str, words: str) -> bytes:
    return post(
        "/ask_question", urlencode({"image_id": id_, "question": words}).encode(), "application/x-www-form-urlencoded"
    )


def _pictures() -> list[bytes]:
    return [path.read_bytes() for path in sorted((SAMPLE / "imgs").glob("*/source.jpg"))[:64]]


if __name__ == "__main__":
    main()

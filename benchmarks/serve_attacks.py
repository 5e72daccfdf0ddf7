"""Cheap attacks on a running server: what each costs it, with `/healthz` probed from another process meanwhile.

Every attack meets a fresh `medical-vqa serve` with the shipped model. On Linux with a writable memory controller, and
root, the server and its decoders run in a control group of their own, whose limit is that of the Kubernetes and Cloud
Run files; its high-water mark is the peak. Attackers and the polite client have different addresses.

    python benchmarks/serve_attacks.py --limit-mib 1024 --out benchmarks/results/serve_attacks.json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

MEBIBYTE = 1 << 20
CONTROLLER = Path("/sys/fs/cgroup/memory")
PATIENCE = 90.0  # seconds after which an attack's connection is given up
LATE = 5.0  # seconds after an attack at which memory is measured again


# --- the attacks: each returns a note of what its client received -----------------------------------------------------


async def chat_parts(port: int) -> str:
    content = b"[" + b",".join([b"{}"] * 500_000) + b"]"
    return await post(
        port, "/v1/chat/completions", b'{"model":"x","messages":[{"role":"user","content":%b}]}' % content
    )


async def unknown_keys(port: int, count: int = 500_000) -> str:
    return await post(port, "/ask_question", b"{" + b",".join(b'"%d":1' % n for n in range(count)) + b"}")


async def more_unknown_keys(port: int) -> str:
    return await unknown_keys(port, 2_500_000)


async def many_questions(port: int) -> str:
    return await post(
        port, "/ask_questions", b'{"image_id":"x","questions":[' + b",".join([b'""'] * 10_000_000) + b"]}"
    )


async def nested_lists(port: int) -> str:
    return await post(port, "/v1/chat/completions", b"[" * 1_000_000)


async def endless_header(port: int) -> str:
    reader, writer = await connect(port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ")
    sent, block = 0, b"a" * MEBIBYTE
    with contextlib.suppress(OSError):
        while sent < 200 * MEBIBYTE and not reader.at_eof():
            writer.write(block)
            await writer.drain()
            sent += len(block)
            await asyncio.sleep(0)
    note = f"{sent // MEBIBYTE} MiB accepted"
    writer.close()
    return note


async def endless_part_header(port: int) -> str:
    body = b'--b\r\nContent-Disposition: form-data; name="' + b"a" * (30 * MEBIBYTE)
    return await post(port, "/upload_image", body, "multipart/form-data; boundary=b")


async def half_bodies(port: int) -> str:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n"
    connections = [await connect(port) for _ in range(30)]

    async def send_half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        try:
            async with asyncio.timeout(15):
                with contextlib.suppress(OSError):
                    writer.write(head + b'"')
                    for _ in range(15):
                        writer.write(b"a" * MEBIBYTE)
                        await writer.drain()
                return (await reader.read(15)).decode()[9:12] or "closed"
        except OSError:
            return "reset"
        except TimeoutError:
            return "held"

    notes = await asyncio.gather(*(send_half(*connection) for connection in connections))
    for _, writer in connections:
        writer.transport.abort()
    return counted(notes)


async def long_content_length(port: int) -> str:
    head = b"POST /ask_question HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
    statuses = []
    for digits in (b"9" * 5_000, b"0" * 5_000):
        reader, writer = await connect(port)
        writer.write(head + digits + b"\r\n\r\n")
        statuses.append((await reader.read(15)).decode()[9:12] or "closed")
        writer.close()
    return counted(statuses)


async def large_pictures(port: int, side: int = 8000) -> str:
    """Two attackers, two uploads each at a time, for 20 seconds; a polite client asks about small pictures."""
    out = io.BytesIO()
    ramp = np.arange(side, dtype=np.uint16)
    Image.fromarray(ramp[:, None] + ramp[None, :]).save(out, "PNG")
    large, small = multipart(out.getvalue()), multipart(tiny_png(), question="Is it a CT?")
    until = time.monotonic() + 20
    statuses: list[str] = []
    latencies: list[float] = []
    polite: list[str] = []

    async def attack(source: str) -> None:
        while time.monotonic() < until:
            statuses.append(await post(port, "/upload_image", large, FORM, source))

    async def ask() -> None:
        while time.monotonic() < until:
            start = time.monotonic()
            polite.append(await post(port, "/ask", small, FORM, "127.0.0.9"))
            latencies.append(time.monotonic() - start)
            await asyncio.sleep(0.1)

    await asyncio.gather(*(attack(f"127.0.0.{2 + n % 2}") for n in range(4)), ask())
    return f"{counted(statuses)}; polite {counted(polite)}, slowest {max(latencies):.2f} s of {len(latencies)}"


async def largest_pictures(port: int) -> str:
    """The same with the largest pictures that the server accepts."""
    reader, writer = await connect(port)
    writer.write(b"GET /model HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    _, _, body = (await reader.read()).partition(b"\r\n\r\n")
    return await large_pictures(port, int(json.loads(body)["limits"]["max_pixels"] ** 0.5))


ATTACKS: tuple[Callable[[int], Awaitable[str]], ...] = (
    chat_parts, unknown_keys, more_unknown_keys, many_questions, nested_lists, endless_header, endless_part_header,
    half_bodies, long_content_length, large_pictures, largest_pictures,
)  # fmt: skip


# --- their tools ------------------------------------------------------------------------------------------------------

FORM = "multipart/form-data; boundary=b"


async def connect(port: int, source: str = "127.0.0.2") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))


async def post(port: int, path: str, body: bytes, kind: str = "application/json", source: str = "127.0.0.2") -> str:
    """The status of a response, or what happened instead."""
    reader, writer = await connect(port, source)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    with contextlib.suppress(OSError):
        writer.write(head.encode() + body)
    try:
        async with asyncio.timeout(PATIENCE):
            status = (await reader.read(15)).decode()[9:12] or "closed"
    except TimeoutError:
        status = "no answer"
    except OSError:
        status = "reset"
    writer.transport.abort()
    return status


def multipart(data: bytes, **fields: str) -> bytes:
    parts = [f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()]
    head = b'--b\r\nContent-Disposition: form-data; name="image_file"; filename="x"\r\n\r\n'
    return b"".join(parts) + head + data + b"\r\n--b--\r\n"


def tiny_png() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((64, 64), 100, np.uint8)).save(out, "PNG")
    return out.getvalue()


def counted(notes: list[str]) -> str:
    return ", ".join(f"{count}x {note}" for note, count in sorted(Counter(notes).items()))


# --- the server and the probe -----------------------------------------------------------------------------------------


def probe(port: int) -> None:
    """Ask for /healthz every 20 ms until standard input closes; print the slowest and the failures."""
    import select  # noqa: PLC0415

    slowest, failures, probes = 0.0, 0, 0
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        start = time.perf_counter()
        try:
            with socket.create_connection(("127.0.0.1", port), 60) as connection:
                connection.settimeout(60)
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                failures += not connection.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            failures += 1
        slowest = max(slowest, time.perf_counter() - start)
        probes += 1
    print(json.dumps({"healthz_slowest_ms": round(1000 * slowest), "healthz_failures": failures, "probes": probes}))


class Memory:
    """The memory of the server and its decoders: a control group where this process may make one, else sampled."""

    def __init__(self, limit_mib: int) -> None:
        self.group: Path | None = None
        if CONTROLLER.is_dir() and os.access(CONTROLLER, os.W_OK):
            self.group = CONTROLLER / f"serve-attacks-{os.getpid()}"
            self.group.mkdir(exist_ok=True)
            if limit_mib:
                (self.group / "memory.limit_in_bytes").write_text(str(limit_mib * MEBIBYTE))
        self.pid = 0

    def enter(self) -> None:
        """In the server's process, before it starts."""
        if self.group is not None:
            (self.group / "cgroup.procs").write_text(str(os.getpid()))

    def peak_mib(self) -> int | None:
        return int((self.group / "memory.max_usage_in_bytes").read_text()) // MEBIBYTE if self.group else None

    def resident_mib(self) -> int:
        try:
            processes = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
            return sum(process.memory_info().rss for process in processes) // MEBIBYTE
        except psutil.NoSuchProcess:
            return 0

    def killed(self) -> int:
        """How many processes the kernel ended for want of memory."""
        text = (self.group / "memory.oom_control").read_text() if self.group else ""
        return int(next((line.split()[1] for line in text.splitlines() if line.startswith("oom_kill ")), "0"))

    def remove(self) -> None:
        if self.group is not None:
            with contextlib.suppress(OSError):
                self.group.rmdir()


@contextlib.contextmanager
def server(memory: Memory, limit_mib: int) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = {**os.environ, "PORT": str(port)}
    if limit_mib:  # as a container would report it
        environ["MEDICAL_VQA_MEMORY_BYTES"] = str(limit_mib * MEBIBYTE)
    process = subprocess.Popen(
        [sys.executable, "-m", "medical_vqa", "serve"],
        env=environ,
        stderr=subprocess.DEVNULL,
        preexec_fn=memory.enter,  # noqa: PLW1509 - no thread runs yet
    )
    memory.pid = process.pid
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        asyncio.run(post(port, "/ask", multipart(tiny_png(), question="Is it a CT?"), FORM))  # the decoder has started
        yield port, process
    finally:
        process.kill()
        process.wait()
        time.sleep(0.5)
        memory.remove()


def measure(attack: Callable[[int], Awaitable[str]], limit_mib: int) -> dict[str, Any]:
    memory = Memory(limit_mib)
    with server(memory, limit_mib) as (port, process):
        before = memory.resident_mib()
        command = [sys.executable, __file__, "--probe", str(port)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as prober:
            time.sleep(0.5)
            start = time.monotonic()
            try:
                note = asyncio.run(attack(port))
            except OSError as error:
                note = f"connection lost ({type(error).__name__})"
            seconds = time.monotonic() - start
            time.sleep(LATE)
            out, _ = prober.communicate(b"x")
        return {
            "attack": attack.__name__,
            "received": note,
            "seconds": round(seconds, 1),
            **json.loads(out),
            "rest_mib": before,
            "peak_mib": memory.peak_mib(),
            "mib_after_5_s": memory.resident_mib(),
            "killed_for_memory": memory.killed(),
            "alive": process.poll() is None,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit-mib", type=int, default=1024, help="0: no limit")
    parser.add_argument("--only", action="append", choices=[attack.__name__ for attack in ATTACKS])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--probe", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.probe:
        probe(arguments.probe)
        return
    rows = []
    for attack in ATTACKS:
        if not arguments.only or attack.__name__ in arguments.only:
            rows.append(measure(attack, arguments.limit_mib))
            print(json.dumps(rows[-1]), flush=True)
    result = {
        "limit_mib": arguments.limit_mib,
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "attacks": rows,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

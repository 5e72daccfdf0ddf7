"""Servers on a real socket: one in this process with any model, or `medical-vqa serve` in a separate process.

Also a client with little overhead, so that load tests measure the server: one keep-alive connection, HTTP/1.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "support"))  # for benchmarks, which run without pytest's settings
from ports import free_port

from medical_vqa.serving.api.app import create_app
from medical_vqa.serving.engine.local import Engine
from medical_vqa.serving.image_store.base import ImageStore
from medical_vqa.serving.server import Server, uvicorn_config
from medical_vqa.serving.settings import Settings, read_settings

SOURCE = Path(__file__).parents[2] / "src"
PATIENCE = 60.0
"""Longest time in seconds that a test waits for an event, on a machine that stalls."""
request = functools.partial(httpx2.request, timeout=PATIENCE)
client_of = functools.partial(httpx2.Client, timeout=PATIENCE)


def png(gray: int = 100, side: int = 16) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((side, side), gray, np.uint8)).save(out, "PNG")
    return out.getvalue()


def run_until_stopped(_settings: Any, _listener: socket.socket, ready: Callable[[], None]) -> None:
    """The work of a worker that does nothing."""
    ready()
    signal.pause()


def settings(**options: Any) -> Settings:
    return read_settings(
        {}, **{"decoder_processes": 0, "port": 0, "deadline": PATIENCE, "drain_timeout": 2 * PATIENCE, **options}
    )


@contextlib.contextmanager
def serving(
    engine: Engine, with_settings: Settings | None = None, store: ImageStore | None = None, *, port: int = 0
) -> Iterator[str]:
    """A server in a thread, on any free port unless one is named; yields its URL."""
    with_settings = with_settings or settings()
    app = create_app(engine, with_settings, store)
    listening = socket.create_server(("127.0.0.1", port))
    server = Server(uvicorn_config(app, with_settings))
    server.drain_notice = 0.0
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]  # no signals in a thread
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(3 * PATIENCE)
        listening.close()


class Instance:
    """`medical-vqa serve` in a separate process, or another command that serves, such as ``app``."""

    def __init__(
        self,
        model: Path,
        *,
        store: str = "memory://",
        command: str = "serve",
        options: Sequence[str] = (),
        **environ: Any,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        words = [sys.executable, "-m", "medical_vqa", command, "--model", str(model), "--port", str(self.port)]
        named = {f"MEDICAL_VQA_{name.upper()}": str(value) for name, value in environ.items()}
        self.errors = (Path(os.environ.get("TMPDIR", "/tmp")) / f"serve-{self.port}.log").open("w+")
        self.process = subprocess.Popen(
            [*words, "--store", store, *options],
            env={
                **os.environ,
                "PYTHONPATH": str(SOURCE),
                "OMP_NUM_THREADS": "1",
                "MEDICAL_VQA_DECODER_PROCESSES": "1",
                "MEDICAL_VQA_DEADLINE": str(PATIENCE),
                "MEDICAL_VQA_DRAIN_TIMEOUT": str(2 * PATIENCE),
                **named,
            },
            stderr=self.errors,
        )

    def wait(self, seconds: float = 5 * PATIENCE) -> Instance:
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            time.sleep(0.05)
        logs = self.logs()
        self.stop(signal.SIGKILL)
        raise AssertionError(logs)

    def logs(self) -> str:
        self.errors.flush()
        return Path(self.errors.name).read_text()

    def memory(self) -> int:
        """Resident bytes of the process and its decoders."""
        import psutil

        own = psutil.Process(self.process.pid)
        return sum(p.memory_info().rss for p in [own, *own.children(recursive=True)])

    def kill(self) -> None:
        """End the process at once, and wait until it and its decoders are gone."""
        self.stop(signal.SIGKILL)

    def stop(self, how: int = signal.SIGTERM, seconds: float = 3 * PATIENCE) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        code = self.process.wait(seconds)
        self.errors.close()
        Path(self.errors.name).unlink(missing_ok=True)
        return code

    def __enter__(self) -> Instance:
        return self.wait()

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.stop()
            return
        self.process.kill()


class Connection:
    """One keep-alive connection; answers are (status, headers, body)."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self.host, self.port = host, int(port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self.host, self.port)
        self.write(request)
        await self._streams[1].drain()
        return await self.read()

    def write(self, request: bytes) -> None:
        """Send on an open connection, without waiting."""
        assert self._streams is not None
        self._streams[1].write(request)

    async def read(self) -> tuple[int, dict[str, str], bytes]:
        assert self._streams is not None
        reader = self._streams[0]
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection") == "close":
            await self.close()
        return int(head[0].split()[1]), headers, body

    async def close(self) -> None:
        if self._streams is not None:
            await hang_up(self._streams[1])
            self._streams = None

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def post(path: str, body: bytes, kind: str, extra: Mapping[str, str] | None = None) -> bytes:
    more = "".join(f"{name}: {value}\r\n" for name, value in (extra or {}).items())
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def question(image_id: str, words: str) -> bytes:
    return post("/ask_question", json.dumps({"image_id": image_id, "question": words}).encode(), "application/json")


def upload(data: bytes, name: str = "x", path: str = "/upload_image", **fields: str) -> bytes:
    parts = [f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()]
    head = f'--b\r\nContent-Disposition: form-data; name="image_file"; filename="{name}"\r\n'
    file = f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + data
    return post(path, b"".join(parts) + file + b"\r\n--b--\r\n", "multipart/form-data; boundary=b")

"""A Redis and an S3 on the loopback, stopped at the end of the `with` block."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from live import PATIENCE
from ports import free_port


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 5 * PATIENCE
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE):
            return
        assert process.poll() is None
        time.sleep(0.05)
    raise AssertionError("the server does not listen")


@contextlib.contextmanager
def redis_url() -> Iterator[str]:
    if shutil.which("redis-server") is None:
        pytest.fail("redis-server is missing; apt-get install redis-server (.ci/run does)")
    port = free_port()
    process = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait(port, process)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(PATIENCE)


@contextlib.contextmanager
def bucket() -> Iterator[str]:
    """An ``s3://`` URL; the environment has the server's address, as in a deployment."""
    import s3fs

    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    named = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in named}
    os.environ.update(named)
    try:
        _wait(port, process)
        name = f"uploads-{secrets.token_hex(4)}"
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir(name)
        yield f"s3://{name}/vqa"
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.__setitem__(key, value)
        process.terminate()
        process.wait(PATIENCE)

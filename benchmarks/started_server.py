"""A server in a process of its own, for benchmarks that ask it over HTTP."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping


def wait_for_connections(process: subprocess.Popen[bytes], port: int) -> None:
    """Return once a server on a port of this machine takes connections, or has ended."""
    while process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            break
        time.sleep(0.1)


@contextlib.contextmanager
def started_server(port: int, environment: Mapping[str, str]) -> Iterator[str]:
    """`medical-vqa serve` on a port of this machine, once it takes connections; gives its address."""
    command = [sys.executable, "-m", "medical_vqa", "serve"]
    with subprocess.Popen(command, env=dict(environment), stderr=subprocess.DEVNULL) as process:
        try:
            wait_for_connections(process, port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()

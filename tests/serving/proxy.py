"""The nginx of `deploy/nginx.conf` in front of servers of this machine."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from live import PATIENCE
from ports import free_port

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nginx.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


@contextlib.contextmanager
def nginx(servers: Sequence[str], folder: Path) -> Iterator[str]:
    """Run nginx as configured, with other ports and these servers; yields its address.

    Args:
        servers: Their addresses.
        folder: For its files.
    """
    assert NGINX is not None
    port = free_port()
    text = CONFIGURATION.read_text(encoding="utf-8").replace("listen 8080;", f"listen 127.0.0.1:{port};")
    line = re.findall(r" +server [\d.:]+ (max_fails.*;)\n", text)[0]
    lines = "".join(f"server {address.removeprefix('http://')} {line}\n" for address in servers)
    text, count = re.subn(r"(?: +server [\d.:]+ max_fails.*\n)+", lines, text)
    assert count == 1
    paths = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{name}_temp_path {folder}/{name};\n" for name in paths)
    text = text.replace("access_log off;", f"access_log off;\n{temporary}")
    if os.geteuid() == 0:  # else its workers are another user, who may not enter the folder
        text = f"user root;\n{text}"
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    process = subprocess.Popen(
        [
            NGINX,
            "-p",
            str(folder),
            "-c",
            str(folder / "nginx.conf"),
            "-e",
            str(folder / "error.log"),
            "-g",
            "daemon off;",
        ],
        stderr=subprocess.PIPE,
    )
    try:
        until = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE):
                break
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate()

"""`transformers serve` as a process: a real engine, with a tiny random model in its published layout."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

from ports import free_port

STARTED = "Uvicorn running on"


class Engine:
    """`transformers serve` on this machine with one tiny random model, as a process that can be killed."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.log = folder, log
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.reader: threading.Thread | None = None

    @property
    def model(self) -> str:
        return str(self.folder)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Start it and wait until it says that it listens."""
        program = Path(sys.executable).with_name("transformers")
        cache = self.folder.parent / "hub"
        cache.mkdir(exist_ok=True)
        environ = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
        command = [program, "serve", self.model, "--device", "cpu", "--host", "127.0.0.1", "--port", str(self.port)]
        self.process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        listens = threading.Event()
        self.reader = threading.Thread(target=self._read, args=(self.process, listens))
        self.reader.start()
        listens.wait()
        assert self.process.poll() is None, self.log.read_text()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health") as reply:
            assert reply.status == 200

    def _read(self, process: subprocess.Popen[bytes], listens: threading.Event) -> None:
        assert process.stdout is not None
        with process.stdout, self.log.open("ab", buffering=0) as log:
            for line in process.stdout:
                log.write(line)
                if STARTED.encode() in line:
                    listens.set()
        listens.set()  # it has ended

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        assert self.reader is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.reader.join()
        self.process = None

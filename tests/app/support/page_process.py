"""The page as a separate process, started by its command line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx2
from ports import free_port


class PageProcess:
    """``medical-vqa app --streamlit`` with these options, on a free port."""

    def __init__(self, options: list[str], folder: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        command = [
            sys.executable,
            "-m",
            "medical_vqa",
            "app",
            "--streamlit",
            *options,
            "--port",
            self.url.rpartition(":")[2],
        ]
        self._log = (folder / "log").open("w")
        environ = {  # a backend that it starts waits as long as the tests do
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "MEDICAL_VQA_DEADLINE": "60",
            "MEDICAL_VQA_DRAIN_TIMEOUT": "61",
        }
        self.process = subprocess.Popen(command, cwd=folder, stdout=self._log, stderr=self._log, env=environ)

    def __enter__(self) -> str:
        until = time.monotonic() + 300
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if httpx2.get(f"{self.url}/_stcore/health").is_success:
                    return self.url
            except httpx2.HTTPError:
                time.sleep(0.1)
        raise TimeoutError(Path(self._log.name).read_text())

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(120)
        self._log.close()

"""Fixtures of the tests of remote models: a fake endpoint, and a real engine with tiny random models."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medical_vqa.models.remote.endpoint import Endpoint
from medical_vqa.models.remote.model import RemoteModel
from medical_vqa.schema.bundle_card import Decoding

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))

from fake_endpoint import FakeEndpoint, questions

STARTED = "Uvicorn running on"


@pytest.fixture
def fake() -> Iterator[FakeEndpoint]:
    endpoint = FakeEndpoint()
    yield endpoint
    endpoint.close()


@pytest.fixture
def connect(fake: FakeEndpoint) -> Iterator[Any]:
    models: list[RemoteModel] = []

    def create(
        *, concurrency: int = 4, tries: int = 3, probe: bool = False, api_key: str = "k", **settings: Any
    ) -> Any:
        settings = {"base_url": fake.url, **settings}
        endpoint = Endpoint("m", tries=tries, **settings)
        model = RemoteModel(endpoint, api_key=api_key, concurrency=concurrency, probe=probe)
        models.append(model)
        return model

    yield create
    for model in models:
        model.close()


@pytest.fixture
def ask(connect: Any) -> Any:
    def run(*, n: int = 1, text: str = "Is it {}?", **settings: Any) -> Any:
        model = connect(**settings)
        return model, model.answer(questions(n, text), Decoding())

    return run


class Engine:
    """`transformers serve` on this machine with one tiny random model, as a process that can be killed."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.log = folder, log
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
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


def _engine(kind: str, folder: Path) -> Iterator[Engine]:
    import tiny_hub

    engine = Engine(tiny_hub.chat(folder / kind, kind), folder / "log")
    engine.start()
    yield engine
    if engine.process is not None:
        engine.kill()


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A real engine with a tiny LLaVA-1.5."""
    yield from _engine("llava", tmp_path_factory.mktemp("llava-engine"))


@pytest.fixture(scope="session")
def gemma3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A real engine with a tiny Gemma 3, the architecture of MedGemma."""
    yield from _engine("gemma3", tmp_path_factory.mktemp("gemma3-engine"))

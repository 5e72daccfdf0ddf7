"""What every test may use: the shipped sample, prepared once, and a compact model small enough to train in seconds."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from forks import FAMILIES, ForkServer
from PIL import Image
from tiny_model import TINY_MODEL, Silent

from medical_vqa import cli
from medical_vqa.config import Recipe, parse_recipe
from medical_vqa.pipelines.load import load
from medical_vqa.pipelines.predict import predict
from medical_vqa.pipelines.prepare import prepare_dataset
from medical_vqa.pipelines.train import train

# No clock decides a test: on a busy machine drawing an example takes long now and then.
hypothesis.settings.register_profile("no clock", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("no clock")


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A home of the tests' own, so that nothing of the user's is read or written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDICAL_VQA_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def _logging() -> Any:
    """The logging of the process as it was: a server within a test leaves handlers to a closed stream."""
    log = logging.getLogger()
    handlers, level = list(log.handlers), log.level
    yield
    log.handlers = handlers
    log.setLevel(level)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root under which the shipped sample is prepared."""
    folder = tmp_path_factory.mktemp("root")
    prepare_dataset("slake-mini", source=None, root=folder)
    return folder


@pytest.fixture
def tiny(root: Path) -> Any:
    """Makes recipes that train a tiny compact model on the sample; keywords change the training section."""

    def make(*, name: str = "tiny", model: dict[str, Any] | None = None, **training: Any) -> Recipe:
        settings = {"epochs": 2, "batch_size": 128, "device": "cpu", "precision": "fp32", **training}
        data = {"name": "slake-mini", "root": str(root)}
        content = {"name": name, "data": data, "model": TINY_MODEL | (model or {}), "training": settings}
        return parse_recipe(content, origin="test")

    return make


@pytest.fixture
def watcher() -> Silent:
    return Silent()


@pytest.fixture(scope="session")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny model, with predictions on validation."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    content = {
        "name": "tiny",
        "data": {"name": "slake-mini", "root": str(root)},
        "model": TINY_MODEL,
        "training": {"epochs": 3, "batch_size": 64, "learning_rate": 3e-3, "device": "cpu"},
    }
    train(parse_recipe(content, origin="test"), folder, watcher=Silent())
    predict(load(folder, device="cpu"), split="validation")
    return folder


@pytest.fixture(scope="session")
def forks() -> Any:
    """Runs commands that need torch and transformers in processes that have them imported."""
    server = ForkServer(FAMILIES)
    yield server
    server.close()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A small grayscale picture file."""
    path = tmp_path / "picture.png"
    Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)).save(path)
    return path


@pytest.fixture
def call(monkeypatch: Any, capsys: Any, tmp_path: Path) -> Any:
    """Runs a command line in an empty folder; gives its exit status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run_it(*words: Any) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["medical-vqa", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
            raise SystemExit(0)
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return run_it


@pytest.fixture
def refused(call: Any) -> Any:
    """Runs a command line that must be refused: exit 2, one sentence on stderr, nothing on stdout."""

    def run_it(*words: Any) -> str:
        code, out, err = call(*words)
        assert code == 2, err
        assert out == ""
        assert err.startswith("medical-vqa: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        return err

    return run_it

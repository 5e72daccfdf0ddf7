"""Another package's dataset, models, metric, protocol and image store, as docs/how-to/extend.md shows them, at work.

The package is written from the page, built and installed into a folder of its own, and the page's commands are run.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ports import free_port

from medical_vqa import extension

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "extend.md"
SOURCE = Path(__file__).parents[1] / "src"
FILES = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', PAGE.read_text(encoding="utf-8"), re.M | re.S))
COMMANDS = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)[0].splitlines()
PATIENCE = 300.0
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's files, and the package installed into ``installed``."""
    folder = tmp_path_factory.mktemp("scan-tools")
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-build-isolation"]
    command = [*install, "--no-deps", "--no-index", "--target", str(folder / "installed"), "."]
    subprocess.run(command, cwd=folder, check=True, timeout=900)
    return folder


def environment(site: Path) -> dict[str, str]:
    path = os.pathsep.join([str(site / "installed"), str(SOURCE)])
    return {**os.environ, "PYTHONPATH": path, "MEDICAL_VQA_HOME": str(site / "home"), "OMP_NUM_THREADS": "1"}


def run(site: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run one of the page's commands where the package is installed."""
    program, *words = shlex.split(command)
    prefix = {"medical-vqa": ["-m", "medical_vqa"], "python": []}[program]
    return subprocess.run(
        [sys.executable, *prefix, *words],
        cwd=site, env=environment(site), capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def outputs(site: Path) -> dict[str, str]:
    """What each of the page's commands printed, those that install and serve left out."""
    outputs = {}
    for command in COMMANDS:
        if command.startswith(("medical-vqa", "python")) and " serve " not in command:
            done = run(site, command)
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            outputs[command] = done.stdout
    return outputs


def test_the_page_shows_one_of_each_in_about_forty_lines():
    assert {Path(name).stem for name in FILES} >= {"dataset", "model", "counted", "metric", "protocol", "store"}
    lengths = {name: sum(map(bool, content.splitlines())) for name, content in FILES.items()}
    assert max(lengths.values()) <= 60
    assert COMMANDS[0] == "pip install ."


def test_every_name_of_the_extension_module_exists():
    assert all(getattr(extension, name) for name in extension.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        extension.no_such_name  # noqa: B018


def test_its_dataset_is_prepared(site, outputs):
    manifest = json.loads((site / "home" / "data" / "scans" / "manifest.json").read_text())
    assert manifest["title"] == "Scans of the example hospital"
    assert {name: split["rows"] for name, split in manifest["splits"].items()} == {"train": 40, "test": 20}


def test_its_model_learns_by_a_recipe(site, outputs):
    card = json.loads((site / "runs" / "scans" / "bundle" / "card.json").read_text())
    assert card["family"] == "patches"
    results = json.loads((site / "runs" / "scans" / "results-test.json").read_text())
    assert {one["name"]: one["score"]["value"] for one in results["metrics"]}["em"] == 1.0


def test_its_counted_model_is_trained_and_answers_without_torch(site, outputs):
    assert json.loads((site / "runs" / "counted" / "bundle" / "counts.json").read_text())["words"] == 2
    lines = (site / "runs" / "counted" / "predictions-test.jsonl").read_text().splitlines()
    answers = [json.loads(line)["answer"] for line in lines]
    assert answers[1::2] == ["a scan"] * 10
    assert set(answers[::2]) < {"yes", "no"} and len(set(answers[::2])) == 1


def test_its_metric_and_protocol_score(site, outputs):
    (said,) = [text for command, text in outputs.items() if " score " in command]
    assert "contained" in said and "Example Hospital, How we score, 2026" in said
    assert "first word" in said and "MRI" in said
    results = json.loads((site / "runs" / "scans" / "results-test.json").read_text())
    assert "first_word" in {one["name"] for one in results["additional_metrics"]}
    assert "contained" in {one["protocol"] for one in results["protocols"]}


def test_a_mistake_in_its_section_of_a_recipe_is_reported_as_any_other(site):
    done = run(site, "medical-vqa train scans.yaml --set model.bucket=9 --set model.side=5")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "medical-vqa: scans.yaml: 2 mistakes",
        "  --set model.side: expected a whole number from 16 to 64, got 5",
        "  --set unknown key 'model.bucket' for the family patches; did you mean 'buckets'?",
    ]


@pytest.mark.enable_socket
@pytest.mark.allow_hosts(["127.0.0.1"])
def test_its_image_store_serves(site, outputs, tmp_path):
    port = free_port()
    (command,) = [command for command in COMMANDS if " serve " in command]
    words = shlex.split(command.replace("/tmp", str(tmp_path)), comments=True)[1:]
    log = (tmp_path / "log").open("w+")
    server = subprocess.Popen(
        [sys.executable, "-m", "medical_vqa", *words, "--port", str(port)],
        cwd=site, env={**environment(site), "MEDICAL_VQA_DECODER_PROCESSES": "0"}, stderr=log,
    )  # fmt: skip
    try:
        wait_for(port, server, Path(log.name))
        picture = io.BytesIO()
        Image.fromarray(np.full((20, 20), 230, np.uint8)).save(picture, "PNG")
        head = b'--b\r\nContent-Disposition: form-data; name="image_file"; filename="x.png"\r\n\r\n'
        form = head + picture.getvalue() + b"\r\n--b--\r\n"
        image = post(port, "/upload_image", form, "multipart/form-data; boundary=b")["image_id"]
        question = json.dumps({"image_id": image, "question": "is it bright"}).encode()
        assert post(port, "/ask_question", question, "application/json")["answer"] == "yes"
        with contextlib.closing(sqlite3.connect(tmp_path / "scans.db")) as database:
            assert database.execute("SELECT id FROM images").fetchall() == [(image,)]
    finally:
        server.terminate()
        server.wait(PATIENCE)
        log.close()


def wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE):
            return
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def post(port: int, path: str, body: bytes, kind: str) -> dict[str, object]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        return dict(json.load(response))

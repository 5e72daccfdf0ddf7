"""The server on an exported model where torch is not installed, as the containers run it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from medical_vqa.pipelines import ask as ask_stage
from medical_vqa.pipelines.bundles import load_model
from medical_vqa.pipelines.export import export_onnx
from medical_vqa.pipelines.load import load

pytestmark = pytest.mark.enable_socket

WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "accelerate"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoTorch())
sys.argv[0] = "medical-vqa"
from medical_vqa.cli import main
main()
"""


def post(url, body, kind):
    request = urllib.request.Request(url, data=body, headers={"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def upload(url, picture):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="image_file"; filename="a.png"\r\n\r\n'
        + picture
        + b"\r\n--x--\r\n"
    )
    return post(f"{url}/upload_image", body, "multipart/form-data; boundary=x")["image_id"]


def ask(url, image, question):
    body = json.dumps({"image_id": image, "question": question}).encode()
    return post(f"{url}/ask_question", body, "application/json")


@contextlib.contextmanager
def server(*options):
    """A server on a free port, ended with SIGTERM; yields its process and address."""
    command = [sys.executable, "-c", WITHOUT_TORCH, "serve", "--port", "0", *map(str, options)]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=quiet) as process:
        try:
            yield process, address(process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def address(process):
    lines = []
    for line in process.stdout:
        lines.append(line)
        if url := re.search(r"http://[\d.:]+", line):
            return url[0]
    raise AssertionError("".join(lines))


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return export_onnx(run, tmp_path_factory.mktemp("onnx") / "bundle")[0]


def test_two_servers_without_torch_share_a_folder_of_uploads_and_end_with_0(exported, run, picture, tmp_path):
    options = ["--model", exported, "--store", tmp_path / "images"]
    with server(*options) as (first, one), server(*options) as (second, two):
        image = upload(one, Path(picture).read_bytes())
        answers = [ask(url, image, "Is the liver healthy?")["answer"] for url in (one, two)]
    (expected,) = ask_stage.ask(load(run, device="cpu"), picture, ["Is the liver healthy?"])
    assert answers == [expected.text] * 2
    assert (first.returncode, second.returncode) == (0, 0)


def test_a_server_with_torch_reads_what_one_without_has_stored(exported, run, picture, tmp_path):
    """The store outlives a change of the model: the other model computes its own features of the picture."""
    from medical_vqa.serving.image_store.blob import read_blob

    with server("--model", exported, "--store", tmp_path / "images") as (_, url):
        image = upload(url, Path(picture).read_bytes())
    (file,) = (tmp_path / "images").rglob(f"{image}*")
    model, _ = load_model(run / "bundle", "cpu")
    stored, prepared = read_blob(
        image, file.read_bytes(), name=file.stem, fingerprint=model.vision.fingerprint, spec=model.picture
    )
    assert prepared is not None
    assert stored.visual.shape == (model.picture.side, model.picture.side, 1)


def test_it_is_ready_and_small(exported):
    """benchmarks/without_torch.py measures how soon it is ready."""
    with server("--model", exported) as (process, url):
        with urllib.request.urlopen(f"{url}/readyz", timeout=60) as answer:
            assert answer.status == 200
        status = Path(f"/proc/{process.pid}/status")
        if status.is_file():
            assert int(re.findall(r"VmRSS:\s+(\d+) kB", status.read_text())[0]) < 400_000

"""The server on the exported model in an environment without torch, against the server on the model with torch.

    python benchmarks/without_torch.py [--model BUNDLE] [--wheel FILE] [--rounds 5]

Makes a fresh environment with `medical-vqa[serve]` alone, and starts both servers in turn: seconds from the
start of the process to the first 200 of /readyz, processor seconds until then, and resident memory of all its
processes after an upload and a question. The size of an installation is what its packages' own records list, byte
code included. Needs pip's index.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from packaging.requirements import Requirement

import medical_vqa
from medical_vqa.deploying import packages
from medical_vqa.pipelines.bundles import shipped_bundle
from medical_vqa.pipelines.export import export_onnx
from medical_vqa.schema.bundle_card import CARD_NAME, read_bundle_card

HERE = Path(__file__).parent
PICTURE = Path(medical_vqa.__file__).parent / "assets" / "slake-mini" / "imgs" / "xmlab112" / "source.jpg"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=shipped_bundle())
    parser.add_argument("--wheel", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        onnx, with_torch = both_forms(arguments.model, Path(place))
        python = fresh_environment(Path(place), arguments.wheel)
        sides = {"without_torch": (python, onnx), "with_torch": (Path(sys.executable), with_torch)}
        measured = {name: [] for name in sides}
        for number in range(arguments.rounds):
            for name, (interpreter, model) in sides.items():
                measured[name].append(served(interpreter, model))
                print(f"round {number + 1}, {name}: {measured[name][-1]}", flush=True)
        light, torch = size_in(python), size_here("torch", set())
    results = {
        "cores": len(os.sched_getaffinity(0)),
        "megabytes_installed_without_torch": light,
        "megabytes_of_torch_and_what_it_needs": torch,
        **{name: {"rounds": rows} for name, rows in measured.items()},
    }
    print(summary(results))
    (HERE / "results" / "without_torch.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def both_forms(model: Path, place: Path) -> tuple[Path, Path]:
    """A compact model as bundles for ONNX Runtime and for torch; the one that ships has the weights of both."""
    if read_bundle_card(model).family != "compact-onnx":
        return export_onnx(model, place / "onnx")[0], model
    with_torch = Path(shutil.copytree(model, place / "torch"))
    card = json.loads((with_torch / CARD_NAME).read_text(encoding="utf-8"))
    (with_torch / CARD_NAME).write_text(json.dumps(card | {"family": "compact"}), encoding="utf-8")
    return model, with_torch


def fresh_environment(place: Path, wheel: Path | None) -> Path:
    """A virtual environment with nothing but the server and ONNX Runtime; returns its python."""
    name = packages.copy_packages(place / "packages", wheel)
    subprocess.run([sys.executable, "-m", "venv", place / "venv"], check=True)
    python = place / "venv" / "bin" / "python"
    wanted = f"{place / 'packages' / str(name)}[serve]"
    pins = place / "packages" / "constraints.txt"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--constraint", pins, wanted], check=True)
    assert subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode, "torch is there"
    return python


def served(python: Path, model: Path) -> dict[str, float]:
    """One start of the server, an upload, a question, and its end."""
    command = [str(python), "-m", "medical_vqa", "serve", "--model", str(model), "--port", "0"]
    ours = str(python) == sys.executable
    clean = {name: value for name, value in os.environ.items() if ours or name != "PYTHONPATH"}
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean) as process:
        url = next(found[0] for line in process.stdout or () if (found := re.search(r"http://[\d.:]+", line)))
        while not answers(f"{url}/readyz"):
            time.sleep(0.01)
        ready, spent = time.perf_counter() - began, processor_seconds(process.pid)
        ask(url)
        resident = sum(map(resident_kilobytes, family(process.pid))) / 1e3
        own = resident_kilobytes(process.pid) / 1e3
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    times = {"ready_seconds": round(ready, 2), "processor_seconds": round(spent, 2)}
    return {**times, "server_megabytes": round(own), "all_megabytes": round(resident)}


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def ask(url: str) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="image_file"; filename="a.jpg"\r\n\r\n'
    image = post(
        f"{url}/upload_image", head + PICTURE.read_bytes() + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"
    )
    question = {
        "image_id": image["image_id"],
        "question": "What modality is used to take this image?",
        "attention_map": True,
    }
    post(f"{url}/ask_question", json.dumps(question).encode(), "application/json")


def post(url: str, body: bytes, kind: str) -> dict[str, object]:
    with urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": kind}), timeout=30) as answer:
        return json.load(answer)


def family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


def processor_seconds(pid: int) -> float:
    """What a process has spent so far; on a machine that others use too, it says more than the clock."""
    spent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, spent)) / os.sysconf("SC_CLK_TCK")


def resident_kilobytes(pid: int) -> int:
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])


def size_in(python: Path) -> int:
    """Megabytes of everything but pip in an environment."""
    site = next((python.parents[1] / "lib").glob("python3*/site-packages"))
    own = [path for path in site.iterdir() if not path.name.startswith(("pip", "setuptools", "_distutils", "pkg_res"))]
    return round(sum(file.stat().st_size for path in own for file in (path, *path.rglob("*")) if file.is_file()) / 1e6)


def size_here(name: str, extras: set[str]) -> int:
    """Megabytes of a package and all that it needs, as installed here."""
    needed: dict[str, set[str]] = {}
    waiting = [(name, extras)]
    while waiting:
        one, wanted = waiting.pop()
        key = re.sub(r"[-_.]+", "-", one).lower()
        if wanted <= needed.get(key, set()) and key in needed:
            continue
        needed[key] = needed.get(key, set()) | wanted
        for text in importlib.metadata.requires(one) or ():
            need = Requirement(text)
            if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in (needed[key] or {""})):
                waiting.append((need.name, set(need.extras)))
    files = [file.locate() for one in needed for file in importlib.metadata.files(one) or ()]
    return round(sum(Path(file).stat().st_size for file in files if Path(file).is_file()) / 1e6)


def summary(results: dict[str, object]) -> str:
    lines = []
    for name in ("without_torch", "with_torch"):
        rows = results[name]["rounds"]
        middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        lines.append(f"{name}: {middle}")
    lines += [f"{name}: {results[name]}" for name in results if name.startswith("megabytes")]
    return "\n".join(lines)


if __name__ == "__main__":
    main()

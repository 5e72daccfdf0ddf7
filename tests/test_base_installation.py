"""The base installation: its commands need no package that only an extra brings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from medical_vqa import registry

BLOCKED = """
import json, sys
blocked = frozenset(json.loads(sys.argv.pop(1)))

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in blocked else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
sys.argv[0] = "medical-vqa"
from medical_vqa.cli import main
main()
"""


OWNERS = cache(packages_distributions)


@cache
def distributions(extra: str = "") -> set[str]:
    """The package and what it needs with an extra, to the last level."""
    names, waiting = set(), [("medical-vqa", extra)]
    while waiting:
        name, of_extra = waiting.pop()
        if (name, of_extra) in names:
            continue
        names.add((name, of_extra))
        try:
            needed = [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:
            continue
        for requirement in needed:
            if requirement.marker is None or requirement.marker.evaluate({"extra": of_extra}):
                further = canonicalize_name(requirement.name)
                waiting += [(further, one) for one in ("", *requirement.extras)]
    return {name for name, _ in names}


@pytest.fixture(scope="module")
def blocked() -> str:
    base = distributions()
    modules = OWNERS().items()
    others = [module for module, owners in modules if not base & {canonicalize_name(owner) for owner in owners}]
    assert {"torch", "pydicom", "fastapi", "pyarrow", "transformers"} <= set(others)
    assert not {"medical_vqa", "numpy", "PIL", "click"} & set(others)
    return json.dumps(others)


@pytest.fixture
def run(blocked: str, tmp_path: Path):
    def call(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", BLOCKED, blocked, *map(str, words)]
        environment = os.environ | {"MEDICAL_VQA_HOME": str(tmp_path / "home")}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return call


IMAGE = Path(__file__).parents[1] / "src/medical_vqa/assets/slake-mini/imgs/xmlab112/source.jpg"


def test_the_main_commands_need_no_extra(run, tmp_path):
    (tmp_path / "mine").mkdir()
    shutil.copy(IMAGE, tmp_path / "mine/1.jpg")
    rows = ("image,question,answer", "1.jpg,Is it CT?,Yes", "1.jpg,Which organ is shown?,Liver")
    (tmp_path / "mine/questions.csv").write_text("\n".join(rows), encoding="utf-8")
    predictions = "predictions-validation.jsonl"
    for words in (
        ("ask", IMAGE, "Which organ is shown?"),
        ("ask", IMAGE, "Which organ is shown?", "--json"),
        ("prepare", "slake-mini"),
        ("predict", "shipped", "--dataset", "slake-mini", "--split", "validation", "--out", predictions),
        ("score", predictions),
        ("score", predictions, "--json"),
        ("report", predictions),
        ("compare", predictions, "copy.jsonl"),
        ("referee", predictions, "--claim", "80"),
        ("probe", "shipped", "--dataset", "slake-mini", "--split", "validation", "--limit", "3"),
        ("calibrate", "--help"),
        ("audit", "slake-mini"),
        ("convert", "slake-mini", "--to", "llava-json", "--out", "converted"),
        ("prepare", "folder", "--source", "mine", "--as", "mine"),
        ("deploy", "compose", "--out", "online"),
        ("export", "shipped", "--to", "exported"),
        ("leaderboard", "results.json"),
    ):
        done = run(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        if words[0] == "predict":
            shutil.copy(tmp_path / predictions, tmp_path / "copy.jsonl")
        if words[-1] == "--json" and words[0] == "score":
            (tmp_path / "results.json").write_text(done.stdout, encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("train", "demo"), "train"),
        (("serve",), "serve"),
        (("app",), "serve"),
        (("mcp",), "mcp"),
        (("ask", IMAGE, "Is it CT?", "--dicom-report", "report.dcm"), "dicomweb"),
        (("ask", "brain.nii", "Is it MR?"), "dicom"),
        (("ask", "dicomweb://localhost/studies/1", "Is it CT?"), "dicomweb"),
        (("ask", IMAGE, "Is it CT?", "--model", "openai:m", "--base-url", "http://localhost:9/v1"), "remote"),
        (("score", "predictions.parquet", "--dataset", "slake-mini", "--split", "validation"), "parquet"),
        (("score", "predictions.xlsx", "--dataset", "slake-mini", "--split", "validation"), "excel"),
        (("ask", "slices", "Is it CT?"), "dicom"),
        (("ask", "slice.dcm", "Is it CT?"), "dicom"),
    ],
)
def test_a_command_that_needs_an_extra_names_it_in_one_sentence(run, root, tmp_path, words, extra):
    shutil.copytree(root, tmp_path / "home/data")
    (tmp_path / "brain.nii").write_bytes(b"\x5c\x01\0\0" + bytes(340) + b"n+1\0" + bytes(100))
    (tmp_path / "predictions.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    (tmp_path / "predictions.xlsx").write_bytes(b"PK\3\4" + bytes(100))
    (tmp_path / "slices").mkdir()
    for path in (tmp_path / "slice.dcm", tmp_path / "slices/1", tmp_path / "slices/2"):
        path.write_bytes(bytes(128) + b"DICM" + bytes(200))
    done = run(*words)
    assert "Traceback" not in done.stderr
    assert (done.returncode, done.stderr.strip().count("\n")) == (2, 0), done.stderr
    assert f"medical-vqa[{extra}]" in done.stderr


@pytest.mark.parametrize("module", sorted(registry._EXTRAS))
def test_the_extra_that_is_named_for_a_module_brings_it(module):
    (owner, *_) = OWNERS()[module]
    extra = registry.extra_of(ModuleNotFoundError(name=module))
    assert canonicalize_name(owner) in distributions(extra)

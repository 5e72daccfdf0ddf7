"""The package imports on platforms without the modules that only POSIX has."""

import subprocess
import sys

import pytest

POSIX_ONLY = ("fcntl", "grp", "pwd", "resource", "termios")
BLOCK = f"""
import sys
for name in {POSIX_ONLY!r}:
    sys.modules[name] = None  # then an import of it raises ImportError
"""


def run(code, *arguments):
    result = subprocess.run([sys.executable, "-c", BLOCK + code, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "module",
    [
        "medical_vqa.cli", "medical_vqa.api", "medical_vqa.app.launch", "medical_vqa.app.feedback", "medical_vqa.app.main",
        "medical_vqa.data.cache.pictures", "medical_vqa.data.prepared.prepare", "medical_vqa.models.bundle",
        "medical_vqa.models.compact.model", "medical_vqa.pipelines.serve", "medical_vqa.serving.decoding",
    ],
)  # fmt: skip
def test_a_module_imports_without_posix_modules(module):
    run(f"import {module}")


def test_every_module_of_cli_app_data_and_models_imports_without_posix_modules():
    code = """
import importlib, pkgutil
import medical_vqa
for package in ("cli", "app", "data", "models"):
    parent = importlib.import_module(f"medical_vqa.{package}")
    for module in pkgutil.walk_packages(getattr(parent, "__path__", []), parent.__name__ + "."):
        importlib.import_module(module.name)
        print(module.name)
"""
    assert "medical_vqa.app.launch" in run(code).split()


def test_a_rating_is_recorded_without_posix_modules(tmp_path):
    code = """
import pathlib
from medical_vqa.app.feedback import Rating, record
folder = pathlib.Path(sys.argv[1])
record(folder, Rating("a", "Is the liver healthy?", "yes", True, "model"))
print((folder / "ratings.jsonl").read_text(encoding="utf-8"))
"""
    assert "Is the liver healthy?" in run(code, str(tmp_path / "feedback"))

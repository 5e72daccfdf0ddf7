"""The package works on platforms without the modules that only POSIX has."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import medical_vqa

POSIX_MODULES = ("fcntl", "grp", "pwd", "resource", "termios")
WITHOUT_POSIX = f"""
import sys
for name in {POSIX_MODULES!r}:
    sys.modules[name] = None  # an import of it then raises ImportError
"""
POSIX_NAMES = re.compile(
    r"os\.(kill|killpg|fork|setsid|geteuid|getuid|uname|mkfifo)\b|signal\.(SIGKILL|SIGALRM|SIGHUP|SIGUSR\d)"
    r"|preexec_fn|start_new_session"
)
IMPORT_ALL = """
import importlib, pkgutil
package = importlib.import_module("medical_vqa." + sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
    print(module.name)
"""
RECORD = """
import pathlib
from medical_vqa.data.feedback import Rating, record
folder = pathlib.Path(sys.argv[1])
record(folder, Rating("a", "Is the liver healthy?", "yes", True, "model"))
print((folder / "ratings.jsonl").read_text(encoding="utf-8"))
"""


def run_without_posix(code, argument):
    command = [sys.executable, "-c", WITHOUT_POSIX + code, argument]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("package", ["cli", "app", "data", "models", "pipelines", "serving"])
def test_every_module_of_a_package_imports_without_posix_modules(package):
    modules = run_without_posix(IMPORT_ALL, package).split()
    assert modules
    assert all(module.startswith(f"medical_vqa.{package}.") for module in modules)


def test_no_name_is_used_that_only_posix_has():
    folder = Path(medical_vqa.__file__).parent
    lines = [(path.name, line) for path in folder.rglob("*.py") for line in path.read_text("utf-8").splitlines()]
    assert len(lines) > 1000
    assert [(name, line) for name, line in lines if POSIX_NAMES.search(line)] == []


def test_a_rating_is_stored_without_posix_modules(tmp_path):
    assert "Is the liver healthy?" in run_without_posix(RECORD, str(tmp_path / "feedback"))

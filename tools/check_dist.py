"""Checks the sdist and the wheel of a folder: installed elsewhere they answer, and the tests of the sdist run.

``python tools/check_dist.py dist`` collects every test of the unpacked sdist and runs the quick part of `TESTS`, then
installs the wheel alone into a fresh environment, asks it, and prints how large that environment is. ``--offline``
installs nothing and checks the sdist alone, with the environment that runs this script.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

IN_WHEEL = (
    "medical_vqa/py.typed",
    "medical_vqa/assets/compact/card.json",
    "medical_vqa/assets/slake-mini/LICENSE",
    "medical_vqa/recipes/demo.yaml",
    "medical_vqa/constraints.txt",
    "medical_vqa/serving/page/page.js",
)
TESTS = ("tests/evaluation", "tests/test_io.py", "tests/test_readme.py", "tests/test_registry.py", "tests/test_text.py")
"""What is run from the sdist: seconds, of every layer below training."""


def only(folder: Path, pattern: str) -> Path:
    """The one file of a pattern."""
    paths = sorted(folder.glob(pattern))
    if len(paths) != 1:
        sys.exit(f"expected one {pattern} in {folder}, got {len(paths)}; build again in an empty folder")
    return paths[0]


def check_wheel(wheel: Path) -> None:
    """The wheel holds what the program reads at run time, and no tests."""
    names = zipfile.ZipFile(wheel).namelist()
    if missing := [name for name in IN_WHEEL if name not in names]:
        sys.exit(f"{wheel.name} lacks {', '.join(missing)}")
    if stray := [name for name in names if not name.startswith(("medical_vqa/", "medical_vqa-"))]:
        sys.exit(f"{wheel.name} holds {stray[0]}, which is not part of the package")


def check_sdist(sdist: Path, folder: Path) -> None:
    """All tests of the unpacked sdist are collected there, and those of `TESTS` pass."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    root = folder / sdist.name.removesuffix(".tar.gz")
    collected = run_tests(root, "--collect-only", "-q")
    count = sum(int(number) for number in re.findall(r"^tests/\S+: (\d+)$", collected, re.M))
    passed = run_tests(root, "-m", "not slow", *TESTS).strip().splitlines()[-1]
    print(f"{sdist.name}: {count} tests are collected; of {len(TESTS)} paths, {passed}")


def run_tests(root: Path, *words: str) -> str:
    """The output of pytest in an unpacked sdist, whose own source it imports; a failure ends this script."""
    environment = os.environ | {"PYTHONPATH": str(root / "src")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"pytest {' '.join(words)} fails in {root.name}:\n{result.stdout[-3000:]}{result.stderr[-1000:]}")
    return result.stdout


def check_installed(wheel: Path, folder: Path) -> None:
    """A fresh environment with the wheel alone answers a question, without torch."""
    venv.create(folder, with_pip=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    before = size_in_mb(folder)
    subprocess.run([scripts / "python", "-m", "pip", "install", "--quiet", wheel], check=True)
    print(f"{wheel.name}: installed with what it needs, {size_in_mb(folder) - before:.0f} MB")
    smoke = Path(__file__).with_name("smoke.py").resolve()
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": ""}
    subprocess.run([scripts / "python", smoke], check=True, cwd=folder, env=environment)


def size_in_mb(folder: Path) -> float:
    """Bytes of all files of a folder, in millions."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) / 1e6


def main() -> None:
    """Check both files of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--offline", action="store_true")
    arguments = parser.parse_args()
    wheel, sdist = only(arguments.folder, "*.whl").resolve(), only(arguments.folder, "*.tar.gz").resolve()
    check_wheel(wheel)
    with tempfile.TemporaryDirectory() as folder:
        check_sdist(sdist, Path(folder) / "sdist")
        if not arguments.offline:
            check_installed(wheel, Path(folder) / "venv")


if __name__ == "__main__":
    main()

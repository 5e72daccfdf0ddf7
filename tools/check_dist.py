"""Checks the sdist and the wheel of a folder: installed elsewhere they answer, and the tests of the sdist collect.

``python tools/check_dist.py dist``; ``--offline`` installs nothing and checks contents and collection alone, with the
environment that runs this script.
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
)


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


def check_sdist(sdist: Path, folder: Path) -> int:
    """The number of tests that are collected from the unpacked sdist alone."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    root = folder / sdist.name.removesuffix(".tar.gz")
    environment = os.environ | {"PYTHONPATH": str(root / "src")}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"the tests of {sdist.name} cannot be collected:\n{result.stdout[-3000:]}{result.stderr[-1000:]}")
    return sum(int(count) for count in re.findall(r"^tests/\S+: (\d+)$", result.stdout, re.M))


def check_installed(wheel: Path, folder: Path) -> None:
    """A fresh environment with the wheel alone answers a question."""
    venv.create(folder, with_pip=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run([scripts / "python", "-m", "pip", "install", "--quiet", wheel], check=True)
    smoke = Path(__file__).with_name("smoke.py")
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": ""}
    subprocess.run([scripts / "python", smoke], check=True, cwd=folder, env=environment)


def main() -> None:
    """Check both files of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--offline", action="store_true")
    arguments = parser.parse_args()
    wheel, sdist = only(arguments.folder, "*.whl").resolve(), only(arguments.folder, "*.tar.gz").resolve()
    check_wheel(wheel)
    with tempfile.TemporaryDirectory() as folder:
        print(f"{sdist.name}: {check_sdist(sdist, Path(folder) / 'sdist')} tests collected")
        if not arguments.offline:
            check_installed(wheel, Path(folder) / "venv")


if __name__ == "__main__":
    main()

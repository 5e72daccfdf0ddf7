"""The packages that a container installs: this project's wheel, and the pinned versions of everything else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from medical_vqa.errors import ConfigError

_PACKAGE = Path(__file__).parents[1]
_CHECKOUT = _PACKAGE.parents[1]
_WHEELS = "medical_vqa-*.whl"


def constraints_file() -> Path:
    """The pinned versions: of the checkout, or those in the installed package."""
    for path in (_CHECKOUT / "constraints.txt", _PACKAGE / "constraints.txt"):
        if path.is_file():
            return path
    raise ConfigError("constraints.txt is missing from the package; install medical-vqa again")


def copy_packages(folder: Path, wheel: Path | None) -> str | None:
    """Copy the pinned versions and the wheel into a folder.

    Args:
        folder: Is created; older wheels of this project in it are removed.
        wheel: The wheel; None: it is built, where this package runs from a checkout.

    Returns:
        The wheel's name, or None where the container must install this project from the package index.

    Raises:
        ConfigError: The file is no wheel, or it cannot be built.
    """
    if wheel is not None and (not wheel.is_file() or wheel.suffix != ".whl"):
        raise ConfigError(f"{wheel} is not a wheel; build one with: pip wheel --no-deps --wheel-dir dist .")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(constraints_file(), folder / "constraints.txt")
    for old in folder.glob(_WHEELS):
        old.unlink()
    if wheel is not None:
        shutil.copyfile(wheel, folder / wheel.name)
        return wheel.name
    return _build_wheel(folder) if (_CHECKOUT / "pyproject.toml").is_file() else None


def _build_wheel(folder: Path) -> str:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(_CHECKOUT)]
    build = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob(_WHEELS))
    if build.returncode or not wheels:
        reason = (build.stderr.strip().splitlines() or ["pip wrote no wheel"])[-1]
        raise ConfigError(f"the wheel cannot be built ({reason}); build it elsewhere and name it with --wheel FILE")
    return wheels[0].name

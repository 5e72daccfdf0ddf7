"""What a container installs: this project's wheel, and the pinned versions of everything else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from medical_vqa.errors import ConfigError

_PACKAGE = Path(__file__).parents[1]
_CHECKOUT = _PACKAGE.parents[1]


def constraints() -> Path:
    """The pins of the checkout, or those that came with the installed package."""
    found = [path for path in (_CHECKOUT / "constraints.txt", _PACKAGE / "constraints.txt") if path.is_file()]
    if not found:
        raise ConfigError("constraints.txt is missing from the package; install medical-vqa again")
    return found[0]


def fill(folder: Path, wheel: Path | None) -> str | None:
    """Put the pins and the wheel into a folder; returns the wheel's name.

    Without a `wheel`, one is built where this package runs from a checkout; None: it comes from the package index.
    """
    if wheel is not None and (not wheel.is_file() or wheel.suffix != ".whl"):
        raise ConfigError(f"{wheel} is not a wheel; build one with: pip wheel --no-deps --wheel-dir dist .")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(constraints(), folder / "constraints.txt")
    for old in folder.glob("medical_vqa-*.whl"):
        old.unlink()
    if wheel is not None:
        shutil.copyfile(wheel, folder / wheel.name)
        return wheel.name
    return _built(folder) if (_CHECKOUT / "pyproject.toml").is_file() else None


def _built(folder: Path) -> str:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(_CHECKOUT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    made = sorted(folder.glob("medical_vqa-*.whl"))
    if done.returncode or not made:
        reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise ConfigError(f"the wheel could not be built ({reason}); build it elsewhere and name it with --wheel FILE")
    return made[0].name

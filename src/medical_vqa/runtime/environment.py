"""What a run records about its environment, and the folder of prepared data."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = (
    "medical-vqa", "torch", "accelerate", "numpy", "pillow", "safetensors", "transformers", "peft", "onnxruntime",
)  # fmt: skip


def home() -> Path:
    """Folder of prepared data: ``$MEDICAL_VQA_HOME``, or ``~/.cache/medical-vqa``."""
    return Path(os.environ.get("MEDICAL_VQA_HOME") or Path.home() / ".cache" / "medical-vqa")


def environment() -> dict[str, Any]:
    """Versions, platform and git revision of this process, for the run folder."""
    versions = {name: _version(name) for name in _PACKAGES}
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "packages": {name: version for name, version in versions.items() if version},
        "git": git_revision(),
        "command": sys.argv[1:],
    }


def package_version() -> str:
    """Version of this package; ``0+unknown`` when it runs from a folder that was never installed."""
    return _version("medical-vqa") or "0+unknown"


def git_revision() -> str | None:
    """Commit of the checkout that this code runs from, with ``-dirty`` when it was changed; None outside git."""
    folder = Path(__file__).resolve().parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None

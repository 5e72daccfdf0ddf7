"""Where and with what this process runs: device, precision and the reason for them, seeds, versions, git revision.

torch is imported inside the functions, so that commands that do not need it start at once.
"""

from __future__ import annotations

import os
import platform
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medical_vqa.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    import torch

ProgressCallback = Callable[[int, int], None]
"""Called with how many items are done and how many there are."""
StageCallback = Callable[[str, int, int], None]
"""Called with a stage's name, how many of its items are done and how many there are."""
Precision = Literal["fp32", "fp16", "bf16"]
_PACKAGES = (
    "medical-vqa", "torch", "accelerate", "numpy", "pillow", "safetensors", "transformers", "peft", "onnxruntime",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choice:
    """A device and a precision, with the reason, for logs and cards."""

    device: str
    """``cpu``, ``cuda`` or ``mps``."""
    precision: Precision
    """Of the matrix products; weights stay fp32."""
    reason: str
    """Why this precision, in words."""


def home() -> Path:
    """Where prepared data lives: $MEDICAL_VQA_HOME, or ``~/.cache/medical-vqa``."""
    return Path(os.environ.get("MEDICAL_VQA_HOME") or Path.home() / ".cache" / "medical-vqa")


def require_torch() -> None:
    """Raise `MissingDependencyError` with the line that installs PyTorch when it is missing."""
    try:
        import torch  # noqa: F401, PLC0415
    except ImportError as error:
        raise MissingDependencyError(
            "this command trains or runs a model and needs PyTorch, which is not installed; "
            "run: pip install 'medical-vqa[train]'"
        ) from error


def choose_device(device: str = "auto") -> torch.device:
    """The device asked for, or the best there is; raises `ConfigError` when it is not there."""
    require_torch()
    import torch  # noqa: PLC0415

    if device != "auto":
        chosen = torch.device(device)
        if chosen.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device cuda was asked for and no CUDA device is visible; use device: auto or cpu")
        return chosen
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_precision(wanted: Precision | Literal["auto"], device: torch.device) -> Choice:
    """The precision to compute in; raises `ConfigError` for fp16 on a CPU, which has no fast half products."""
    import torch  # noqa: PLC0415

    if wanted == "fp16" and device.type == "cpu":
        raise ConfigError("fp16 was asked for on a CPU, which computes it slowly or not at all; use fp32, bf16 or auto")
    if wanted != "auto":
        return Choice(device.type, wanted, "asked for")
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Choice("cuda", "bf16", "this GPU computes bfloat16, which needs no loss scaling")
        return Choice("cuda", "fp16", "this GPU has no bfloat16")
    return Choice(device.type, "fp32", "exact, and the fastest that every CPU has")


def memory_of(device: torch.device) -> int | None:
    """Bytes that a GPU has; None for other devices."""
    import torch  # noqa: PLC0415

    return int(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else None


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def wait_politely() -> None:
    """Let threads that wait for each other sleep instead of spinning; call it before torch is imported.

    On a machine that others use too, spinning threads take the very core that the thread they wait for needs: two
    cores under load spent seven times the processor time of the same training with sleeping threads.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def use_all_cores() -> int:
    """Let torch use every core this process may run on (containers often report the host's); returns the number."""
    import torch  # noqa: PLC0415

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cores())
    return torch.get_num_threads()


def cores() -> int:
    """How many cores this process may run on: OMP_NUM_THREADS where it is set."""
    if (wanted := os.environ.get("OMP_NUM_THREADS", "")).isdecimal() and int(wanted):
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment() -> dict[str, Any]:
    """Versions, platform and git revision of this process, for the run folder."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "git": git_revision(),
        "command": sys.argv[1:],
    }


def package_version() -> str:
    """This package's version; ``0+unknown`` when it runs from a folder that was never installed."""
    return _version("medical-vqa") or "0+unknown"


def git_revision() -> str | None:
    """Commit of the checkout that this code runs from, with ``-dirty`` when it was changed; None outside git."""
    folder = Path(__file__).resolve().parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None

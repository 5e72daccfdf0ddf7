"""The device and precision of computations, random seeds, and threads.

torch is imported inside the functions, so that commands that do not need it start at once.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from medical_vqa.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "fp16", "bf16"]


@dataclass(frozen=True, slots=True)
class ComputeChoice:
    """A device and a precision, with the reason, for logs and cards."""

    device: str
    """``cpu``, ``cuda`` or ``mps``."""
    precision: Precision
    """Precision of matrix products; weights stay fp32."""
    reason: str
    """Reason for the precision, in words."""


def require_torch() -> None:
    """Raise `MissingDependencyError` with the line that installs PyTorch when it is missing."""
    try:
        import torch  # noqa: F401, PLC0415
    except ImportError as error:
        raise MissingDependencyError(
            "this command trains or runs a model and needs PyTorch, which is not installed; "
            "run: pip install 'medical-vqa[train]'"
        ) from error


def choose_device(name: str = "auto") -> torch.device:
    """The device of this name, or the best one for ``auto``; raises `ConfigError` when it is not available."""
    require_torch()
    import torch  # noqa: PLC0415

    if name != "auto":
        try:
            device = torch.device(name)
        except (RuntimeError, TypeError) as error:
            raise ConfigError(f"device {name!r} is not one that torch knows; use auto, cpu, cuda or mps") from error
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device cuda is set and no CUDA device is visible; use device: auto or cpu")
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_precision(precision: Precision | Literal["auto"], device: torch.device) -> ComputeChoice:
    """The precision to compute in; raises `ConfigError` for fp16 on a CPU, which has no fast half products."""
    import torch  # noqa: PLC0415

    if precision == "fp16" and device.type == "cpu":
        raise ConfigError(
            "precision fp16 is set on a CPU, which computes it slowly or not at all; use fp32, bf16 or auto"
        )
    if precision != "auto":
        return ComputeChoice(device.type, precision, "set in the recipe")
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return ComputeChoice("cuda", "bf16", "this GPU computes bfloat16, which needs no loss scaling")
        return ComputeChoice("cuda", "fp16", "this GPU has no bfloat16")
    return ComputeChoice(device.type, "fp32", "exact, and the fastest that every CPU has")


def without_fp16(choice: ComputeChoice, problem: str | None, *, requested: str = "auto") -> ComputeChoice:
    """The choice itself, or fp32 in place of an fp16 that a model cannot be computed in.

    Args:
        choice: Device and precision.
        problem: Why the model cannot be computed in fp16, in words; None where it can.
        requested: The precision in the recipe.

    Raises:
        ConfigError: The recipe names fp16, and the model cannot be computed in it.
    """
    if choice.precision != "fp16" or problem is None:
        return choice
    if requested == "fp16":
        raise ConfigError(f"precision fp16 is set and {problem}; use bf16 (on a GPU that has it), fp32 or auto")
    return ComputeChoice(choice.device, "fp32", f"{problem}, and this GPU has no bfloat16")


def device_memory(device: torch.device) -> int | None:
    """Memory of a GPU in bytes; None for other devices."""
    import torch  # noqa: PLC0415

    return int(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else None


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed % 2**64)


def wait_passively() -> None:
    """Let threads that wait for each other sleep instead of spinning; call it before torch is imported.

    On a machine that others use too, a spinning thread occupies the core that the thread it waits for needs: on two
    cores under load the same training took seven times the processor time of sleeping threads.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def use_all_cores() -> int:
    """Let torch use every core of this process (containers often report the host's); returns the number."""
    import torch  # noqa: PLC0415

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cores())
    return torch.get_num_threads()


def cores() -> int:
    """Number of cores that this process may run on: ``OMP_NUM_THREADS`` where it is set."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads):
        return int(threads)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

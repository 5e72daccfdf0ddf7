"""What a run will take, said before anything is loaded: parameters, memory, steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from medical_vqa.errors import ConfigError
from medical_vqa.models.memory import MemoryEstimate, TrainingMemory
from medical_vqa.training.batching import BatchPlan

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Plan:
    """A run on paper."""

    estimate: MemoryEstimate
    """What is trained."""
    memory: TrainingMemory
    """What the device must hold."""
    rows: int
    """Training rows."""
    images: int
    """Training images."""
    steps: int
    """Optimizer steps in all."""
    device: str
    """Where, and in which precision."""
    available: int | None
    """The device's memory, bytes; None where it is not a GPU."""

    def lines(self) -> list[str]:
        """For people."""
        held = self.memory
        share = 100 * self.estimate.trainable / self.estimate.parameters
        rest = "not known beforehand" if held.activations is None else _gib(held.activations)
        room = f"; the device has {_gib(self.available)}" if self.available else ""
        return [
            f"parameters   {self.estimate.parameters:,} in all, {self.estimate.trainable:,} trained ({share:.2f} %)",
            f"once         {self.estimate.vision_encoder:,} parameters are needed only to encode each image, once",
            f"memory       {_gib(held.total)}: weights {_gib(held.weights)}, gradients {_gib(held.gradients)}, "
            f"optimizer {_gib(held.optimizer)}, activations of one batch at most {rest}{room}",
            f"data         {self.rows:,} rows on {self.images:,} images",
            f"steps        {self.steps:,} on {self.device}",
        ]

    def check(self) -> None:
        """Raise `ConfigError` when the device cannot even hold what no batch size changes."""
        if self.available is not None and self.memory.fixed > self.available:
            raise ConfigError(
                f"this GPU is too small: weights, gradients and optimizer take {_gib(self.memory.fixed)} and it has "
                f"{_gib(self.available)}; use a smaller model.checkpoint, 16-bit training.precision, "
                "model.four_bit for a chat model, or a larger GPU"
            )


def steps_of(images: Sequence[str], lengths: Sequence[int] | None, *, epochs: int, batch_size: int, grouping: str,
             accumulate: int, seed: int, processes: int = 1) -> int:  # fmt: skip
    """Optimizer steps of a whole run, exactly as the loop will take them."""
    plan = BatchPlan(images, batch_size, "image" if grouping == "image" else "question", seed, processes, lengths)
    return sum(math.ceil(len(plan.epoch(epoch)) / accumulate) for epoch in range(epochs))


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f} GiB" if size >= _GIB / 10 else f"{size / 2**20:.1f} MiB"

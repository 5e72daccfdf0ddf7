"""What a training run will need, estimated before anything is loaded: parameters, memory, steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from medical_vqa.errors import ConfigError
from medical_vqa.models.memory import MemoryEstimate, TrainingMemory
from medical_vqa.training.batching import BatchPlan, Grouping

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Plan:
    """What one training run needs."""

    estimate: MemoryEstimate
    """Parameter counts of the model."""
    memory: TrainingMemory
    """Memory that the device must have."""
    rows: int
    """Training rows."""
    images: int
    """Training images."""
    steps: int
    """Optimizer steps in all."""
    device: str
    """Device and precision."""
    available: int | None
    """The device's memory, bytes; None where it is not a GPU."""
    note: str | None = None
    """What of the rows the model does not read; None where it reads everything."""

    def lines(self) -> list[str]:
        """The plan as lines of text."""
        estimate, memory = self.estimate, self.memory
        trained = 100 * estimate.trainable / estimate.parameters
        activations = "unknown" if memory.activations is None else f"at most {_human_size(memory.activations)}"
        available = f"; the device has {_human_size(self.available)}" if self.available else ""
        tokens = f", {estimate.stacks[0].tokens:,} tokens a question" if estimate.stacks else ""
        encoder = (
            f"{estimate.vision_encoder:,} parameters run once per image when features are cached"
            if estimate.vision_encoder
            else "none that is frozen: nothing is cached"
        )
        note = (
            f"note         the configuration of {estimate.stand_in} that this package ships; it is not downloaded yet"
        )
        return [
            f"parameters   {estimate.parameters:,}, of which {estimate.trainable:,} are trained ({trained:.2f} %)",
            f"encoder      {encoder}",
            f"memory       {_human_size(memory.total)}: weights {_human_size(memory.weights)}, "
            f"gradients {_human_size(memory.gradients)}, optimizer {_human_size(memory.optimizer)}, "
            f"activations of one batch {activations}{tokens}{available}",
            f"data         {self.rows:,} rows on {self.images:,} images",
            f"steps        {self.steps:,} on {self.device}",
            *([note] if estimate.stand_in else []),
            *([f"note         {self.note}"] if self.note else []),
        ]

    def check(self) -> None:
        """Raise `ConfigError` when the device has less memory than what no batch size changes."""
        if self.available is not None and self.memory.fixed > self.available:
            raise ConfigError(
                f"this GPU is too small: weights, gradients and optimizer take {_human_size(self.memory.fixed)} and it "
                f"has {_human_size(self.available)}; use a smaller model.checkpoint, 16-bit training.precision, "
                "model.four_bit for a chat model, or a larger GPU"
            )


def count_steps(
    images: Sequence[str],
    lengths: Sequence[int] | None,
    *,
    epochs: int,
    batch_size: int,
    grouping: Grouping,
    accumulate: int,
    seed: int,
    processes: int = 1,
    weights: Sequence[float] | None = None,
) -> int:
    """Optimizer steps of a whole run, exactly as `loop.fit` will take them; the arguments are those of `BatchPlan`."""
    plan = BatchPlan(images, batch_size, grouping, seed, processes, lengths, weights)
    return sum(math.ceil(len(plan.epoch(epoch)) / accumulate) for epoch in range(epochs))


def _human_size(size: int) -> str:
    return f"{size / _GIB:.2f} GiB" if size >= _GIB / 10 else f"{size / 2**20:.1f} MiB"

"""What a training run is given, and what it reports: `TrainingSettings`, `Callbacks`, `FitResult`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from medical_vqa.runtime.devices import Precision
from medical_vqa.training.batching import Grouping
from medical_vqa.training.optimizer import OptimizerName

Scores = Mapping[str, float]
"""Validation scores by name, each in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """Length, batches, optimizer and schedule of one run, named as in `config.TrainingRecipe`."""

    epochs: int
    """Passes over the training rows."""
    batch_size: int
    """Questions per batch and process."""
    grouping: Grouping = "image"
    """Whether the questions of an image share a batch."""
    accumulate: int = 1
    """Batches per optimizer step."""
    micro_batch: int | Literal["auto"] = "auto"
    """Questions on the device at once; ``auto`` starts with the whole batch and halves it when memory runs out."""
    optimizer: OptimizerName = "adamw"
    """AdamW of torch, or one of bitsandbytes with 8-bit moments."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.05
    """Weight decay of matrices and kernels."""
    warmup: float = 0.03
    """Fraction of all steps over which the learning rate rises."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    average: float = 0.0
    """Decay of the moving average of weights that is evaluated and saved; 0 uses the weights themselves."""
    precision: Precision = "fp32"
    """Precision of matrix products."""
    device: str = "cpu"
    """``cpu``, ``cuda`` or ``mps``."""
    seed: int = 0
    """Seed of the order of rows, dropout and augmentation."""
    evaluate_every: int = 1
    """Epochs between evaluations."""
    select: str = "em"
    """Name of the score that chooses the checkpoint; ``last`` takes the weights of the last step."""
    patience: int | None = None
    """Evaluations without a better score after which training stops; None never stops early."""
    checkpoint_minutes: float = 2.0
    """Minutes between checkpoints; each evaluation writes one too."""
    workers: int = 0
    """Processes that load data; 0 loads in the training process."""
    trackers: tuple[str, ...] = ()
    """Experiment trackers of accelerate, in addition to ``metrics.jsonl``."""


class Watcher(Protocol):
    """Receives the progress of a run; the command line draws a progress bar from it."""

    def begin(self, *, total_steps: int, done_steps: int, device: str) -> None:
        """Training starts, or resumes after `done_steps`."""

    def step(self, *, done: int, epoch: int, loss: float, questions_per_second: float) -> None:
        """`done` steps are complete; `loss` is the mean of the latest ones, in nats per supervised item."""

    def score(self, *, epoch: int, train_loss: float, scores: Scores, best: bool) -> None:
        """Validation scores after an epoch, each in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """What a run calls while it trains."""

    evaluate: Callable[[], Scores] | None
    """Scores the model as it is; None when there is nothing to evaluate on."""
    save: Callable[[Scores, int], None]
    """Saves the model, with its scores and the number of complete epochs. It is called in the main process, or in all
    processes at once where each holds a part of the weights (FSDP)."""
    watcher: Watcher
    """Receives the progress, in the main process."""


@dataclass(frozen=True, slots=True)
class FitResult:
    """How a run ended."""

    steps: int
    """Optimizer steps."""
    best_epoch: int | None
    """Epochs complete at the best score; None when the last weights were saved."""
    stopped_early: bool
    """Whether training stopped for lack of improvement (`TrainingSettings.patience`)."""
    seconds: float
    """Wall-clock time, over all resumptions."""

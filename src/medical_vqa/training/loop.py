"""fit(): the training loop, whole and visible; it knows no model family and no dataset.

One step: `accumulate` batches, their losses summed, divided by the number of supervised items over all batches and
processes (so that one big batch, many small ones, or several processes give the same gradient), clipped, applied.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import ProjectConfiguration, broadcast_object_list, send_to_device
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from medical_vqa.errors import ConfigError, TrainingError
from medical_vqa.models.base import Query, Trainable
from medical_vqa.models.fsdp import is_sharded, unsharded_outside_layers
from medical_vqa.runtime import Precision, seed_everything
from medical_vqa.training.batching import Batch, BatchPlan, Grouping, pieces
from medical_vqa.training.journal import Journal, Progress, disk_errors, read_progress
from medical_vqa.training.optimizer import WeightAverage, adamw, rate

Scores = Mapping[str, float]
_LOG_STEPS, _LOG_SECONDS = 10, 2.0  # between looks at the losses: each look waits for the device


class Watcher(Protocol):
    """Who is told how it goes; the command line draws a progress bar from it."""

    def begin(self, *, total_steps: int, done_steps: int, device: str) -> None:
        """Training starts, or goes on after `done_steps`."""

    def step(self, *, done: int, epoch: int, loss: float, questions_per_second: float) -> None:
        """Steps done so far; the mean loss of the latest ones, in nats per item."""

    def score(self, *, epoch: int, train_loss: float, scores: Scores, best: bool) -> None:
        """Validation scores after an epoch, each in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """How a run ended."""

    steps: int
    """Optimizer steps."""
    best_epoch: int | None
    """Epochs complete at the best selection score; None when the last weights were taken."""
    stopped_early: bool
    """Whether patience ran out."""
    seconds: float
    """Wall-clock time, over all resumptions."""


def fit(
    model: Trainable,
    data: Sequence[Query],
    *,
    images: Sequence[str],
    journal: Journal,
    evaluate: Callable[[], Scores] | None,
    keep: Callable[[Scores, int], None],
    watcher: Watcher,
    epochs: int,
    batch_size: int,
    grouping: Grouping = "image",
    accumulate: int = 1,
    micro_batch: int | Literal["auto"] = "auto",
    lengths: Sequence[int] | None = None,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.05,
    warmup: float = 0.03,
    clip: float = 1.0,
    average: float = 0.0,
    precision: Precision = "fp32",
    device: str = "cpu",
    seed: int = 0,
    evaluate_every: int = 1,
    select: str = "em",
    patience: int | None = None,
    checkpoint_minutes: float = 2.0,
    workers: int = 0,
    trackers: Sequence[str] = (),
) -> Fitted:
    """Train `model` on `data`, whose row i asks about ``images[i]``, and go on from the journal's checkpoint if any.

    `evaluate` scores the model as it is; `keep` is called with its scores and the epoch whenever it should be saved:
    in the main process, or, where each process holds a share of the weights (FSDP), in all of them at once.
    A batch is taken in parts of `micro_batch` rows; `auto` halves them whenever the device runs out of memory, and
    the step stays the same. Rows of like `lengths`, where given, share a batch.
    Raises `TrainingError` when the loss is not a number, the disk is full, or one row is too much for the device.
    """
    AcceleratorState._reset_state()  # an earlier run in this process may have had another precision
    accelerator = Accelerator(
        mixed_precision={"fp32": "no"}.get(precision, precision),
        cpu=device == "cpu",
        log_with=list(trackers) or None,
        project_config=ProjectConfiguration(project_dir=str(journal.folder)),
    )
    seed_everything(seed)
    run = _Run(accelerator, model, data, journal, evaluate, keep, watcher, select)
    run.micro = None if micro_batch == "auto" else micro_batch
    plan = BatchPlan(images, batch_size, grouping, seed, accelerator.num_processes, lengths)
    run.prepare(learning_rate=learning_rate, weight_decay=weight_decay, average=average)
    if trackers:
        accelerator.init_trackers("medical-vqa", config={"learning_rate": learning_rate, "batch_size": batch_size})
    progress = run.progress
    total = sum(math.ceil(len(plan.epoch(e)) / accumulate) for e in range(epochs))
    if accelerator.is_main_process:
        watcher.begin(total_steps=total, done_steps=progress.step, device=f"{accelerator.device.type}, {precision}")
    run.last_saved = time.monotonic()
    while progress.epoch < epochs and not _out_of_patience(progress, patience):
        steps = _chunks(plan.epoch(progress.epoch), accumulate)[progress.batch :]
        try:
            for batches in run.load(steps, plan, workers):
                share = rate(progress.step, total=total, warmup=warmup)
                run.step(batches, learning_rate * share, clip)
                if time.monotonic() - run.last_saved > 60 * checkpoint_minutes:
                    run.save()
        except torch.OutOfMemoryError as error:
            run.halve(error, batch_size, fixed=micro_batch != "auto")
            continue  # with the step that was too much
        run.end_epoch(score=(progress.epoch + 1) % evaluate_every == 0 or progress.epoch + 1 == epochs)
    if select == "last" or evaluate is None:
        run.keep_last()
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return Fitted(progress.step, progress.best_epoch, progress.epoch < epochs, progress.seconds)


class _Run:
    """The moving parts of one `fit`."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: Trainable,
        data: Sequence[Query],
        journal: Journal,
        evaluate: Callable[[], Scores] | None,
        keep: Callable[[Scores, int], None],
        watcher: Watcher,
        select: str,
    ) -> None:
        self.accelerator, self.model, self.data, self.journal = accelerator, model, data, journal
        self.evaluate, self.keep, self.watcher, self.select = evaluate, keep, watcher, select
        self.progress = Progress()
        self.pending: list[tuple[dict[str, Any], Tensor]] = []
        self.last_saved = self.clock = time.monotonic()
        self.questions = 0  # since the last look at the losses
        self.micro: int | None = None  # rows on the device at once; None: the whole batch

    def prepare(self, *, learning_rate: float, weight_decay: float, average: float) -> None:
        """Move to the device, wrap for several processes, and take up the newest checkpoint."""
        check_sharing(getattr(self.accelerator.state, "fsdp_plugin", None))
        optimizer = adamw(self.model.module, learning_rate=learning_rate, weight_decay=weight_decay)
        self.module, self.optimizer = self.accelerator.prepare(self.model.module, optimizer)
        self.average = WeightAverage(self.model.module, average)
        self.accelerator.register_for_checkpointing(self.average)
        if checkpoint := self.journal.checkpoint():
            self.accelerator.load_state(str(checkpoint))
            self.progress = read_progress(checkpoint)
            if self.accelerator.is_main_process:
                self.journal.forget_after(self.progress.step)

    def load(self, steps: list[list[Batch]], plan: BatchPlan, workers: int) -> Iterator[list[dict[str, Tensor]]]:
        """The batches of each step, collated, this process's share of them."""
        rank = self.accelerator.process_index
        parts = [[p for batch in step for p in pieces(plan.share(batch, rank), self.micro)] for step in steps]
        shares = [part for step in parts for part in step]
        order = torch.Generator()  # its own: the loader must not draw from the generator that a resumed run continues
        data = cast("Dataset[Query]", self.data)
        loader = iter(
            DataLoader(data, batch_sampler=shares, collate_fn=self.model.collate, num_workers=workers, generator=order)
        )
        for step in parts:
            yield [send_to_device(next(loader), self.accelerator.device) for _ in step]

    def halve(self, error: torch.OutOfMemoryError, batch_size: int, *, fixed: bool) -> None:
        """Take half as many rows at once from here on; raises `TrainingError` where that cannot be."""
        self.optimizer.zero_grad()
        size = self.micro or batch_size
        if size == 1 or fixed or self.accelerator.num_processes > 1:
            raise TrainingError(
                f"the device ran out of memory with {size} questions at once ({str(error).split('.')[0]}); "
                f"{self.journal.kept()}: set a smaller training.micro_batch, model.gradient_checkpointing: true, "
                "a smaller checkpoint or 4-bit weights, or use a larger GPU"
            ) from error
        self.micro = size // 2
        if self.accelerator.is_main_process:
            self.journal.log([{"step": self.progress.step, "micro_batch": self.micro}])

    def step(self, batches: list[dict[str, Tensor]], learning_rate: float, clip: float) -> None:
        """One optimizer step over all the batches."""
        self.module.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        items = sum(batch["supervised"] for batch in batches)
        items = self.accelerator.reduce(items, "sum")
        # several processes' gradients are averaged, so each contributes as many times over as there are processes
        scale = self.accelerator.num_processes / items
        losses = []
        for number, batch in enumerate(batches, 1):
            with nullcontext() if number == len(batches) else self.accelerator.no_sync(self.module):
                with self.accelerator.autocast():
                    loss = self.module(batch)
                self.accelerator.backward(loss * scale)
            losses.append(loss.detach())
        self.accelerator.clip_grad_norm_(self.module.parameters(), clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update()
        self._note(sum(losses), int(items), learning_rate)

    def _note(self, loss_sum: Any, items: int, learning_rate: float) -> None:
        progress = self.progress
        progress.step += 1
        progress.batch += 1
        loss = self.accelerator.reduce(loss_sum, "sum")
        row = {"step": progress.step, "epoch": progress.epoch + 1, "items": items, "lr": learning_rate}
        self.pending.append((row, loss))
        self.questions += items
        if progress.step % _LOG_STEPS == 0 or time.monotonic() - self.clock > _LOG_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Look at the losses since the last look: stop on one that is no number, write down the rest."""
        if not self.pending:
            return
        rows = [row | {"loss": float(loss) / row["items"]} for row, loss in self.pending]
        self.pending.clear()
        good = [row for row in rows if math.isfinite(row["loss"])]
        now = time.monotonic()
        seconds, self.clock = now - self.clock, now
        self.progress.seconds += seconds
        speed, self.questions = self.questions / max(seconds, 1e-9), 0
        self.progress.loss_sum += sum(row["loss"] * row["items"] for row in good)
        self.progress.loss_items += sum(row["items"] for row in good)
        if self.accelerator.is_main_process:
            self.journal.log([row | {"questions_per_second": round(speed, 1)} for row in good])
            if good:
                self.accelerator.log({"loss": good[-1]["loss"], "lr": good[-1]["lr"]}, step=self.progress.step)
                mean = sum(row["loss"] for row in good) / len(good)
                self.watcher.step(
                    done=self.progress.step,
                    epoch=self.progress.epoch + 1,
                    loss=mean,
                    questions_per_second=speed,
                )
        if len(good) < len(rows):
            bad = next(row for row in rows if not math.isfinite(row["loss"]))
            raise TrainingError(
                f"the loss became {bad['loss']} at step {bad['step']} (learning rate {bad['lr']:.2g}); "
                f"{self.journal.kept()}: lower training.learning_rate, or use precision fp32 or bf16, and start afresh"
            )

    def save(self) -> None:
        """Write a checkpoint, after making sure that the losses up to it are numbers."""
        self.flush()
        self.accelerator.wait_for_everyone()
        if self.accelerator.num_processes == 1:
            self.journal.save(self.progress, self._save_state)
        else:
            self._save_together()
        self.last_saved = time.monotonic()

    def _save_together(self) -> None:
        """Every process adds its random state to one folder before the main one declares it complete."""
        shared = self.journal.folder / "checkpoints" / "together"
        self.accelerator.save_state(str(shared))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self.journal.save(self.progress, lambda folder: _move_into(shared, folder))
        self.accelerator.wait_for_everyone()

    def _save_state(self, folder: Path) -> None:
        self.accelerator.save_state(str(folder))

    def end_epoch(self, *, score: bool) -> None:
        """Score, keep the model if it is the best, and write a checkpoint."""
        self.flush()
        progress = self.progress
        progress.epoch, progress.batch = progress.epoch + 1, 0
        train_loss = progress.loss_sum / max(progress.loss_items, 1)
        progress.loss_sum, progress.loss_items = 0.0, 0
        if score and self.evaluate is not None:
            if self.accelerator.is_main_process or is_sharded(self.module):
                self._score(train_loss)
            shared = [progress.best, progress.best_epoch, progress.stale]
            broadcast_object_list(shared)
            progress.best, progress.best_epoch, progress.stale = shared  # type: ignore[assignment]
            self.clock = time.monotonic()
            self.save()

    def _score(self, train_loss: float) -> None:
        progress = self.progress
        began = time.monotonic()
        with self.average.swapped_in():
            with unsharded_outside_layers(self.module):
                scores = dict(self.evaluate()) if self.evaluate else {}
            best = self.select != "last" and (progress.best is None or scores[self.select] > progress.best)
            if best:
                progress.best, progress.best_epoch, progress.stale = scores[self.select], progress.epoch, 0
                self._keep(scores)
            else:
                progress.stale += 1
        progress.seconds += time.monotonic() - began
        if not self.accelerator.is_main_process:
            return
        row = {
            "step": progress.step,
            "epoch": progress.epoch,
            "train_loss": train_loss,
            **scores,
            "best": best,
        }
        self.journal.log([row | {"seconds": round(progress.seconds, 2)}])
        self.accelerator.log({f"validation/{k}": v for k, v in scores.items()}, step=progress.step)
        self.watcher.score(epoch=progress.epoch, train_loss=train_loss, scores=scores, best=best)

    def _keep(self, scores: Scores) -> None:
        with disk_errors(self.journal.folder, kept=self.journal.kept()):
            self.keep(scores, self.progress.epoch)

    def keep_last(self) -> None:
        """Save the weights as they ended."""
        if self.accelerator.is_main_process or is_sharded(self.module):
            with self.average.swapped_in():
                with unsharded_outside_layers(self.module):
                    scores = self.evaluate() if self.evaluate else {}
                self._keep(scores)


def check_sharing(plugin: Any) -> None:
    """Raise `ConfigError` on an FSDP configuration that would lose weights or wait for ever."""
    if plugin is not None and (plugin.fsdp_version != 2 or plugin.cpu_ram_efficient_loading):
        # a module's state holds its trained part alone, so frozen weights cannot be handed on through it
        raise ConfigError(
            "FSDP was configured in a way that cannot work here: expected fsdp_version: 2 and "
            "fsdp_cpu_ram_efficient_loading: false; begin with recipes/accelerate/fsdp.yaml"
        )


def _out_of_patience(progress: Progress, patience: int | None) -> bool:
    return patience is not None and progress.stale >= patience


def _chunks(batches: list[Batch], size: int) -> list[list[Batch]]:
    return [batches[start : start + size] for start in range(0, len(batches), size)]


def _move_into(source: Path, folder: Path) -> None:
    for path in source.iterdir():
        path.rename(folder / path.name)
    source.rmdir()

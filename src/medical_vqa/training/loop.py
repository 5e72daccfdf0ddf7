"""The training loop. It knows no model family and no dataset.

One step: `accumulate` batches, their losses summed, divided by the number of supervised items over all batches and
processes (so that one big batch, many small ones, or several processes give the same gradient), clipped, applied.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration, broadcast_object_list, send_to_device
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from medical_vqa.errors import ConfigError, TrainingError
from medical_vqa.models.base import Query, Trainable
from medical_vqa.models.fsdp import is_sharded, unsharded_outside_layers
from medical_vqa.runtime.devices import seed_everything
from medical_vqa.training.batching import Batch, BatchPlan, split
from medical_vqa.training.journal import Journal, Progress, explain_full_disk, read_progress
from medical_vqa.training.optimizer import WeightAverage, adamw, schedule
from medical_vqa.training.processes import process_group_timeout
from medical_vqa.training.settings import Callbacks, FitResult, Scores, TrainingSettings

# it warns about every checkpoint with weights under two names, such as a tied head, which is stored once
logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)

_LOG_STEPS = 10
_LOG_SECONDS = 2.0
"""Losses are read after so many steps or seconds, because reading them waits for the device."""


def fit(
    model: Trainable,
    queries: Sequence[Query],
    *,
    images: Sequence[str],
    lengths: Sequence[int] | None = None,
    weights: Sequence[float] | None = None,
    settings: TrainingSettings,
    callbacks: Callbacks,
    journal: Journal,
) -> FitResult:
    """Train a model, resuming from the journal's checkpoint if there is one.

    Args:
        model: The model to train, in place.
        queries: The training rows, with their targets.
        images: The image that each row asks about.
        lengths: Length of each row, in any unit; rows of similar length share a batch. None orders rows at random.
        weights: How often an epoch takes each row; None for once.
        settings: Length, batches, optimizer and schedule.
        callbacks: Evaluation, saving and progress.
        journal: The run folder.

    Returns:
        How the run ended.

    Raises:
        ConfigError: The FSDP configuration cannot work.
        TrainingError: The loss is not a number, the disk is full, or one row needs more memory than the device has.
    """
    AcceleratorState._reset_state()  # an earlier run in this process may have had another precision
    accelerator = Accelerator(
        mixed_precision={"fp32": "no"}.get(settings.precision, settings.precision),
        cpu=settings.device == "cpu",
        log_with=list(settings.trackers) or None,
        project_config=ProjectConfiguration(project_dir=str(journal.folder)),
        kwargs_handlers=[
            process_group_timeout(),
            DistributedDataParallelKwargs(find_unused_parameters=model.partly_unused),
        ],
    )
    seed_everything(settings.seed)
    plan = BatchPlan(
        images, settings.batch_size, settings.grouping, settings.seed, accelerator.num_processes, lengths, weights
    )
    run = _TrainingRun(accelerator, model, queries, plan, settings, callbacks, journal)
    progress = run.progress
    while progress.epoch < settings.epochs and not run.out_of_patience:
        try:
            for batches in run.remaining_steps():
                run.step(batches)
                if time.monotonic() - run.last_saved > 60 * settings.checkpoint_minutes:
                    run.save_checkpoint()
        except torch.OutOfMemoryError as error:
            run.halve_micro_batch(error)
            continue  # with the step that did not fit
        run.end_epoch()
    if settings.select == "last" or callbacks.evaluate is None:
        run.save_last_model()
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return FitResult(progress.step, progress.best_epoch, progress.epoch < settings.epochs, progress.seconds)


class _TrainingRun:
    """The state of one `fit`: wrapped module, optimizer, progress, and losses that are not logged yet."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: Trainable,
        queries: Sequence[Query],
        plan: BatchPlan,
        settings: TrainingSettings,
        callbacks: Callbacks,
        journal: Journal,
    ) -> None:
        """Move the model to the device, wrap it for several processes, and load the newest checkpoint."""
        self.accelerator = accelerator
        self.model = model
        self.queries = queries
        self.plan = plan
        self.settings = settings
        self.callbacks = callbacks
        self.journal = journal
        self.progress = Progress()
        self.unlogged_losses: list[tuple[dict[str, Any], Tensor]] = []
        self.unlogged_items = 0
        self.last_logged = time.monotonic()
        self.micro_batch = None if settings.micro_batch == "auto" else settings.micro_batch  # None: the whole batch
        check_fsdp(getattr(accelerator.state, "fsdp_plugin", None))
        optimizer = adamw(
            model.module,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            factors=model.learning_rate_factors,
            name=settings.optimizer,
        )
        self.module, self.optimizer = accelerator.prepare(model.module, optimizer)
        self.average = WeightAverage(model.module, settings.average)
        accelerator.register_for_checkpointing(self.average)
        self._resume()
        if settings.trackers:
            config = {"learning_rate": settings.learning_rate, "batch_size": settings.batch_size}
            accelerator.init_trackers("medical-vqa", config=config)
        self.total_steps = sum(math.ceil(len(plan.epoch(e)) / settings.accumulate) for e in range(settings.epochs))
        if accelerator.is_main_process:
            processes = f"{accelerator.num_processes} process{'es' if accelerator.num_processes > 1 else ''}"
            device = f"{accelerator.device.type}, {settings.precision}, {processes}"
            callbacks.watcher.begin(total_steps=self.total_steps, done_steps=self.progress.step, device=device)
        self.last_saved = time.monotonic()

    def _resume(self) -> None:
        if checkpoint := self.journal.checkpoint():
            self.accelerator.load_state(str(checkpoint))
            self.progress = read_progress(checkpoint)
            if self.accelerator.is_main_process:
                self.journal.drop_rows_after(self.progress.step)

    @property
    def out_of_patience(self) -> bool:
        """Whether the score has not improved for as long as the settings allow."""
        return self.settings.patience is not None and self.progress.stale >= self.settings.patience

    def remaining_steps(self) -> Iterator[list[dict[str, Tensor]]]:
        """The collated batches of each step that is left of the epoch, this process's part of them.

        Every process has the same number of batches. One that has no rows for a batch repeats one, with no supervised
        item: it takes part in every exchange and adds nothing to the gradient.
        """
        batches, size = self.plan.epoch(self.progress.epoch), self.settings.accumulate
        steps = [batches[start : start + size] for start in range(0, len(batches), size)][self.progress.batch :]
        rank = self.accelerator.process_index
        parts = [[part for batch in step for part in self._parts(rank, batch)] for step in steps]
        loader = iter(
            DataLoader(
                cast("Dataset[Query]", self.queries),
                batch_sampler=[rows for step in parts for rows, _ in step],
                collate_fn=self.model.collate,
                num_workers=self.settings.workers,
                generator=torch.Generator(),  # the loader must not draw from the one whose state a checkpoint stores
            )
        )
        for step in parts:
            yield [self._on_device(next(loader), repeated=repeated) for _, repeated in step]

    def _parts(self, rank: int, batch: Batch) -> list[tuple[Batch, bool]]:
        """The parts of a batch that a process takes, and whether each only repeats a row."""
        processes = range(self.accelerator.num_processes)
        of_all = [split(rows, self.micro_batch) if (rows := self.plan.rows_of(p, batch)) else [] for p in processes]
        missing = max(map(len, of_all)) - len(of_all[rank])
        return [(part, False) for part in of_all[rank]] + [(batch[:1], True)] * missing

    def _on_device(self, batch: dict[str, Tensor], *, repeated: bool) -> dict[str, Tensor]:
        if repeated:
            batch = batch | {"supervised": torch.zeros_like(batch["supervised"])}
        on_device: dict[str, Tensor] = send_to_device(batch, self.accelerator.device)
        return on_device

    def halve_micro_batch(self, error: torch.OutOfMemoryError) -> None:
        """Put half as many rows on the device from here on; raises `TrainingError` where that cannot help."""
        self.optimizer.zero_grad()
        size = self.micro_batch or self.settings.batch_size
        if size == 1 or self.settings.micro_batch != "auto" or self.accelerator.num_processes > 1:
            raise TrainingError(
                f"the device ran out of memory with {size} questions at once ({str(error).split('.')[0]}); "
                f"{self.journal.checkpoint_status()}: set a smaller training.micro_batch, "
                "model.gradient_checkpointing: true, a smaller checkpoint or 4-bit weights, or use a larger GPU"
            ) from error
        self.micro_batch = size // 2
        if self.accelerator.is_main_process:
            self.journal.log([{"step": self.progress.step, "micro_batch": self.micro_batch}])

    def step(self, batches: list[dict[str, Tensor]]) -> None:
        """One optimizer step over all the batches."""
        factor = schedule(self.progress.step, total=self.total_steps, warmup=self.settings.warmup)
        learning_rate = self.settings.learning_rate * factor
        self.module.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["factor"]
        items = sum(batch["supervised"] for batch in batches)
        items = self.accelerator.reduce(items, "sum")
        # gradients of several processes are averaged, so each contributes as many times over as there are processes
        scale = self.accelerator.num_processes / items
        losses = []
        for number, batch in enumerate(batches, 1):
            with nullcontext() if number == len(batches) else self.accelerator.no_sync(self.module):
                with self.accelerator.autocast():
                    loss = self.module(batch) * (batch["supervised"] > 0)  # a repeated row teaches nothing
                self.accelerator.backward(loss * scale)
            losses.append(loss.detach())
        self.accelerator.clip_grad_norm_(self.module.parameters(), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update()
        self._record(sum(losses), int(items), learning_rate)

    def _record(self, loss_sum: Any, items: int, learning_rate: float) -> None:
        """Count the step; its loss stays on the device until the losses are logged."""
        progress = self.progress
        progress.step += 1
        progress.batch += 1
        row = {"step": progress.step, "epoch": progress.epoch + 1, "items": items, "lr": learning_rate}
        self.unlogged_losses.append((row, self.accelerator.reduce(loss_sum, "sum")))
        self.unlogged_items += items
        if progress.step % _LOG_STEPS == 0 or time.monotonic() - self.last_logged > _LOG_SECONDS:
            self.log_losses()

    def log_losses(self) -> None:
        """Read the losses since the last log and write them down; raises `TrainingError` on one that is not finite."""
        if not self.unlogged_losses:
            return
        rows = [row | {"loss": float(loss) / row["items"]} for row, loss in self.unlogged_losses]
        finite = [row for row in rows if math.isfinite(row["loss"])]
        now = time.monotonic()
        seconds = now - self.last_logged
        speed = self.unlogged_items / max(seconds, 1e-9)
        self.last_logged = now
        self.unlogged_losses.clear()
        self.unlogged_items = 0
        progress = self.progress
        progress.seconds += seconds
        progress.loss_sum += sum(row["loss"] * row["items"] for row in finite)
        progress.loss_items += sum(row["items"] for row in finite)
        if self.accelerator.is_main_process:
            self.journal.log([row | {"questions_per_second": round(speed, 1)} for row in finite])
            if finite:
                self.accelerator.log({"loss": finite[-1]["loss"], "lr": finite[-1]["lr"]}, step=progress.step)
                self.callbacks.watcher.step(
                    done=progress.step,
                    epoch=progress.epoch + 1,
                    loss=sum(row["loss"] for row in finite) / len(finite),
                    questions_per_second=speed,
                )
        if len(finite) < len(rows):
            bad = next(row for row in rows if not math.isfinite(row["loss"]))
            raise TrainingError(
                f"the loss became {bad['loss']} at step {bad['step']} (learning rate {bad['lr']:.2g}); "
                f"{self.journal.checkpoint_status()}: lower training.learning_rate, or use precision fp32 or bf16, "
                "and start afresh"
            )

    def save_checkpoint(self) -> None:
        """Write a checkpoint, after checking that the losses up to it are finite."""
        self.log_losses()
        accelerator = self.accelerator
        accelerator.wait_for_everyone()
        if accelerator.num_processes == 1:
            self.journal.save(self.progress, lambda folder: accelerator.save_state(str(folder)))
        else:  # each process adds its random state to one folder before the main one declares it complete
            shared = self.journal.folder / "checkpoints" / "shared"
            accelerator.save_state(str(shared))
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                self.journal.save(self.progress, lambda folder: _move_contents(shared, folder))
            accelerator.wait_for_everyone()
        self.last_saved = time.monotonic()

    def end_epoch(self) -> None:
        """Evaluate where it is due, save the model if it is the best, and write a checkpoint."""
        self.log_losses()
        progress = self.progress
        progress.epoch += 1
        progress.batch = 0
        train_loss = progress.loss_sum / max(progress.loss_items, 1)
        progress.loss_sum = 0.0
        progress.loss_items = 0
        due = progress.epoch % self.settings.evaluate_every == 0 or progress.epoch == self.settings.epochs
        if due and self.callbacks.evaluate is not None:
            self._evaluate(train_loss)
            best = [progress.best, progress.best_epoch, progress.stale]
            broadcast_object_list(best)
            progress.best, progress.best_epoch, progress.stale = best  # type: ignore[assignment]
            self.last_logged = time.monotonic()
            self.save_checkpoint()

    def _evaluate(self, train_loss: float) -> None:
        progress, select = self.progress, self.settings.select
        start = time.monotonic()
        with self.average.swapped_in():
            scores = self._scores()
            best = select != "last" and (progress.best is None or scores[select] > progress.best)
            if best:
                progress.best = scores[select]
                progress.best_epoch = progress.epoch
                progress.stale = 0
                self._save_model(scores)
            else:
                progress.stale += 1
        progress.seconds += time.monotonic() - start
        if not self.accelerator.is_main_process:
            return
        row = {"step": progress.step, "epoch": progress.epoch, "train_loss": train_loss, **scores, "best": best}
        self.journal.log([row | {"seconds": round(progress.seconds, 2)}])
        self.accelerator.log({f"validation/{k}": v for k, v in scores.items()}, step=progress.step)
        self.callbacks.watcher.score(epoch=progress.epoch, train_loss=train_loss, scores=scores, best=best)

    def save_last_model(self) -> None:
        """Save the model with the weights of the last step."""
        with self.average.swapped_in():
            self._save_model(self._scores())

    def _scores(self) -> Scores:
        with unsharded_outside_layers(self.module):
            return dict(self.callbacks.evaluate()) if self.callbacks.evaluate else {}

    def _save_model(self, scores: Scores) -> None:
        if not self.accelerator.is_main_process and not is_sharded(self.module):
            return
        with explain_full_disk(self.journal.folder, status=self.journal.checkpoint_status()):
            self.callbacks.save(scores, self.progress.epoch)


def check_fsdp(plugin: Any) -> None:
    """Raise `ConfigError` on an FSDP configuration that would lose weights or wait for ever."""
    if plugin is not None and (plugin.fsdp_version != 2 or plugin.cpu_ram_efficient_loading):
        # a module's state holds its trained part alone, so frozen weights cannot be sent to others through it
        raise ConfigError(
            "FSDP was configured in a way that cannot work here: expected fsdp_version: 2 and "
            "fsdp_cpu_ram_efficient_loading: false; begin with recipes/accelerate/fsdp.yaml"
        )


def _move_contents(source: Path, folder: Path) -> None:
    for path in source.iterdir():
        path.rename(folder / path.name)
    source.rmdir()

"""The run folder: recipe, environment, metrics, and the checkpoint from which an interrupted run resumes.

runs/slake-compact/
  recipe.yaml        the resolved recipe
  environment.json   versions, git revision, device and precision with the reason, dataset manifest hash
  metrics.jsonl      one row per step {"step": 7, "loss": 1.9, ...} and per score {"epoch": 3, "em": 0.78, ...}
  checkpoints/       step-00000120: the newest complete state; replaced only once a newer one is complete
  bundle/            the best model so far
  finished.json      written last: the run is complete
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medical_vqa.errors import TrainingError
from medical_vqa.io import atomic_write
from medical_vqa.schema.records import read_jsonl


@dataclass(slots=True)
class Progress:
    """How far a run has come; with a checkpoint's tensors, enough to resume as if nothing had happened."""

    epoch: int = 0
    """Complete epochs."""
    batch: int = 0
    """Optimizer steps taken in the current epoch."""
    step: int = 0
    """Optimizer steps in all."""
    best: float | None = None
    """Best selection score so far."""
    best_epoch: int | None = None
    """Complete epochs at the best score."""
    stale: int = 0
    """Evaluations since the best score."""
    seconds: float = 0.0
    """Wall-clock time, over all resumptions."""
    loss_sum: float = 0.0
    """Loss of the current epoch, summed over its supervised items."""
    loss_items: int = 0
    """Number of supervised items in `loss_sum`."""


class Journal:
    """Reads and writes a run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics_path = folder / "metrics.jsonl"
        self.bundle = folder / "bundle"
        self._checkpoints = folder / "checkpoints"

    @property
    def finished(self) -> bool:
        """Whether the run is complete."""
        return (self.folder / "finished.json").is_file()

    def start(self, *, recipe_yaml: str, environment: Mapping[str, Any]) -> None:
        """Create the folder with the recipe and the environment."""
        with explain_full_disk(self.folder, status="nothing was trained yet"):
            atomic_write(self.folder / "recipe.yaml", recipe_yaml)
            atomic_write(self.folder / "environment.json", json.dumps(environment, indent=2) + "\n")

    def clear(self) -> None:
        """Delete the folder of an earlier run."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def manifest(self) -> str | None:
        """Hash of the dataset manifest with which the run was started."""
        path = self.folder / "environment.json"
        return json.loads(path.read_text(encoding="utf-8")).get("dataset_manifest") if path.is_file() else None

    def log(self, rows: list[dict[str, Any]]) -> None:
        """Append rows to ``metrics.jsonl``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (
            explain_full_disk(self.folder, status=self.checkpoint_status()),
            self.metrics_path.open("a", encoding="utf-8") as out,
        ):
            out.write("".join(json.dumps(row) + "\n" for row in rows))

    def rows(self) -> list[dict[str, Any]]:
        """Every row of ``metrics.jsonl``."""
        return list(read_jsonl(self.metrics_path)) if self.metrics_path.is_file() else []

    def drop_rows_after(self, step: int) -> None:
        """Drop the rows that an interrupted run wrote after its last checkpoint; resuming writes them again."""
        if not self.metrics_path.is_file():
            return
        lines = self.metrics_path.read_text(encoding="utf-8").splitlines(keepends=True)
        complete = [line for line in lines if line.endswith("\n")]
        atomic_write(self.metrics_path, "".join(line for line in complete if json.loads(line).get("step", 0) <= step))

    def checkpoint(self) -> Path | None:
        """The newest complete checkpoint."""
        complete = sorted(self._checkpoints.glob("step-*/progress.json"))
        return complete[-1].parent if complete else None

    def checkpoint_status(self) -> str:
        """Which checkpoint is safe on disk, in words, for error messages."""
        newest = self.checkpoint()
        return f"the checkpoint {newest.name} is kept" if newest else "there is no checkpoint yet"

    def save(self, progress: Progress, save_state: Callable[[Path], None]) -> None:
        """Write a checkpoint, then delete the one before it.

        Args:
            progress: Stored with the checkpoint.
            save_state: Writes the tensors into the folder that it receives.

        Raises:
            TrainingError: The disk is full; the checkpoint before stays as it was.
        """
        final = self._checkpoints / f"step-{progress.step:08d}"
        partial = self._checkpoints / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        with explain_full_disk(self.folder, status=self.checkpoint_status()):
            try:
                partial.mkdir(parents=True)
                save_state(partial)
                atomic_write(partial / "progress.json", json.dumps(asdict(progress)))
                shutil.rmtree(final, ignore_errors=True)
                partial.rename(final)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        for older in self._checkpoints.glob("step-*"):
            if older != final:
                shutil.rmtree(older, ignore_errors=True)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Mark the run complete and delete its checkpoints."""
        with explain_full_disk(self.folder, status=self.checkpoint_status()):
            atomic_write(self.folder / "finished.json", json.dumps(summary, indent=2) + "\n")
        shutil.rmtree(self._checkpoints, ignore_errors=True)


def read_progress(checkpoint: Path) -> Progress:
    """The progress stored with a checkpoint."""
    return Progress(**json.loads((checkpoint / "progress.json").read_text(encoding="utf-8")))


@contextmanager
def explain_full_disk(folder: Path, *, status: str) -> Iterator[None]:
    """Turn the error of a full disk, however a library reports it, into a `TrainingError`; other errors pass.

    Args:
        folder: The run folder.
        status: What is safe on disk, in words.
    """
    try:
        yield
    except Exception as error:
        if not _is_full_disk(error):
            raise
        free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
        raise TrainingError(
            f"the disk is full while saving under {folder} ({free // 2**20:,} MiB free); {status}: "
            "free some space and run the same command again to resume"
        ) from error


# torch and safetensors write in native code, and their exceptions carry the system's error in text only
_NATIVE_ERRORS = (
    "No space left on device",
    "File too large",
    "inline_container.cc",
    "iostream error",
    "PytorchStreamWriter",
)


def _is_full_disk(error: BaseException | None) -> bool:
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    return any(text in str(error) for text in _NATIVE_ERRORS) or _is_full_disk(error.__context__)

"""What a remote model spent on a file, written next to it while it grows, so that a crash does not lose the count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa.errors import DataError
from medical_vqa.io import atomic_write

if TYPE_CHECKING:
    from medical_vqa.models.remote.usage import Usage
    from medical_vqa.runtime import ProgressCallback

_BYTES = 256  # of the counts while they grow: always as many, so that one write replaces them


class UsageRecord:
    """``….usage.json`` next to a file of answers: all runs of the command together."""

    def __init__(self, answers: Path, usage: Usage | None) -> None:
        """Read what earlier runs spent.

        Args:
            answers: The file of answers.
            usage: Counter of the model; None for a local one, of which nothing is recorded.

        Raises:
            DataError: The record of earlier runs is damaged.
        """
        self._path = answers.with_name(answers.name.removesuffix(".jsonl") + ".usage.json")
        self._usage = usage
        self._before = usage.to_json() if usage is not None else {}
        self._earlier = _read(self._path) if usage is not None and self._path.is_file() else {}
        self._begun = False

    def watched(self, progress: ProgressCallback | None) -> ProgressCallback | None:
        """A progress callback that also writes the record."""
        if self._usage is None:
            return progress

        def report(done: int, total: int) -> None:
            self._overwrite(self._total())
            if progress is not None:
                progress(done, total)

        return report

    def write(self) -> Usage | None:
        """Write the record; returns what all runs spent, None for a local model."""
        if self._usage is None:
            return None
        from medical_vqa.models.remote.usage import Usage

        counts = self._total()
        atomic_write(self._path, json.dumps(counts, indent=2) + "\n")
        total = Usage()
        for name, count in counts.items():
            setattr(total, name, count)
        return total

    def _total(self) -> dict[str, int]:
        assert self._usage is not None
        counts = self._usage.to_json()
        return {name: self._earlier.get(name, 0) + count - self._before[name] for name, count in counts.items()}

    def _overwrite(self, counts: dict[str, int]) -> None:
        """Replace the counts in place, which takes microseconds and is complete when the process is killed."""
        content = json.dumps(counts).encode().ljust(_BYTES - 1) + b"\n"
        if not self._begun:
            atomic_write(self._path, content.decode())
            self._begun = True
            return
        with self._path.open("r+b", buffering=0) as file:
            file.write(content)


def _read(path: Path) -> dict[str, int]:
    try:
        counts = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): int(count) for name, count in counts.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is no record of usage ({error}); delete it, which counts from zero, and rerun"
        ) from None

"""What a remote model spent on a file, written next to it while it grows, so that a crash does not lose the count."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa.io import atomic_write

if TYPE_CHECKING:
    from medical_vqa.models.remote.usage import Usage
    from medical_vqa.runtime import ProgressCallback

_SECONDS_BETWEEN_WRITES = 1.0


class UsageRecord:
    """``….usage.json`` next to a file of answers: all runs of the command together."""

    def __init__(self, answers: Path, usage: Usage | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Read what earlier runs spent.

        Args:
            answers: The file of answers.
            usage: Counter of the model; None for a local one, of which nothing is recorded.
            clock: Seconds, for the time between two writes.
        """
        self._file = answers.with_name(answers.name.removesuffix(".jsonl") + ".usage.json")
        self._usage = usage
        self._clock = clock
        self._before = usage.to_json() if usage is not None else {}
        is_known = usage is not None and self._file.is_file()
        self._earlier: dict[str, int] = json.loads(self._file.read_text(encoding="utf-8")) if is_known else {}
        self._written = clock()

    def watched(self, progress: ProgressCallback | None) -> ProgressCallback | None:
        """A progress callback that also writes the record, at most once a second."""
        if self._usage is None:
            return progress

        def report(done: int, total: int) -> None:
            if self._clock() - self._written >= _SECONDS_BETWEEN_WRITES:
                self.write()
            if progress is not None:
                progress(done, total)

        return report

    def write(self) -> Usage | None:
        """Write the record; returns what all runs spent, None for a local model."""
        if self._usage is None:
            return None
        from medical_vqa.models.remote.usage import Usage

        total = Usage()
        for name, n in self._usage.to_json().items():
            setattr(total, name, self._earlier.get(name, 0) + n - self._before[name])
        atomic_write(self._file, json.dumps(total.to_json(), indent=2) + "\n")
        self._written = self._clock()
        return total

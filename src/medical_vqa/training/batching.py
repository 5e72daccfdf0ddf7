"""Which questions share an optimizer step: grouped by image, so that an image is encoded once for all of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Grouping = Literal["image", "question"]
Batch = list[int]
_WINDOW = 16  # batches among which rows are sorted by length


@dataclass(frozen=True)
class BatchPlan:
    """Batches of row numbers for every epoch, a function of the seed and the epoch alone.

    With several processes a batch is shared among them, so that two processes with half the batch size each take
    the same steps as one.
    """

    images: Sequence[str]
    """The image of every row."""
    batch_size: int
    """Questions per batch, at most; an image with more of them than that has its questions spread over batches."""
    grouping: Grouping = "image"
    """``question`` is the usual way: rows in random order, their images encoded once per question."""
    seed: int = 0
    """Of the order."""
    processes: int = 1
    """Among how many processes each batch is shared."""
    lengths: Sequence[int] | None = None
    """Of every row, in any unit; where given, rows of like length share a batch, so that less is padded."""

    def epoch(self, number: int) -> list[Batch]:
        """Every row once, in batches."""
        order = random.Random(f"{self.seed}/{number}")
        units = self._units()
        order.shuffle(units)
        batches = self._fill(units if self.lengths is None else self._alike(units))
        if self.lengths is not None:
            order.shuffle(batches)
        return batches

    def _fill(self, units: list[Batch]) -> list[Batch]:
        batches: list[Batch] = [[]]
        for unit in units:
            full = len(batches[-1]) + len(unit) > self.batch_size * self.processes
            if full and len(batches[-1]) >= self.processes:  # no process may be left without a row
                batches.append([])
            batches[-1].extend(unit)
        if len(batches) > 1 and len(batches[-1]) < self.processes:
            batches[-2:] = [batches[-2] + batches[-1]]
        return batches

    def share(self, batch: Batch, process: int) -> Batch:
        """The rows of a batch that one process takes; whole images where there are enough of them."""
        if self.processes == 1:
            return batch
        images = list(dict.fromkeys(self.images[row] for row in batch))
        if len(images) < self.processes:
            return batch[process :: self.processes]
        mine = set(images[process :: self.processes])
        return [row for row in batch if self.images[row] in mine]

    def _alike(self, units: list[Batch]) -> list[Batch]:
        """The units, sorted by length within windows of a few batches: like lengths meet, and chance stays."""
        lengths = self.lengths or ()
        longest = [max(lengths[row] for row in unit) for unit in units]
        mean = len(self.images) / max(1, len(units))
        window = max(1, round(_WINDOW * self.batch_size * self.processes / mean))
        places = range(len(units))
        parts = [sorted(places[start : start + window], key=longest.__getitem__) for start in places[::window]]
        return [units[place] for part in parts for place in part]

    def _units(self) -> list[Batch]:
        """What is never parted: the questions of an image, or single questions."""
        if self.grouping == "question":
            return [[row] for row in range(len(self.images))]
        rows: dict[str, Batch] = {}
        for row, image in enumerate(self.images):
            rows.setdefault(image, []).append(row)
        size = self.batch_size * self.processes
        return [unit[start : start + size] for unit in rows.values() for start in range(0, len(unit), size)]


def pieces(batch: Batch, size: int | None) -> list[Batch]:
    """A batch in parts of at most `size` rows, its order kept so that the questions of an image stay together."""
    return [batch] if size is None else [batch[start : start + size] for start in range(0, len(batch), size)]

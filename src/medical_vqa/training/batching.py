"""Which questions share an optimizer step: grouped by image, so that an image is encoded once for all of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Grouping = Literal["image", "question"]
Batch = list[int]
"""Row numbers."""
_WINDOW_BATCHES = 16
"""Rows are sorted by length within windows of so many batches."""


@dataclass(frozen=True)
class BatchPlan:
    """Batches of row numbers for every epoch, a function of the seed and the epoch alone.

    Several processes divide each batch among them, so that two processes with half the batch size each take the same
    steps as one.
    """

    images: Sequence[str]
    """The image of every row."""
    batch_size: int
    """Most questions per batch and process; an image with more of them is spread over several batches."""
    grouping: Grouping = "image"
    """``image`` keeps the questions of an image together; ``question`` puts rows in random order."""
    seed: int = 0
    """Seed of the order."""
    processes: int = 1
    """Number of processes that divide each batch."""
    lengths: Sequence[int] | None = None
    """Length of every row, in any unit; rows of similar length then share a batch, which reduces padding."""
    weights: Sequence[float] | None = None
    """How often an epoch takes each row; None for once. A fraction is a probability, of an image's rows together."""

    def epoch(self, number: int) -> list[Batch]:
        """Every row once, or as often as its weight says, in batches."""
        order = random.Random(f"{self.seed}/{number}")
        groups = self._groups() if self.weights is None else self._repeated(self._groups(), self.weights, order)
        order.shuffle(groups)
        batches = self._pack(groups if self.lengths is None else self._sorted_by_length(groups))
        if self.lengths is not None:
            order.shuffle(batches)
        return batches

    def rows_of(self, process: int, batch: Batch) -> Batch:
        """The rows of a batch that one process takes, none where there are too few; whole images where possible."""
        if self.processes == 1:
            return batch
        images = list(dict.fromkeys(self.images[row] for row in batch))
        if len(images) < self.processes:
            return batch[process :: self.processes]
        own_images = set(images[process :: self.processes])
        return [row for row in batch if self.images[row] in own_images]

    def _groups(self) -> list[Batch]:
        """Rows that stay together: the questions of an image, or single questions."""
        if self.grouping == "question":
            return [[row] for row in range(len(self.images))]
        rows_of_image: dict[tuple[str, float], Batch] = {}
        for row, image in enumerate(self.images):
            weight = self.weights[row] if self.weights is not None else 1.0
            rows_of_image.setdefault((image, weight), []).append(row)
        size = self.batch_size * self.processes
        return [rows[start : start + size] for rows in rows_of_image.values() for start in range(0, len(rows), size)]

    def _repeated(self, groups: list[Batch], weights: Sequence[float], order: random.Random) -> list[Batch]:
        """Each group as often as its weight says; the first one where all would be left out."""
        copies = [int(weights[group[0]]) + (order.random() < weights[group[0]] % 1) for group in groups]
        return [group for group, count in zip(groups, copies, strict=True) for _ in range(count)] or groups[:1]

    def _sorted_by_length(self, groups: list[Batch]) -> list[Batch]:
        """The groups, sorted by length within windows, so that similar lengths meet and the order stays random."""
        lengths = self.lengths or ()
        longest = [max(lengths[row] for row in group) for group in groups]
        mean_size = len(self.images) / max(1, len(groups))
        window = max(1, round(_WINDOW_BATCHES * self.batch_size * self.processes / mean_size))
        indices = range(len(groups))
        windows = [sorted(indices[start : start + window], key=longest.__getitem__) for start in indices[::window]]
        return [groups[index] for part in windows for index in part]

    def _pack(self, groups: list[Batch]) -> list[Batch]:
        batches: list[Batch] = [[]]
        for group in groups:
            full = len(batches[-1]) + len(group) > self.batch_size * self.processes
            if full and batches[-1]:
                batches.append([])
            batches[-1].extend(group)
        return batches


def split(batch: Batch, size: int | None) -> list[Batch]:
    """A batch in parts of at most `size` rows, in the same order, so that the questions of an image stay together."""
    return [batch] if size is None else [batch[start : start + size] for start in range(0, len(batch), size)]

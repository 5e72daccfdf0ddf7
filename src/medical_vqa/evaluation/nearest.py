"""The label most similar to a text by difflib's ratio, found without comparing them all."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np


class NearestLabel:
    """``NearestLabel(labels)(text)`` is the label with the highest ratio, the first of equals; None where all are 0.

    Letters that two texts share bound their ratio from above (difflib's ``quick_ratio``); the bounds of all labels
    are one matrix operation, and only labels whose bound reaches the best ratio found are compared.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self._column = {letter: n for n, letter in enumerate(sorted({letter for label in labels for letter in label}))}
        self._counts = np.array([self._letters(label) for label in labels], dtype=np.int32).reshape(
            len(labels), len(self._column)
        )
        self._lengths = np.array([len(label) for label in labels])

    def __call__(self, text: str) -> str | None:
        """The nearest label."""
        shared = np.minimum(self._counts, self._letters(text)).sum(axis=1)
        bounds = 2.0 * shared / np.maximum(self._lengths + len(text), 1)
        matcher = difflib.SequenceMatcher(None)
        matcher.set_seq2(text)
        best, found = 0.0, len(self.labels)
        for number in np.argsort(-bounds, kind="stable").tolist():
            if bounds[number] < best or bounds[number] == 0.0:
                break
            matcher.set_seq1(self.labels[number])
            ratio = matcher.ratio()
            if ratio > best or (ratio == best and number < found):
                best, found = ratio, number
        return self.labels[found] if best else None

    def _letters(self, text: str) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        counts = np.zeros(len(self._column), dtype=np.int32)
        for letter in text:
            if letter in self._column:
                counts[self._column[letter]] += 1
        return counts

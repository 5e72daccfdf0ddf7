"""Whether a label is the one most similar to a text by difflib's ratio, found without comparing them all."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

Counts = np.ndarray[tuple[int], np.dtype[np.int32]]


class NearestLabel:
    """``NearestLabel(labels).is_nearest(label, text)``: no label has a higher ratio, and none before it an equal one.

    Letters that two texts share bound their ratio from above (difflib's ``quick_ratio``); the bounds of all labels
    are one matrix operation, only labels whose bound reaches the ratio in question are compared, the most promising
    first, and the first that beats it ends the search.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(dict.fromkeys(labels))
        self._place = {label: number for number, label in enumerate(self.labels)}
        self._column = {letter: n for n, letter in enumerate(sorted({letter for label in labels for letter in label}))}
        counts = [self._letters(label) for label in self.labels]
        self._counts = np.array(counts, dtype=np.int32).reshape(len(counts), len(self._column))
        self._lengths = np.array([len(label) for label in self.labels])

    def is_nearest(self, label: str, text: str) -> bool:
        """Whether `label` is the nearest; False for one that is not among the labels or shares nothing with `text`."""
        if label not in self._place or not (ratio := _ratio(label, text)):
            return False
        shared = np.minimum(self._counts, self._letters(text)).sum(axis=1)
        bounds = 2.0 * shared / np.maximum(self._lengths + len(text), 1)
        rivals = np.flatnonzero(bounds >= ratio)
        return not any(
            (other := _ratio(self.labels[number], text)) > ratio or (other == ratio and number < self._place[label])
            for number in rivals[np.argsort(-bounds[rivals])].tolist()
        )

    def _letters(self, text: str) -> Counts:
        counts = np.zeros(len(self._column), dtype=np.int32)
        for letter in text:
            if letter in self._column:
                counts[self._column[letter]] += 1
        return counts


@lru_cache(maxsize=1 << 18)  # a published rule and its repair ask for much the same pairs
def _ratio(label: str, text: str) -> float:
    matcher = _matcher(text)
    matcher.set_seq1(label)
    return matcher.ratio()


@lru_cache(maxsize=1)
def _matcher(text: str) -> difflib.SequenceMatcher[str]:
    matcher = difflib.SequenceMatcher(None)
    matcher.set_seq2(text)
    return matcher

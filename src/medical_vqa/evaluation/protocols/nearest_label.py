"""Whether a label is the one most similar to a text by difflib's ratio, found without comparing them all."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

CharacterCounts = np.ndarray[tuple[int], np.dtype[np.int32]]


class NearestLabel:
    """``NearestLabel(labels).is_nearest(label, text)``: no label has a higher ratio, and no earlier one an equal ratio.

    Characters that two texts share bound their ratio from above (difflib's ``quick_ratio``). The bounds of all labels
    are one matrix operation; only labels whose bound reaches the ratio in question are compared, the highest bound
    first, and the first that exceeds the ratio ends the search.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(dict.fromkeys(labels))
        self._position = {label: number for number, label in enumerate(self.labels)}
        self._column = {character: n for n, character in enumerate(sorted(set("".join(self.labels))))}
        counts = [self._character_counts(label) for label in self.labels]
        self._counts = np.array(counts, dtype=np.int32).reshape(len(counts), len(self._column))
        self._lengths = np.array([len(label) for label in self.labels])

    def is_nearest(self, label: str, text: str) -> bool:
        """Whether `label` is the nearest; False for one that is not among the labels or shares nothing with `text`."""
        position = self._position.get(label)
        if position is None or not (ratio := _ratio(label, text)):
            return False
        shared = np.minimum(self._counts, self._character_counts(text)).sum(axis=1)
        bounds = 2.0 * shared / np.maximum(self._lengths + len(text), 1)
        candidates = np.flatnonzero(bounds >= ratio)
        for number in candidates[np.argsort(-bounds[candidates])].tolist():
            other = _ratio(self.labels[number], text)
            if other > ratio or (other == ratio and number < position):
                return False
        return True

    def _character_counts(self, text: str) -> CharacterCounts:
        counts = np.zeros(len(self._column), dtype=np.int32)
        for character in text:
            if character in self._column:
                counts[self._column[character]] += 1
        return counts


@lru_cache(maxsize=1 << 18)  # a published rule and its repair compare much the same pairs
def _ratio(label: str, text: str) -> float:
    matcher = _matcher(text)
    matcher.set_seq1(label)
    return matcher.ratio()


@lru_cache(maxsize=1)
def _matcher(text: str) -> difflib.SequenceMatcher[str]:
    matcher = difflib.SequenceMatcher(None)
    matcher.set_seq2(text)
    return matcher

"""What was left out of a series, or is missing in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from medical_vqa.data.imaging.series.slices import Slice

_LISTED = 8  # damaged files and slices in a sentence


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that is in no series, or of which nothing is."""

    file: int
    """Number of the file, from 0, in the order in which the files were given."""
    reason: str
    """Why, in one sentence; never a value of the header."""


@dataclass(slots=True)
class Report:
    """What was left out of a series, or is missing."""

    sentences: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def add(self, code: str, sentence: str, slices: Sequence[Slice] = (), reason: str = "") -> None:
        """Add a code with its sentence, and the files of slices that were left out for a reason."""
        self.sentences.append(sentence)
        self.codes.append(code)
        self.left_out += [LeftOut(one.file, reason) for one in slices]


def listed(parts: Sequence[str]) -> str:
    """The first parts, and how many others there are."""
    further = len(parts) - _LISTED
    return ", ".join(parts[:_LISTED]) + (f" and {further} others" if further > 0 else "")

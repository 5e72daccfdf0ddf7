"""Closed vocabularies: `AnswerVocabulary` (answer <-> class index) and `WordVocabulary` (question word <-> index).

Both are collected from the training split alone, in a deterministic order, so that the same rows give the same model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medical_vqa.errors import ModelError
from medical_vqa.text import is_chinese, squad_normalize

RESERVED_WORDS = ("<padding>", "<unknown>")
"""What the first indices of a `WordVocabulary` stand for; no word is spelled like these."""
_WORD = re.compile(r"[a-z]+|[0-9]+|[^\sa-z0-9]")


def words(question: str) -> list[str]:
    """Lower-case words, numbers and punctuation; every character of a script without spaces is a word."""
    return _WORD.findall(question.lower())


@dataclass(frozen=True)
class AnswerVocabulary:
    """A closed list of answers; spellings that SQuAD's rule does not tell apart share one class."""

    answers: tuple[str, ...]
    """The most frequent spelling of each class, by descending frequency, then alphabetically."""

    @classmethod
    def from_answers(cls, answers: Iterable[str], *, min_count: int = 1) -> AnswerVocabulary:
        """Collect the classes of training answers; raises `ModelError` when there are none."""
        spellings: dict[str, Counter[str]] = {}
        for answer in answers:
            spellings.setdefault(squad_normalize(answer), Counter())[" ".join(answer.split())] += 1
        ranked = sorted(spellings.items(), key=lambda item: (-item[1].total(), item[0]))
        frequent = [counts for key, counts in ranked if key and counts.total() >= min_count]
        if not frequent:
            raise ModelError("no answers to learn: expected training rows with answers; check the split and its filter")
        return cls(tuple(min(counts, key=lambda spelling: (-counts[spelling], spelling)) for counts in frequent))

    @cached_property
    def _index(self) -> dict[str, int]:
        return {squad_normalize(answer): index for index, answer in enumerate(self.answers)}

    @property
    def normalized(self) -> Collection[str]:
        """The classes by SQuAD's rule, in their order."""
        return self._index.keys()

    @cached_property
    def chinese(self) -> NDArray[np.bool_]:
        """Whether each answer is Chinese (answers,)."""
        return np.array([is_chinese(answer) for answer in self.answers], bool)

    def __len__(self) -> int:
        return len(self.answers)

    def index(self, answer: str) -> int:
        """Class of an answer; raises `ModelError` on one that training never saw."""
        try:
            return self._index[squad_normalize(answer)]
        except KeyError:
            raise ModelError(
                f"the answer {answer!r} is not among the {len(self)} answers of the training split; "
                "leave its row out or train with it"
            ) from None

    def __contains__(self, answer: str) -> bool:
        return squad_normalize(answer) in self._index

    def coverage(self, answers: Sequence[str]) -> float:
        """Share of answers that this list holds, in [0, 1]: the best score a classifier over it can reach."""
        return sum(answer in self for answer in answers) / len(answers) if answers else 1.0


@dataclass(frozen=True)
class WordVocabulary:
    """Words of the training questions; index 0 pads and index 1 stands for every other word."""

    known: tuple[str, ...]
    """Words from index 2 on, by falling frequency, then alphabetically."""

    @classmethod
    def from_questions(cls, questions: Iterable[str], *, min_count: int = 1) -> WordVocabulary:
        """Collect the words of training questions."""
        counts = Counter(word for question in questions for word in words(question))
        return cls(tuple(sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w))))

    @cached_property
    def _index(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.known, len(RESERVED_WORDS))}

    def __len__(self) -> int:
        return len(self.known) + len(RESERVED_WORDS)

    def encode(self, question: str, *, limit: int) -> list[int]:
        """Indices of the first `limit` words, at least one."""
        return self.indices(words(question)[:limit])

    def indices(self, read: Sequence[str]) -> list[int]:
        """Indices of words, at least one."""
        return [self._index.get(word, 1) for word in read] or [1]

    def unknown(self, question: str) -> list[str]:
        """Words that training never saw, in their order."""
        return [word for word in words(question) if word not in self._index]

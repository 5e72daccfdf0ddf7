"""The baseline under every score: answers that never look at the image, and the fake model of many tests.

`QuestionLookup` answers a question with the commonest training answer to the same question; a question never seen
gets the commonest answer of its first words, then of all. `Majority` gives the commonest answer to everything.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from medical_vqa.config import ModelOptions
from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.errors import ModelError
from medical_vqa.models.base import ModelFamily, Query, Vision, check_question
from medical_vqa.models.vocabulary import words
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Example, Prediction

if TYPE_CHECKING:
    import torch

Counts = dict[str, int]
_PREFIX_WORDS = 2


class QuestionOnlyOptions(ModelOptions):
    """The commonest training answer to the same question, without an image and without gradient steps."""


class MajorityOptions(ModelOptions):
    """The commonest training answer to every question."""


class QuestionLookup(ModelFamily):
    """Question (as words) -> answer counts of the training split."""

    family = "question-only"
    Options: ClassVar[type[ModelOptions]] = QuestionOnlyOptions
    trainable = True
    counted = True
    uses_image = False
    picture: PictureSpec | None = None
    vision: Vision | None = None

    def __init__(self, *, exact: Mapping[str, Counts], prefix: Mapping[str, Counts], every: Counts) -> None:
        if not every:
            raise ModelError("the baseline needs training rows with answers, got none; check the split and its filter")
        self.exact, self.prefix, self.every = exact, prefix, every

    @classmethod
    def fit(cls, examples: Sequence[Example]) -> Self:
        """Count the first accepted answer of each example that has one."""
        exact: defaultdict[str, Counter[str]] = defaultdict(Counter)
        prefix: defaultdict[str, Counter[str]] = defaultdict(Counter)
        every: Counter[str] = Counter()
        for example in examples:
            if example.answers:
                key, start = _keys(example.question)
                for counter in (exact[key], prefix[start], every):
                    counter[example.answers[0]] += 1
        return cls(exact=exact, prefix=prefix, every=every)

    def answer(self, queries: Sequence[Query], decoding: Decoding) -> list[Prediction]:
        """The commonest training answer to each question; its share is the confidence."""
        return [self._answer(query, decoding) for query in queries]

    def _answer(self, query: Query, decoding: Decoding) -> Prediction:
        key, start = _keys(check_question(query.question))
        counts = self.exact.get(key) or self.prefix.get(start) or self.every
        return _most_common(query.id, counts, decoding.alternatives)

    def save(self, folder: Path) -> None:
        """Write the counts as JSON."""
        state = {"exact": self.exact, "prefix": self.prefix, "every": self.every}
        (folder / "baseline.json").write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, *, device: torch.device | None = None) -> Self:  # noqa: ARG003 - runs on the CPU
        """Read back what `save` wrote."""
        return cls(**json.loads((folder / "baseline.json").read_text(encoding="utf-8")))

    def describe(self) -> dict[str, Any]:
        """How many questions and answers it knows."""
        return {"questions": len(self.exact), "answers": len(self.every)}


class Majority(QuestionLookup):
    """The commonest training answer to everything."""

    family = "majority"
    Options = MajorityOptions

    def _answer(self, query: Query, decoding: Decoding) -> Prediction:
        check_question(query.question)
        return _most_common(query.id, self.every, decoding.alternatives)


def _keys(question: str) -> tuple[str, str]:
    parts = words(question)
    return " ".join(parts), " ".join(parts[:_PREFIX_WORDS])


def _most_common(id_: str, counts: Counts, alternatives: int) -> Prediction:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: alternatives + 1]
    total = sum(counts.values())
    shares = [(answer, count / total) for answer, count in ranked]
    (answer, confidence), *rest = shares
    return Prediction(id_, answer, answer, confidence, tuple(rest))

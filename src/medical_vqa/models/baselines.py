"""Baselines that ignore the image: every score is compared with them.

`QuestionLookup` gives the most frequent training answer to the same question; a new question gets the most frequent
answer to questions with the same first words, then of all. `Majority` gives the most frequent answer to everything.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
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
    """The most frequent training answer to the same question, without an image and without gradient steps."""


class MajorityOptions(ModelOptions):
    """The most frequent training answer to every question."""


class QuestionLookup(ModelFamily):
    """The most frequent training answer to the same question."""

    family = "question-only"
    Options: ClassVar[type[ModelOptions]] = QuestionOnlyOptions
    trainable = True
    counted = True
    uses_image = False
    picture: PictureSpec | None = None
    vision: Vision | None = None

    def __init__(self, *, by_question: Mapping[str, Counts], by_prefix: Mapping[str, Counts], overall: Counts) -> None:
        """Keep counts of training answers.

        Args:
            by_question: Words of a question -> answer -> count.
            by_prefix: First words of a question -> answer -> count.
            overall: Answer -> count.

        Raises:
            ModelError: There is no answer at all.
        """
        if not overall:
            raise ModelError("the baseline needs training rows with answers, got none; check the split and its filter")
        self.by_question = by_question
        self.by_prefix = by_prefix
        self.overall = overall

    @classmethod
    def fit(cls, examples: Sequence[Example]) -> Self:
        """Count the first accepted answer of each example that has one."""
        by_question: defaultdict[str, Counter[str]] = defaultdict(Counter)
        by_prefix: defaultdict[str, Counter[str]] = defaultdict(Counter)
        overall: Counter[str] = Counter()
        for example in examples:
            if example.answers:
                question, prefix = _keys(example.question)
                for counter in (by_question[question], by_prefix[prefix], overall):
                    counter[example.answers[0]] += 1
        return cls(by_question=by_question, by_prefix=by_prefix, overall=overall)

    def answer(self, queries: Sequence[Query], decoding: Decoding) -> list[Prediction]:
        """The most frequent training answer to each question; its fraction of the counts is the confidence."""
        ranked: dict[int, Prediction] = {}  # the counts behind an answer, which many questions share, are ranked once
        predictions = []
        for query in queries:
            question, prefix = _keys(check_question(query.question))
            counts = self.by_question.get(question) or self.by_prefix.get(prefix) or self.overall
            if id(counts) not in ranked:
                ranked[id(counts)] = _most_common(counts, decoding.alternatives)
            predictions.append(same_answer(ranked[id(counts)], query.id))
        return predictions

    def save(self, folder: Path) -> None:
        """Write the counts as JSON."""
        state = {"by_question": self.by_question, "by_prefix": self.by_prefix, "overall": self.overall}
        (folder / "baseline.json").write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, *, device: torch.device | None = None) -> Self:  # noqa: ARG003 - runs on the CPU
        """Read back what `save` wrote."""
        return cls(**json.loads((folder / "baseline.json").read_text(encoding="utf-8")))

    def describe(self) -> dict[str, Any]:
        """Number of questions and answers."""
        return {"questions": len(self.by_question), "answers": len(self.overall)}


class Majority(QuestionLookup):
    """The most frequent training answer to everything."""

    family = "majority"
    Options = MajorityOptions

    def answer(self, queries: Sequence[Query], decoding: Decoding) -> list[Prediction]:
        """The most frequent training answer, to each question; its fraction of the counts is the confidence."""
        for query in queries:
            check_question(query.question)
        answer = _most_common(self.overall, decoding.alternatives)
        return [same_answer(answer, query.id) for query in queries]


@lru_cache(maxsize=1 << 16)
def _keys(question: str) -> tuple[str, str]:
    """The words of a question, and its first words."""
    parts = words(question)
    return " ".join(parts), " ".join(parts[:_PREFIX_WORDS])


def _most_common(counts: Counts, alternatives: int) -> Prediction:
    """The most frequent answer, for no question yet."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: alternatives + 1]
    total = sum(counts.values())
    (answer, confidence), *others = [(answer, count / total) for answer, count in ranked]
    return Prediction("", answer, answer, confidence, tuple(others))


def same_answer(answer: Prediction, id_: str) -> Prediction:
    """The answer of a baseline, to another question."""
    return Prediction(id_, answer.answer, answer.raw, answer.confidence, answer.alternatives)

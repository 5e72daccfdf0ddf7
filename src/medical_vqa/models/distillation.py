"""Distilling an ensemble: compact models that were trained before say what they think of every batch.

G. Hinton, O. Vinyals, J. Dean, "Distilling the knowledge in a neural network", 2015. What several models think on the
whole is learned beside the answers, and also of questions that nobody answered, which only they can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from medical_vqa.errors import ModelError
from medical_vqa.records import Example

if TYPE_CHECKING:
    from medical_vqa.models.compact import Compact
    from medical_vqa.models.compact_net import CompactNet

UNKNOWN = 1  # the index of a word that a vocabulary does not hold
AT_ONCE = 2
"""Teachers asked about a batch, drawn anew each time: on the whole the gradient is that of all, and costs less."""


class Teachers:
    """Trained networks asked about a student's batch, each about the questions whose every word it knows."""

    def __init__(
        self, nets: Sequence[CompactNet], words: Sequence[Tensor], answers: Sequence[Tensor], weight: float
    ) -> None:
        """Teacher i knows each word of the student (student words,) as ``words[i]``.

        Each of its own answers (its answers,) is the student's answer ``answers[i]``.
        """
        self.weight = weight
        """Share of their opinion in the loss of what they are asked; the rest is that of the answer."""
        self._nets = [net.eval().requires_grad_(False) for net in nets]
        self._words, self._answers = list(words), list(answers)

    @classmethod
    def of(cls, teachers: Mapping[str, Compact], student: Compact, weight: float) -> Self:
        """Trained models by their names; raises `ModelError` where one sees other pictures or has other answers."""
        for name, teacher in teachers.items():
            if teacher.picture != student.picture or any(a not in student.answers for a in teacher.answers.answers):
                raise ModelError(
                    f"the teacher {name} sees other pictures than its student or has answers that it lacks; "
                    "train it on the same rows, or some of them, with the same model.picture"
                )
        models = teachers.values()
        words = [torch.tensor([0, UNKNOWN, *t.words.indices(student.words.known)]) for t in models]
        answers = [torch.tensor([student.answers.index(answer) for answer in t.answers.answers]) for t in models]
        return cls([teacher.module for teacher in models], words, answers, weight)

    @torch.no_grad()
    def opinion(self, pictures: Tensor, image_of: Tensor, words: Tensor, answers: int) -> tuple[Tensor, Tensor]:
        """What the teachers think on the whole, and which questions one of them was asked.

        Args:
            pictures: (B, 1, H, W) in [0, 1].
            image_of: (N,).
            words: (N, L), the student's.
            answers: How many the student has.

        Returns:
            Probabilities (N, answers), zero for a question that nobody was asked, and a mask (N,).
        """
        sums = torch.zeros(len(words), answers, device=words.device)
        asked = torch.zeros(len(words), device=words.device)
        for which in torch.randperm(len(self._nets))[:AT_ONCE].tolist():
            net = self._nets[which].to(pictures.device)
            read = self._words[which].to(words.device)[words]
            known = (read != UNKNOWN).all(1).nonzero()[:, 0]
            if not len(known):
                continue
            shares = net.logits(net.image(pictures), image_of[known], read[known]).float().softmax(-1)
            sums[known[:, None], self._answers[which].to(words.device)] += shares
            asked[known] += 1
        return sums / asked.clamp(min=1).unsqueeze(1), asked > 0


def kin(examples: Sequence[Example], teachers: Mapping[str, Compact]) -> dict[str, list[str]]:
    """For each example's id the questions that some teacher can read, of training images like its own.

    Like it are those of its modality and organ.
    """
    pools: dict[tuple[str | None, str | None], list[str]] = {}
    by_id = {}
    for example in examples:
        pool = pools.setdefault((example.facts.get("modality"), example.facts.get("organ")), [])
        if any(not teacher.words.unknown(example.question) for teacher in teachers.values()):
            pool.append(example.question)
        by_id[example.id] = pool
    return by_id

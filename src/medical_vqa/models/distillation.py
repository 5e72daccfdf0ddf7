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

AT_ONCE = 2
"""Teachers asked about a batch, drawn anew each time: on the whole the gradient is that of all, and costs less."""


class Teachers:
    """Trained networks that read a student's words and choose among the student's answers."""

    def __init__(self, nets: Sequence[CompactNet], words: Sequence[Tensor], weight: float) -> None:
        """`words[i]` (student words,): the word of teacher i that each word of the student is."""
        self.weight = weight
        """Share of their opinion in the loss; the rest is that of the answers."""
        self._nets, self._words = [net.eval().requires_grad_(False) for net in nets], list(words)

    @classmethod
    def of(cls, teachers: Mapping[str, Compact], student: Compact, weight: float) -> Self:
        """Trained models by their names; raises `ModelError` where one sees other pictures or has other answers."""
        for name, teacher in teachers.items():
            if teacher.picture != student.picture or teacher.answers.answers != student.answers.answers:
                raise ModelError(
                    f"the teacher {name} has other pictures or answers than its student; "
                    "train it on the same rows with the same model.picture"
                )
        words = [torch.tensor([0, 1, *t.words.indices(student.words.known)]) for t in teachers.values()]
        return cls([teacher.module for teacher in teachers.values()], words, weight)

    @torch.no_grad()
    def opinion(self, pictures: Tensor, image_of: Tensor, words: Tensor) -> Tensor:
        """Pictures (B, 1, H, W) in [0, 1], image_of (N,), words (N, L) -> mean probabilities (N, answers)."""
        asked = torch.randperm(len(self._nets))[:AT_ONCE].tolist()
        return torch.stack([self._probabilities(n, pictures, image_of, words) for n in asked]).mean(0)

    def _probabilities(self, which: int, pictures: Tensor, image_of: Tensor, words: Tensor) -> Tensor:
        net = self._nets[which].to(pictures.device)
        read = self._words[which].to(words.device)[words]
        return net.logits(net.image(pictures), image_of, read).float().softmax(-1)


def kin(examples: Sequence[Example]) -> dict[str, list[str]]:
    """For each example's id the questions of training about images like its own: of its modality and organ."""
    pools: dict[tuple[str | None, str | None], list[str]] = {}
    by_id = {}
    for example in examples:
        pool = pools.setdefault((example.facts.get("modality"), example.facts.get("organ")), [])
        pool.append(example.question)
        by_id[example.id] = pool
    return by_id

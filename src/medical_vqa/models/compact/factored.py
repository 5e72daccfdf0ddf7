"""An answer layer whose classes share what their texts share: a side, an organ, a disease, a member of a list.

Half of the answers of a dataset occur in a few rows only. The logit of an answer is the sum of the scores of its atoms
and a part of its own, so that "Left Lung" learns from every answer about lungs and every answer about the left side.
Trained so, the layer is an ordinary linear one afterwards: the factors are multiplied out when the model is saved.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medical_vqa.models.vocabulary import words

_SEPARATOR = re.compile(r"\s*(?:[,;\u3001\uff0c]|\band\b)\s*")


def atoms_of(answer: str) -> set[str]:
    """What an answer consists of: itself, the members of its list, and its words."""
    members = [member for member in _SEPARATOR.split(answer.lower()) if member]
    return {answer.lower(), *members, *(word for member in members for word in words(member))}


class FactoredLinear(nn.Module):
    """A linear layer over answers, with weights ``membership @ atoms + own``; biases likewise."""

    membership: Tensor

    def __init__(self, inputs: int, answers: Sequence[str]) -> None:
        """Create a layer with random weights for the atoms and zeros for the answers' own part.

        Args:
            inputs: Width of its input.
            answers: The answers, in the order of the logits.
        """
        super().__init__()
        by_answer = [atoms_of(answer) for answer in answers]
        shared = sorted({atom for atoms in by_answer for atom in atoms})
        index_of = {atom: index for index, atom in enumerate(shared)}
        membership = torch.zeros(len(answers), len(shared))
        for row, atoms in enumerate(by_answer):
            membership[row, [index_of[atom] for atom in atoms]] = len(atoms) ** -0.5
        self.register_buffer("membership", membership, persistent=False)
        self.atoms = nn.Linear(inputs, len(shared))
        self.own = nn.Linear(inputs, len(answers))
        nn.init.zeros_(self.own.weight)
        nn.init.zeros_(self.own.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) -> logits (N, answers)."""
        return F.linear(x, *self.product())

    def product(self) -> tuple[Tensor, Tensor]:
        """Weight (answers, inputs) and bias (answers,) of the linear layer that computes the same."""
        weight = self.membership @ self.atoms.weight + self.own.weight
        return weight, self.membership @ self.atoms.bias + self.own.bias

    @torch.no_grad()
    def own_part_from(self, weight: Tensor, bias: Tensor, rows: tuple[Sequence[int], Sequence[int]]) -> None:
        """Set the answers' own part so that some rows compute what another layer's rows do.

        Args:
            weight: Weight of the other layer.
            bias: Bias of the other layer.
            rows: Rows of this layer, and the other's rows that they shall equal.
        """
        to, origin = rows
        own_weight, own_bias = self.product()
        self.own.weight[to] += weight[origin] - own_weight[to]
        self.own.bias[to] += bias[origin] - own_bias[to]


def multiplied_out(state: dict[str, Tensor], name: str, layer: FactoredLinear) -> dict[str, Tensor]:
    """The state of a network with the factored layer `name` as a linear layer of the same name.

    Args:
        state: Tensors of the network by name.
        name: Name of the layer in the network.
        layer: The factored layer.
    """
    weight, bias = layer.product()
    rest = {key: value for key, value in state.items() if not key.startswith(f"{name}.")}
    return {**rest, f"{name}.weight": weight.detach(), f"{name}.bias": bias.detach()}

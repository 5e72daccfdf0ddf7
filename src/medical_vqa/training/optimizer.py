"""AdamW with its parameter groups, the learning rate of a step, and the running average of weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def adamw(module: nn.Module, *, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; matrices and kernels decay, vectors (biases, norms) do not."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate)


def rate(step: int, *, total: int, warmup: float) -> float:
    """Share of the peak learning rate at a step: a rise over `warmup` of the steps, then half a cosine to 0."""
    rise = max(1, round(total * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


class WeightAverage:
    """An exponential moving average of the trainable weights and the buffers of a module.

    The decay rises with the number of updates, min(decay, (1 + n) / (10 + n)), so that the first random weights are
    soon forgotten. Decay 0 follows the weights exactly.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay, self._updates = module, decay, 0
        self._average = {name: value.detach().clone() for name, value in self._live().items()} if decay else {}

    def _live(self) -> dict[str, Tensor]:
        learned = {name: p for name, p in self._module.named_parameters() if p.requires_grad}
        return learned | dict(self._module.named_buffers())

    @torch.no_grad()
    def update(self) -> None:
        """Take one step towards the weights as they are now."""
        if not self._decay:
            return
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        self._updates += 1
        live = self._live()
        floating = [name for name in live if live[name].is_floating_point()]
        torch._foreach_lerp_([self._average[n] for n in floating], [live[n].detach() for n in floating], 1 - decay)
        for name in live.keys() - set(floating):
            self._average[name].copy_(live[name])

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within the block the module holds the average; afterwards it holds its own weights again."""
        if not self._decay:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self._live().items():
            own = value.clone()
            value.copy_(self._average[name])
            self._average[name].copy_(own)

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"average": self._average, "updates": self._updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._updates = state["updates"]
        for name, value in state["average"].items():
            self._average[name].copy_(value)

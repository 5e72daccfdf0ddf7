"""AdamW with its parameter groups, the learning-rate schedule, and the moving average of weights."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medical_vqa.errors import MissingDependencyError

NO_FACTORS: Mapping[str, float] = MappingProxyType({})
"""Every parameter has the same learning rate."""


OptimizerName = Literal["adamw", "adamw-8bit", "paged-adamw-8bit"]


def adamw(
    module: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float,
    factors: Mapping[str, float] = NO_FACTORS,
    name: OptimizerName = "adamw",
) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters; matrices and kernels decay, vectors (biases, norms) do not.

    Args:
        module: The module to train.
        learning_rate: Peak learning rate; each group has its ``factor`` of it.
        weight_decay: Decay of matrices and kernels.
        factors: Factor of the learning rate of the parameters whose names begin so.
        name: ``adamw`` of torch, or one of bitsandbytes, whose moments take 8 bits and, paged, may leave the GPU.

    Raises:
        MissingDependencyError: bitsandbytes is not installed.
    """
    groups: dict[tuple[bool, float], list[Tensor]] = {}
    for path, parameter in module.named_parameters():
        if parameter.requires_grad:
            factor = next((factor for prefix, factor in factors.items() if path.startswith(prefix)), 1.0)
            groups.setdefault((parameter.ndim > 1, factor), []).append(parameter)
    optimizer: torch.optim.Optimizer = _optimizer_class(name)(
        [
            {
                "params": parameters,
                "weight_decay": weight_decay * decays,
                "lr": learning_rate * factor,
                "factor": factor,
            }
            for (decays, factor), parameters in sorted(groups.items(), key=lambda group: group[0], reverse=True)
        ]
    )
    return optimizer


def _optimizer_class(name: OptimizerName) -> Any:
    if name == "adamw":
        return torch.optim.AdamW
    try:
        optim = importlib.import_module("bitsandbytes").optim  # an extra
    except ImportError as error:
        raise MissingDependencyError(
            f"training.optimizer {name} needs bitsandbytes, which is not installed; run: "
            "pip install 'medical-vqa[train,qlora]', or use adamw"
        ) from error
    return {"adamw-8bit": optim.AdamW8bit, "paged-adamw-8bit": optim.PagedAdamW8bit}[name]


def schedule(step: int, *, total: int, warmup: float) -> float:
    """Factor of the peak learning rate at a step, in [0, 1]: a linear warm-up, then half a cosine to 0.

    Args:
        step: Optimizer steps taken before this one.
        total: Optimizer steps of the run.
        warmup: Fraction of the steps over which the rate rises.
    """
    warmup_steps = max(1, round(total * warmup))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, total - warmup_steps)))


class WeightAverage:
    """An exponential moving average of the trainable weights and the buffers of a module.

    The decay rises with the number of updates, min(decay, (1 + n) / (10 + n)), so that the first random weights soon
    lose their influence. Decay 0 uses the weights themselves.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module = module
        self._decay = decay
        self._updates = 0
        self._average = {name: value.detach().clone() for name, value in self._current().items()} if decay else {}

    def _current(self) -> dict[str, Tensor]:
        trainable = {name: p for name, p in self._module.named_parameters() if p.requires_grad}
        return trainable | dict(self._module.named_buffers())

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the current weights."""
        if not self._decay:
            return
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        self._updates += 1
        current = self._current()
        floating = [name for name in current if current[name].is_floating_point()]
        torch._foreach_lerp_([self._average[n] for n in floating], [current[n].detach() for n in floating], 1 - decay)
        for name in current.keys() - set(floating):
            self._average[name].copy_(current[name])

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """A block in which the module has the averaged weights; after it, its own again."""
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
        for name, value in self._current().items():
            current = value.clone()
            value.copy_(self._average[name])
            self._average[name].copy_(current)

    def state_dict(self) -> dict[str, Any]:
        """The average and the number of updates, for a checkpoint."""
        return {"average": self._average, "updates": self._updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._updates = state["updates"]
        for name, value in state["average"].items():
            self._average[name].copy_(value)

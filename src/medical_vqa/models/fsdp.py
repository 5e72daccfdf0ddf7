"""Weights that several processes share out among them (FSDP), made whole for a moment: to answer and to save.

Training goes through the module's own forward, which gathers what it needs. Answering and saving reach past it, so
every process has to take part in both, at the same time and with the same questions.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def is_sharded(module: nn.Module) -> bool:
    """Whether each process holds only a share of the weights."""
    return isinstance(module, _loaded("torch.distributed.fsdp", "FSDPModule"))


@contextmanager
def unsharded_outside_layers(module: Any) -> Iterator[None]:
    """Within the block the weights outside the wrapped layers are whole; a layer gathers its own when it is called."""
    if not is_sharded(module):
        yield
        return
    module.unshard()
    try:
        yield
    finally:
        module.reshard()


def unsharded_state(module: nn.Module) -> dict[str, Tensor]:
    """What is trained of the module, and its buffers, every tensor whole; all processes must ask at the same time."""
    frozen = {name for name, p in module.named_parameters(remove_duplicate=False) if not p.requires_grad}
    state = {name: value for name, value in module.state_dict().items() if name not in frozen}
    part = _loaded("torch.distributed.tensor", "DTensor")
    return {name: value.full_tensor() if isinstance(value, part) else value for name, value in state.items()}


def _loaded(module: str, name: str) -> Any:
    """A class whose module has been imported; before that nothing is of it, and importing it takes half a second."""
    return getattr(sys.modules.get(module), name, ())

"""Access to the full weights of a module that FSDP shards among several processes: to answer and to save.

Training goes through the module's own forward, which gathers the weights it needs. Answering and saving bypass it, so
every process must take part in both, at the same time and with the same questions.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def is_sharded(module: nn.Module) -> bool:
    """Whether each process has only a part of the weights."""
    return isinstance(module, _class_if_imported("torch.distributed.fsdp", "FSDPModule"))


@contextmanager
def unsharded_outside_layers(module: Any) -> Iterator[None]:
    """A block in which the weights outside the wrapped layers are unsharded; a layer gathers its own when called."""
    if not is_sharded(module):
        yield
        return
    module.unshard()
    try:
        yield
    finally:
        module.reshard()


def unsharded_state(module: nn.Module) -> dict[str, Tensor]:
    """The trained parameters of the module and its buffers, every tensor unsharded; all processes must call it."""
    frozen = {name for name, p in module.named_parameters(remove_duplicate=False) if not p.requires_grad}
    state = {name: value for name, value in module.state_dict().items() if name not in frozen}
    sharded = _class_if_imported("torch.distributed.tensor", "DTensor")
    return {name: value.full_tensor() if isinstance(value, sharded) else value for name, value in state.items()}


def _class_if_imported(module: str, name: str) -> Any:
    """A class of a module, or () before the module is imported, which takes half a second: nothing is of it then."""
    return getattr(sys.modules.get(module), name, ())

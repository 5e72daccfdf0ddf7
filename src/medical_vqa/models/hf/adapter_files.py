"""An adapter's files in PEFT's format, with the layer names of the installed transformers version.

Adapters that were trained before transformers 4.52 have the names of that time (``model.layers`` for what is
``model.language_model.layers`` today). PEFT would leave such weights out, and the model would answer without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from medical_vqa.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

_PREFIX = "base_model.model."
"""What PEFT puts before the names of a network's layers."""


def read_adapter(folder: Path, network: nn.Module) -> tuple[Any, dict[str, Tensor]]:
    """The configuration and the weights of an adapter, by the names of a network that has no adapter yet.

    Args:
        folder: Holds ``adapter_config.json`` and the weights.
        network: The published network.

    Raises:
        ModelError: The adapter is of another kind than LoRA.
    """
    from peft import PeftConfig  # noqa: PLC0415 - slow to import, and only this needs it
    from peft.utils.save_and_load import load_peft_weights  # noqa: PLC0415

    config: Any = PeftConfig.from_pretrained(str(folder))
    if config.peft_type != "LORA":
        raise ModelError(
            f"the adapter {folder} is of the kind {config.peft_type} and LORA is expected; start from another one"
        )
    stored: Mapping[str, Tensor] = load_peft_weights(str(folder), device="cpu")
    current = _current_name(network)
    weights = {_PREFIX + current(key.removeprefix(_PREFIX)): value for key, value in stored.items()}
    if weights.keys() != stored.keys():
        adapted = sorted({key.removeprefix(_PREFIX).partition(".lora_")[0] for key in weights if ".lora_" in key})
        config.target_modules = adapted or config.target_modules
        config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
        config.modules_to_save = [current(name) for name in config.modules_to_save or ()] or None
        config.rank_pattern = {current(name): rank for name, rank in config.rank_pattern.items()}
        config.alpha_pattern = {current(name): alpha for name, alpha in config.alpha_pattern.items()}
    return config, weights


def check_complete(adapted: Any, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Raise `ModelError` where an adapter and its places in a network do not fit.

    Args:
        adapted: The network with the adapter.
        weights: The adapter's weights.
        folder: What the message names.
    """
    from peft.utils.save_and_load import get_peft_model_state_dict  # noqa: PLC0415

    places = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    absent = sorted(places - weights.keys())
    unused = sorted(key for key in weights.keys() - places if ".lora_" in key)
    if absent or unused:
        place = (absent or unused)[0].removeprefix(_PREFIX)
        raise ModelError(
            f"the adapter {folder} does not fit the network: {len(absent)} of its {len(places)} places have no weight "
            f"and {len(unused)} weights have no place, such as {place}; expected an adapter of this checkpoint: name "
            "its own in model.checkpoint, or train it again"
        )


def _current_name(network: nn.Module) -> Callable[[str], str]:
    """Renames as transformers does the parameters of an older checkpoint; names that the network has stay."""
    from transformers.conversion_mapping import get_model_conversion_mapping  # noqa: PLC0415
    from transformers.core_model_loading import WeightRenaming, apply_renamings  # noqa: PLC0415

    modules = {name for name, _ in network.named_modules()}
    mapping: Any = get_model_conversion_mapping(network)  # type: ignore[arg-type]
    renamings = [step for step in mapping if isinstance(step, WeightRenaming)]

    def rename(name: str) -> str:
        layer = name.partition(".lora_")[0]
        if layer in modules or layer.rpartition(".")[0] in modules:
            return name
        renamed: str = apply_renamings(name, renamings)
        return renamed

    return rename

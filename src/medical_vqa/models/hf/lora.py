"""Low-rank adapters: where they may go, and the check that no module whose output is cached is trained.

``["q_proj", "v_proj"]``, the usual way to name LoRA's targets, also matches layers of a SigLIP vision tower; cached
features would then silently be wrong. A pattern here is a regular expression over the whole dotted name of a linear
layer, and one that matches inside a cached module is refused.

Modules all of whose weights train are PEFT's `modules_to_save`, so that the adapter loads with PEFT alone. They are in
fp32 whatever the precision of the frozen weights: a small update of a weight would be lost in 16 bits. PEFT keeps the
original next to each of them, too much for a language model: its weights train in place (`train_in_place`), and
`peft_io` saves them.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from medical_vqa.errors import ModelError
from medical_vqa.models.hf.adapter_files import check_complete, read_adapter
from medical_vqa.models.hf.families import LANGUAGE_FILE
from medical_vqa.models.hf.loading import explain_errors
from medical_vqa.models.memory import is_within

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor


LORA_SIZES = ("rank", "alpha", "dropout", "dora", "rslora")
"""Fields of `Lora` that a recipe's `model.lora` has under the same names."""


def trains_language_wholly(lora: Mapping[str, Any], initial: Path | None) -> bool:
    """Whether all weights of the language model train: as a recipe says, or as those to start from did."""
    return lora.get("language") == "full" if initial is None else (initial / LANGUAGE_FILE).is_file()


@dataclass(frozen=True, slots=True)
class Lora:
    """Size and place of low-rank adapters (Hu et al. 2021)."""

    pattern: str | None
    """Regular expression that a linear layer's whole dotted name must match; None for no adapters."""
    rank: int = 8
    """Width of the bottleneck."""
    alpha: float = 32.0
    """The update is scaled by alpha / rank."""
    dropout: float = 0.1
    """Fraction of the adapter's input that is dropped in training."""
    dora: bool = False
    """Whether magnitudes are learned apart from directions (weight-decomposed adaptation, Liu et al. 2024)."""
    rslora: bool = False
    """Whether the update is scaled by alpha / sqrt(rank) instead (rank-stabilized LoRA, Kalajdzievski 2023)."""
    trained_modules: tuple[str, ...] = ()
    """Names of modules all of whose weights are trained, without adapters."""
    in_place: tuple[str, ...] = ()
    """Names of such modules of which PEFT keeps no original and saves nothing."""


def matching_layers(model: nn.Module, pattern: str) -> list[str]:
    """Names of the linear layers that a pattern matches; raises `ModelError` on an invalid expression."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ModelError(f"the LoRA pattern {pattern!r} is not a regular expression ({error}); correct it") from None
    return [n for n, layer in model.named_modules() if isinstance(layer, nn.Linear) and expression.fullmatch(n)]


def check_targets(
    model: nn.Module, pattern: str, *, frozen: Sequence[str], trained_modules: Sequence[str] = ()
) -> list[str]:
    """Names of the layers that a pattern matches.

    Args:
        model: The network.
        pattern: Regular expression over whole dotted names.
        frozen: Names of the modules whose output is cached.
        trained_modules: Names of the modules all of whose weights train.

    Raises:
        ModelError: The pattern matches nothing, or a layer inside a frozen module or one that trains wholly.
    """
    names = matching_layers(model, pattern)
    if not names:
        known = sorted({n.rsplit(".", 1)[-1] for n, layer in model.named_modules() if isinstance(layer, nn.Linear)})
        raise ModelError(
            f"the LoRA pattern {pattern!r} matches no linear layer of the model; its layers are called "
            f"{', '.join(known[:12])}, and the pattern must match the whole dotted name, as in "
            r"language_model\..*\.(q|v)"
        )
    if frozen_layers := [name for name in names if is_within(name, frozen)]:
        raise ModelError(
            f"the LoRA pattern {pattern!r} matches {frozen_layers[0]}, which is in a frozen module whose output is "
            r"cached; anchor it at the module that should learn, as in language_model\..*\.(q|v)"
        )
    if trained := [name for name in names if is_within(name, trained_modules)]:
        raise ModelError(
            f"the LoRA pattern {pattern!r} matches {trained[0]}, which is in a module all of whose weights train; "
            "anchor the pattern at other modules, or set model.lora.projector: false, model.lora.vision: lora or "
            "model.lora.language: lora"
        )
    return names


def add_lora(model: nn.Module, lora: Lora, *, frozen: Sequence[str]) -> PeftModel:
    """Freeze the model and add adapters to the layers that the pattern matches; raises as `check_targets` does."""
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415 - slow to import, and only this needs it
    from peft.utils.constants import DUMMY_TARGET_MODULES  # noqa: PLC0415

    targets: str | list[str] = DUMMY_TARGET_MODULES  # PEFT's own name for none
    if lora.pattern is not None:
        trained = (*lora.trained_modules, *lora.in_place)
        names = check_targets(model, lora.pattern, frozen=frozen, trained_modules=trained)
        exact = len(names) == sum(bool(re.fullmatch(lora.pattern, name)) for name, _ in model.named_modules())
        targets = lora.pattern if exact else names  # PEFT refuses other layers than linear ones
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a float works as well as an integer
        lora_dropout=lora.dropout,
        use_dora=lora.dora,
        use_rslora=lora.rslora,
        modules_to_save=list(lora.trained_modules) or None,
        target_modules=targets,
    )
    with hide_peft_warnings():
        adapted = get_peft_model(model, config)
    _widen_trained_modules(adapted)
    train_in_place(adapted, lora.in_place)
    refuse_trainable(adapted.get_base_model(), frozen)
    return adapted


def train_in_place(adapted: PeftModel, names: Sequence[str]) -> None:
    """Train all weights of some modules of the network, in fp32."""
    for name in names:
        adapted.get_base_model().get_submodule(name).float().requires_grad_(True)


def load_lora(model: nn.Module, folder: Path, *, trainable: bool) -> PeftModel:
    """Freeze the model and give it the adapters of a folder in PEFT's format.

    Args:
        model: The network.
        folder: Holds ``adapter_config.json`` and the weights.
        trainable: Whether the adapters will be trained further.

    Raises:
        ModelError: The adapter is of another kind, or its weights and its places in the network do not fit.
    """
    from peft import PeftModel  # noqa: PLC0415 - slow to import, and only this needs it
    from peft.utils.save_and_load import set_peft_model_state_dict  # noqa: PLC0415

    with explain_errors(f"the adapter {folder}"), hide_peft_warnings():
        config, weights = read_adapter(folder, model)
        adapted = PeftModel.from_pretrained(model, folder, is_trainable=trainable, config=config)
        _widen_trained_modules(adapted)
        set_peft_model_state_dict(adapted, dict(weights))  # PEFT read them by their old names, or into 16 bits
    check_complete(adapted, weights, folder)
    return adapted


def continue_lora(model: nn.Module, folder: Path, *, frozen: Sequence[str], in_place: Sequence[str] = ()) -> PeftModel:
    """The model with the adapters of a folder, to be trained further.

    Args:
        model: The network.
        folder: Holds ``adapter_config.json`` and the weights.
        frozen: Names of the modules whose output is cached.
        in_place: Names of modules all of whose weights train, and are not the adapter's.

    Raises:
        ModelError: The adapter is of another kind or of another network, or trains a frozen module.
    """
    adapted = load_lora(model, folder, trainable=True)
    train_in_place(adapted, in_place)
    refuse_trainable(adapted.get_base_model(), frozen)
    return adapted


def trained_digest(model: nn.Module, names: Sequence[str], prefix: str) -> str:
    """SHA-256 over a text and the weights that adapters and wholly trained modules have inside some modules.

    Args:
        model: The network with its adapters.
        names: Names of the modules.
        prefix: The text.
    """
    digest = hashlib.sha256(prefix.encode())
    for name, parameter in model.named_parameters():
        if is_within(name, names) and (".lora_" in name or ".modules_to_save." in name):
            digest.update(name.encode())
            digest.update(parameter.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def savable_modules(model: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """The modules of these names as PEFT can train them: a list of modules by its members, none without weights."""
    expanded: list[str] = []
    for name in names:
        module = model.get_submodule(name)
        if isinstance(module, nn.ModuleList):
            expanded += [f"{name}.{index}" for index in range(len(module))]
        elif any(True for _ in module.parameters()):
            expanded.append(name)
    return tuple(expanded)


def _widen_trained_modules(adapted: nn.Module) -> None:
    """Keep the wholly trained modules in fp32 among frozen ones of 16 bits."""
    from peft.utils.other import ModulesToSaveWrapper  # noqa: PLC0415

    for wrapper in adapted.modules():
        if not isinstance(wrapper, ModulesToSaveWrapper):
            continue
        for trained in wrapper.modules_to_save.values():
            dtype = next(p.dtype for p in trained.parameters() if p.is_floating_point())
            if dtype != torch.float32:
                trained.float()
                trained.register_forward_pre_hook(_widen_inputs, with_kwargs=True)
                trained.register_forward_hook(lambda _module, _inputs, output, dtype=dtype: _cast(output, dtype))


def _widen_inputs(_: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, Any]:
    return _cast(inputs, torch.float32), _cast(named, torch.float32)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """The same nested tuples and mappings, their floating-point tensors of another type."""
    from accelerate.utils.operations import recursively_apply  # noqa: PLC0415

    return recursively_apply(
        lambda tensor: tensor.to(dtype),
        value,
        test_type=lambda part: isinstance(part, torch.Tensor) and part.is_floating_point(),
    )


def adapter_modules(folder: Path, model: nn.Module) -> list[str]:
    """Names of the modules of a network that the adapter in a folder changes or replaces; raises `ModelError`."""
    with explain_errors(f"the adapter {folder}"):
        config, _ = read_adapter(folder, model)
        targets, replacing = config.target_modules, list(config.modules_to_save or ())
        linear = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
        if isinstance(targets, str):
            adapted = [name for name in linear if re.fullmatch(targets, name)]
        else:
            adapted = [name for name in linear if any(name == t or name.endswith(f".{t}") for t in targets)]
        replaced = [name for name, _ in model.named_modules() if any(name.endswith(t) for t in replacing)]
        return replaced + adapted


@contextmanager
def hide_peft_warnings() -> Iterator[None]:
    """Hide warnings about what this package deals with itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        warnings.filterwarnings("ignore", message="Found missing adapter keys")  # `check_complete` refuses them
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings")  # `separate_adapted_weights`
        yield


def refuse_trainable(model: nn.Module, frozen: Sequence[str]) -> None:
    """Raise `ModelError` when a parameter of a module whose output is cached would be trained."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and is_within(name, frozen):
            raise ModelError(f"{name} would be trained although its module's output is cached; freeze it")


def separate_adapted_weights(adapted: Any) -> None:
    """Give an adapted layer whose weight is another's too (a head that is the embedding) a weight of its own.

    Merged into the shared weight, the adapter would change the other layer as well.
    """
    uses = Counter(id(p) for module in adapted.modules() for p in module.parameters(recurse=False))
    shared = [m for m in adapted.modules() if hasattr(m, "base_layer") and uses[id(m.base_layer.weight)] > 1]
    for module in shared:
        module.base_layer.weight = nn.Parameter(module.base_layer.weight.detach().clone(), requires_grad=False)
    if shared:
        config = adapted.get_base_model().config
        config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = False


def keep_trainable_state(module: nn.Module) -> None:
    """Limit the module's state to its trainable parameters, so that a checkpoint never contains the frozen base."""

    def drop_frozen(owner: nn.Module, state: dict[str, Tensor], prefix: str, _: object) -> None:
        for name, parameter in owner.named_parameters(remove_duplicate=False):
            if not parameter.requires_grad:
                state.pop(prefix + name, None)

    def ignore_missing_frozen(owner: nn.Module, keys: Any) -> None:
        frozen = {n for n, p in owner.named_parameters(remove_duplicate=False) if not p.requires_grad}
        keys.missing_keys[:] = [key for key in keys.missing_keys if key.removeprefix("module.") not in frozen]

    module.register_state_dict_post_hook(drop_frozen)
    module.register_load_state_dict_post_hook(ignore_missing_frozen)

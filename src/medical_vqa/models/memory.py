"""Parameter counts of a model, and the device memory that training it needs, estimated without loading weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

PROMPT_TOKENS = 32
"""Tokens of a question with its prompt; SLAKE's have 5 to 30."""
ANSWER_TOKENS = 8
"""Tokens of an answer."""
_OPTIMIZER_BYTES = 8
"""AdamW's two fp32 moments of one trained parameter."""
_NF4_BYTES = 0.52
"""One parameter in NF4: half a byte, and its part of the block's scale."""
_ACTIVATION_BYTES = 34
"""What a 16-bit transformer layer stores for the backward pass, per token and unit of width."""


@dataclass(frozen=True, slots=True)
class LayerStack:
    """Equal transformer layers that process the tokens of one question."""

    layers: int
    """Number of layers."""
    width: int
    """Width of a token."""
    tokens: int
    """Tokens of one question, image tokens included."""


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes that training needs on the device."""

    weights: int
    """Frozen weights at their precision, trained ones in fp32; no vision encoder whose features are cached."""
    gradients: int
    """One fp32 number for each trained parameter."""
    optimizer: int
    """AdamW's two moments."""
    activations: int | None
    """Activations that a whole batch stores for the backward pass; None where they cannot be estimated."""

    @property
    def fixed(self) -> int:
        """Bytes that do not depend on the batch size."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """All bytes, those of the activations as far as they can be estimated."""
        return self.fixed + (self.activations or 0)


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Parameter counts of a model, from which the memory of a training run follows."""

    parameters: int
    """All parameters, the frozen ones included."""
    trainable: int
    """Parameters that training changes."""
    vision_encoder: int = 0
    """Parameters of the frozen vision encoder, which a run with cached features loads only to fill the cache; 0 when it
    trains."""
    stacks: tuple[LayerStack, ...] = ()
    """Layers that store activations."""
    quantized: int = 0
    """Frozen parameters that are stored in 4 bits."""
    stand_in: str | None = None
    """The checkpoint whose shipped configuration was used because it is not on this machine; None otherwise."""

    def memory(self, *, batch_size: int, precision: str, features: bool, checkpointing: bool) -> TrainingMemory:
        """Bytes that training needs, an upper estimate because frozen layers store less.

        Activations follow Korthikanti et al. 2022, equation 1, without its attention term (fused attention stores no
        score matrix): 34 bytes per token, layer and unit of width in 16 bits, twice that in 32; with gradient
        checkpointing 2 bytes and one whole layer.

        Args:
            batch_size: Questions on the device at once.
            precision: ``fp32``, ``fp16`` or ``bf16``.
            features: Whether the vision encoder's features are cached, so that it is not on the device.
            checkpointing: Whether activations are recomputed in the backward pass.
        """
        size = 4 if precision == "fp32" else 2
        frozen = self.parameters - self.trainable - (self.vision_encoder if features else 0)
        activations = 0
        for stack in self.stacks:
            layers = 2 * stack.layers + _ACTIVATION_BYTES if checkpointing else _ACTIVATION_BYTES * stack.layers
            activations += stack.width * stack.tokens * layers
        return TrainingMemory(
            weights=(frozen - self.quantized) * size + round(self.quantized * _NF4_BYTES) + 4 * self.trainable,
            gradients=4 * self.trainable,
            optimizer=_OPTIMIZER_BYTES * self.trainable,
            activations=activations * size // 2 * batch_size if self.stacks else None,
        )


def estimate_memory(
    module: nn.Module,
    *,
    vision_encoder: Sequence[str] = (),
    stacks: tuple[LayerStack, ...] = (),
    quantized: int = 0,
    stand_in: str | None = None,
) -> MemoryEstimate:
    """Count the parameters of a module, which may be on the meta device.

    Args:
        module: The whole network, adapters included.
        vision_encoder: Names of the submodules whose outputs are cached.
        stacks: Layers that store activations.
        quantized: How many parameters are stored in 4 bits.
        stand_in: The checkpoint whose shipped configuration describes the network; None where it is on this machine.
    """
    encoder = sum(p.numel() for name, p in module.named_parameters() if is_within(name, vision_encoder))
    trainable = count_parameters(module, trainable=True)
    return MemoryEstimate(count_parameters(module), trainable, encoder, stacks, quantized, stand_in)


def language_model_stacks(config: Any, *, image_tokens: int) -> tuple[LayerStack, ...]:
    """Layers of a language model by its transformers configuration; an encoder and a decoder are two stacks."""
    width = getattr(config, "hidden_size", None) or config.d_model
    layers = getattr(config, "num_hidden_layers", None) or config.num_layers
    if getattr(config, "is_encoder_decoder", False):
        decoder = LayerStack(config.num_decoder_layers, width, ANSWER_TOKENS)
        return (LayerStack(layers, width, image_tokens + PROMPT_TOKENS), decoder)
    return (LayerStack(layers, width, image_tokens + PROMPT_TOKENS + ANSWER_TOKENS),)


def vision_stack(config: Any, *, tokens: int) -> LayerStack:
    """Layers of a vision encoder that trains, by its transformers configuration and the tokens of an image."""
    layers = getattr(config, "num_hidden_layers", None) or config.depth
    return LayerStack(layers, config.hidden_size, tokens)


def count_parameters(module: nn.Module, *, trainable: bool = False) -> int:
    """Number of a module's parameters, all or the trainable ones; shared ones count once."""
    return sum(_unpacked_size(p) for p in module.parameters() if p.requires_grad or not trainable)


def _unpacked_size(parameter: nn.Parameter) -> int:
    quantization = getattr(parameter, "quant_state", None)  # bitsandbytes packs two numbers into a byte
    return int(quantization.shape.numel()) if quantization is not None else parameter.numel()


def is_within(name: str, modules: Sequence[str]) -> bool:
    """Whether a dotted name is one of the modules or the name of something inside one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)

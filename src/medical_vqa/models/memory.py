"""What a model would be, before anything of it is loaded: its parameters on the meta device, and what it would hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medical_vqa.models.hf.lora import inside, parameters

if TYPE_CHECKING:
    from torch import nn

WORDS = 32  # tokens of a question with its prompt: SLAKE's have 5 to 30
_ADAM = 8  # bytes of AdamW's two moments, for each trained number
_PACKED = 0.52  # bytes of a number in NF4: half a byte, and its share of a block's scale
_KEPT = 34  # bytes that a transformer layer keeps per token and unit of width, in 16 bits


@dataclass(frozen=True, slots=True)
class Block:
    """Equal transformer layers that one question passes."""

    layers: int
    """How many."""
    width: int
    """Of a token."""
    tokens: int
    """Of one question, image tokens included."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on the device while training."""

    weights: int
    """Frozen ones at their precision, trained ones in fp32; without the vision part where its features are kept."""
    gradients: int
    """One fp32 number for each trained one."""
    optimizer: int
    """AdamW's two moments."""
    activations: int | None
    """Kept for the backward pass by a whole batch; None where nobody can say beforehand."""

    @property
    def fixed(self) -> int:
        """What no batch size changes."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """All of it."""
        return self.fixed + (self.activations or 0)


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Counts of a model that need no weights."""

    parameters: int
    """All numbers, the frozen ones included."""
    trainable: int
    """Those that training changes."""
    upstream: int = 0
    """Those whose outputs are kept per image: they are needed only until every image is encoded."""
    blocks: tuple[Block, ...] = ()
    """The layers that keep activations."""
    packed: int = 0
    """Frozen ones that are kept in 4 bits."""

    def memory(self, *, batch_size: int, precision: str, features: bool, checkpointing: bool) -> Memory:
        """Bytes that training with these settings needs.

        Activations follow Korthikanti et al. 2022, equation 1, without its attention term (fused attention keeps no
        score matrix): 34 bytes per token, layer and unit of width in 16 bits, twice that in 32; with checkpointing 2
        bytes and one whole layer. Frozen layers keep less, so that this is an upper estimate.
        """
        size = 4 if precision == "fp32" else 2
        frozen = self.parameters - self.trainable - (self.upstream if features else 0)
        kept = sum(b.width * b.tokens * _layers(b, checkpointing) for b in self.blocks) * size // 2
        return Memory(
            weights=(frozen - self.packed) * size + round(self.packed * _PACKED) + 4 * self.trainable,
            gradients=4 * self.trainable,
            optimizer=_ADAM * self.trainable,
            activations=kept * batch_size if self.blocks else None,
        )


def _layers(block: Block, checkpointing: bool) -> int:
    return 2 * block.layers + _KEPT if checkpointing else _KEPT * block.layers


def estimate_memory(
    module: nn.Module, *, upstream: Sequence[str] = (), blocks: tuple[Block, ...] = (), packed: int = 0
) -> MemoryEstimate:
    """Count a module; `upstream` names the parts whose outputs are kept, `packed` of its numbers are in 4 bits."""
    seen = sum(p.numel() for name, p in module.named_parameters() if inside(name, upstream))
    return MemoryEstimate(parameters(module), parameters(module, trainable=True), seen, blocks, packed)


def text_blocks(config: Any, *, image_tokens: int, answer_tokens: int = 8) -> tuple[Block, ...]:
    """The layers of a language model by its transformers configuration, T5's encoder and decoder apart."""
    width = getattr(config, "hidden_size", None) or config.d_model
    layers = getattr(config, "num_hidden_layers", None) or config.num_layers
    if getattr(config, "is_encoder_decoder", False):
        decoder = Block(config.num_decoder_layers, width, answer_tokens)
        return (Block(layers, width, image_tokens + WORDS), decoder)
    return (Block(layers, width, image_tokens + WORDS + answer_tokens),)

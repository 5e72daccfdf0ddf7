"""BLIP-2's network in two halves: the frozen `Blip2VisionEncoder`, and `Blip2Net` with all that trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from medical_vqa.errors import ModelError
from medical_vqa.models.hf.adapter_net import AdapterNet
from medical_vqa.models.hf.generation import IGNORED_LABEL, summed_loss
from medical_vqa.models.hf.lora import (
    LORA_SIZES,
    Lora,
    adapter_modules,
    add_lora,
    continue_lora,
    matching_layers,
    savable_modules,
    trained_digest,
    trains_language_wholly,
)
from medical_vqa.models.memory import is_within

if TYPE_CHECKING:
    from medical_vqa.models.base import Batch

Targets = Literal["qformer", "language", "both", "none"]
Layers = Literal["attention", "all-linear"]
VISION = "vision_model"
PROJECTOR = "language_projection"
LANGUAGE = "language_model"
LONGER = "longer."
"""What the names of a batch's second part begin with: rows that are much longer than the others."""
_CONNECTOR = ("qformer", "query_tokens", PROJECTOR)
_QFORMER_LAYERS = r"qformer\..*\.attention\.(query|value)"
_LANGUAGE_LAYERS = {"t5": r"language_model\..*\.(q|v)", "opt": r"language_model\..*\.(q_proj|v_proj)"}
_VISION_LAYERS = {"attention": r"vision_model\..*\.qkv", "all-linear": r"vision_model\..*"}
_ALL_LINEAR = {"qformer": r"qformer\..*", "language": r"language_model\.(?!lm_head).*"}


def lora_pattern(targets: Targets, text_model: str, layers: Layers = "attention") -> str:
    """The LoRA pattern of a preset for a type of language model.

    Args:
        targets: The parts that get adapters, at least one.
        text_model: ``t5`` or ``opt``.
        layers: The layers of these parts.

    Raises:
        ModelError: The language model is of another type, whose query and value projections are not known.
    """
    if layers == "all-linear":
        names = ("qformer", "language") if targets == "both" else (targets,)
        return "|".join(_ALL_LINEAR[name] for name in names)
    if text_model not in _LANGUAGE_LAYERS:
        raise ModelError(
            f"BLIP-2 with a language model of type {text_model!r} has no preset for LoRA; set model.lora.modules to a "
            r"pattern such as language_model\..*\.(q_proj|v_proj)"
        )
    language = _LANGUAGE_LAYERS[text_model]
    return {"qformer": _QFORMER_LAYERS, "language": language, "both": f"{_QFORMER_LAYERS}|{language}"}[targets]


def adapt(network: Any, lora: Mapping[str, Any], initial: Path | None = None) -> tuple[Any, tuple[str, ...]]:
    """BLIP-2 with adapters, and the names of the modules whose output can be cached: those upstream of all that trains.

    These are the vision model, with the Q-Former and its projection when neither of them trains, and none when the
    vision model trains.

    Args:
        network: The published network.
        lora: Fresh adapters as a recipe describes them.
        initial: A folder with adapters to start from instead.
    """
    in_place = (LANGUAGE,) if trains_language_wholly(lora, initial) else ()
    if initial is not None:
        changed = adapter_modules(initial, network)
        cached_modules = _upstream(changed, vision_trains=any(is_within(name, (VISION,)) for name in changed))
        return continue_lora(network, initial, frozen=cached_modules, in_place=in_place), cached_modules
    vision = lora.get("vision", "none")
    trained_modules: tuple[str, ...] = (PROJECTOR,) if lora.get("projector") else ()
    if vision == "full":
        trained_modules += savable_modules(network, [VISION])
    pattern = _pattern(lora, network.config.text_config.model_type)
    changed = [*trained_modules, *(matching_layers(network, pattern) if pattern else ())]
    cached_modules = _upstream(changed, vision_trains=vision != "none")
    sizes = {name: lora[name] for name in LORA_SIZES if name in lora}
    adapters = Lora(pattern=pattern, trained_modules=trained_modules, in_place=in_place, **sizes)
    return add_lora(network, adapters, frozen=cached_modules), cached_modules


def _upstream(changed: Sequence[str], *, vision_trains: bool) -> tuple[str, ...]:
    """The modules upstream of all that trains."""
    if vision_trains:
        return ()
    connector_trains = any(is_within(name, ("qformer", PROJECTOR)) for name in changed)
    return (VISION,) if connector_trains else (VISION, *_CONNECTOR)


def _pattern(lora: Mapping[str, Any], text_model: str) -> str | None:
    """All layers that get adapters; None for none."""
    layers: Layers = lora.get("layers", "attention")
    targets: Targets = lora["targets"]
    if lora.get("language") == "full":
        targets = "qformer" if targets in ("qformer", "both") else "none"
    patterns = []
    if lora.get("modules") is not None:
        patterns.append(lora["modules"])
    elif targets != "none":
        patterns.append(lora_pattern(targets, text_model, layers))
    if lora.get("vision") == "lora":
        patterns.append(_VISION_LAYERS[layers])
    return "|".join(patterns) or None


def project(modules: Any, tokens: Tensor) -> Tensor:
    """Vision tokens (B, T, W) -> input of the language model (B, queries, D), by the Q-Former and its projection.

    Args:
        modules: Has ``query_tokens``, ``qformer`` and ``language_projection``.
        tokens: Output of the vision transformer.
    """
    mask = torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device)
    queries = modules.query_tokens.expand(len(tokens), -1, -1)
    out = modules.qformer(query_embeds=queries, encoder_hidden_states=tokens, encoder_attention_mask=mask)
    projection = modules.language_projection
    projected: Tensor = projection(out.last_hidden_state.to(projection.weight.dtype))
    return projected


class Blip2VisionEncoder(nn.Module):
    """The modules whose output is cached, moved out of the network: frozen, and needed only while it encodes.

    A vision model that trains stays in the network, and this only calls it.
    """

    def __init__(self, network: Any, names: Sequence[str]) -> None:
        super().__init__()
        self._network = (network,)  # in a tuple: not a submodule of this one
        for name in names:
            setattr(self, name, getattr(network, name))
            setattr(network, name, None)
        self.requires_grad_(False).eval()

    @property
    def frozen(self) -> bool:
        """Whether the vision model was moved out of the network."""
        return hasattr(self, VISION)

    @property
    def weight(self) -> Tensor:
        """A frozen weight; its device and type are those of the input."""
        weight: Tensor = next(p for p in self._vision.parameters() if p.is_floating_point())
        return weight

    def trained_digest(self, prefix: str) -> str:
        """SHA-256 over a text and the trained weights of the vision model."""
        return trained_digest(self._network[0], (VISION,), prefix)

    @property
    def _vision(self) -> Any:
        return self.vision_model if self.frozen else self._network[0].vision_model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) -> features (B, tokens, width), with a graph where the vision model trains."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            tokens: Tensor = self._vision(pixel_values=pixel_values).last_hidden_state
            return project(self, tokens) if hasattr(self, "qformer") else tokens


class Blip2Net(AdapterNet):
    """Everything that follows the cached features."""

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether a decoder of its own writes the answer (T5), instead of one model that continues the prompt (OPT)."""
        return not self.base.config.use_decoder_only_language_model

    def forward(self, batch: Batch) -> Tensor:
        """As `AdapterNet.forward`; the images are projected once for both parts of a batch (`LONGER`)."""
        images = self.embed_images(batch)
        longer = {name.removeprefix(LONGER): value for name, value in batch.items() if name.startswith(LONGER)}
        loss = summed_loss(*self._logits(batch, images))
        return loss + summed_loss(*self._logits(longer, images)) if longer else loss

    def answer_logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits and labels of the answers' tokens.

        Of a decoder-only model they are taken at the places of the answers alone, because the product with the
        vocabulary is the widest of the network.
        """
        return self._logits(batch, self.embed_images(batch))

    def _logits(self, batch: Batch, images: Tensor) -> tuple[Tensor, Tensor]:
        embeddings, mask = self._embed(batch, images)
        labels, language = batch["labels"], self.base.language_model
        if self.is_encoder_decoder:
            out = language(inputs_embeds=embeddings, attention_mask=mask, labels=labels, use_cache=False)
            return out.logits, labels
        hidden = language.model(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
        next_tokens = labels[:, 1:]
        answer_places = hidden[:, -labels.shape[1] : -1]
        supervised = next_tokens != IGNORED_LABEL
        return language.lm_head(answer_places[supervised]), next_tokens[supervised]

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Image tokens followed by the embedded words: (N, queries + L, D), and the attention mask."""
        return self._embed(batch, self.embed_images(batch))

    def _embed(self, batch: Batch, images: Tensor) -> tuple[Tensor, Tensor]:
        image = images[batch["image_of"]]
        words = self.base.language_model.get_input_embeddings()(batch["input_ids"])
        mask = batch["attention_mask"]
        image_mask = mask.new_ones(image.shape[:2])
        return torch.cat([image.to(words.dtype), words], 1), torch.cat([image_mask, mask], 1)

    def embed_images(self, batch: Batch) -> Tensor:
        """Each image as input of the language model: (B, queries, D)."""
        if "features" in batch:
            tokens = batch["features"]
        else:
            encoder = self.vision_encoder.to(batch["pixel_values"].device)
            tokens = encoder(batch["pixel_values"].to(encoder.weight.dtype))
        return tokens if self.base.qformer is None else project(self.base, tokens)

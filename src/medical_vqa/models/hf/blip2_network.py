"""BLIP-2's network in two: `Tower`, upstream of the cache and out of reach of training, and `Blip2Net` downstream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from medical_vqa.errors import ModelError
from medical_vqa.models.hf.generation import IGNORE, summed_loss
from medical_vqa.models.hf.lora import Lora, add_lora, keep_trainable_state, matched

if TYPE_CHECKING:
    from medical_vqa.models.base import Batch

Targets = Literal["qformer", "language", "both"]
_VISION = ("vision_model",)
_CONNECTOR = ("qformer", "query_tokens", "language_projection")
_QFORMER_LAYERS = r"qformer\..*\.attention\.(query|value)"
_LANGUAGE_LAYERS = {"t5": r"language_model\..*\.(q|v)", "opt": r"language_model\..*\.(q_proj|v_proj)"}


def preset(targets: Targets, text_model: str) -> str:
    """The pattern of a preset for a language model type, ``t5`` or ``opt``; raises `ModelError` for others."""
    if text_model not in _LANGUAGE_LAYERS:
        raise ModelError(
            f"BLIP-2 with a language model of type {text_model!r} has no preset for LoRA; set model.lora.modules to a "
            r"pattern such as language_model\..*\.(q_proj|v_proj)"
        )
    language = _LANGUAGE_LAYERS[text_model]
    return {"qformer": _QFORMER_LAYERS, "language": language, "both": f"{_QFORMER_LAYERS}|{language}"}[targets]


def upstream_of(model: nn.Module, pattern: str) -> tuple[str, ...]:
    """The modules whose outputs can be kept: the Q-Former is among them when no adapter is in it."""
    learns = any(name.startswith("qformer.") for name in matched(model, pattern))
    return _VISION if learns else _VISION + _CONNECTOR


def connect(owner: Any, tokens: Tensor) -> Tensor:
    """Vision tokens (B, T, W) -> what the language model reads (B, queries, D); `owner` holds the three parts."""
    seen = torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device)
    asked = owner.query_tokens.expand(len(tokens), -1, -1)
    out = owner.qformer(query_embeds=asked, encoder_hidden_states=tokens, encoder_attention_mask=seen).last_hidden_state
    linked: Tensor = owner.language_projection(out.to(owner.language_projection.weight.dtype))
    return linked


class Tower(nn.Module):
    """What is upstream of the cache, taken out of the network: it cannot train, and need not lie on the GPU."""

    def __init__(self, parts: Mapping[str, Any]) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, tokens, width)."""
        vision: Any = self.vision_model
        seen: Tensor = vision(pixel_values=pixel_values).last_hidden_state
        return connect(self, seen) if hasattr(self, "qformer") else seen


class Blip2Net(nn.Module):
    """Everything downstream of the cache; its state is the adapters alone."""

    def __init__(self, adapted: Any, tower: Tower) -> None:
        super().__init__()
        self.adapted = adapted
        self._away = (tower,)  # in a tuple: not a part of this module, neither moved with it nor saved
        keep_trainable_state(self)

    @property
    def base(self) -> Any:
        """The BLIP-2 network with its adapters."""
        return self.adapted.get_base_model() if hasattr(self.adapted, "get_base_model") else self.adapted

    @property
    def tower(self) -> Tower:
        """What is upstream."""
        return self._away[0]

    @property
    def written_apart(self) -> bool:
        """Whether the answer is written by a decoder of its own (T5), not after the prompt (OPT)."""
        return not self.base.config.use_decoder_only_language_model

    def forward(self, batch: Batch) -> Tensor:
        """Cross entropy summed over the tokens of the answers, in nats."""
        embeds, mask = self.embed(batch)
        if self.written_apart:
            logits = self.base.language_model(
                inputs_embeds=embeds, attention_mask=mask, labels=batch["labels"], use_cache=False
            ).logits
            return summed_loss(logits, batch["labels"])
        return summed_loss(*self.continued(embeds, mask, batch["labels"]))

    def continued(self, embeds: Tensor, mask: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and labels of a language model that goes on after the prompt, at the answers' places alone.

        The vocabulary product is the widest of the network, and most places carry no label.
        """
        hidden = self.base.language_model.model(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
        following = labels[:, 1:]
        places = hidden[:, -labels.shape[1] : -1]
        kept = following != IGNORE
        return self.base.language_model.lm_head(places[kept]), following[kept]

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Image tokens before the words: (N, queries + L, D) and its mask."""
        image = self.image(batch)[batch["image_of"]]
        words = self.base.language_model.get_input_embeddings()(batch["input_ids"])
        mask = batch["attention_mask"]
        seen = mask.new_ones(image.shape[:2])
        return torch.cat([image.to(words.dtype), words], 1), torch.cat([seen, mask], 1)

    def image(self, batch: Batch) -> Tensor:
        """Each distinct picture's tokens as the language model reads them: (B, queries, D)."""
        if "features" in batch:
            tokens = batch["features"]
        else:
            device = batch["pixel_values"].device
            tokens = self.tower.to(device)(batch["pixel_values"].to(next(self.tower.parameters()).dtype))
        return tokens if self.base.qformer is None else connect(self.base, tokens)


def adapt(model: Any, lora: Mapping[str, Any]) -> tuple[Any, tuple[str, ...]]:
    """The BLIP-2 network with adapters as the recipe's `lora` says, and the modules upstream of the cache."""
    options = dict(lora)
    targets, own = options.pop("targets"), options.pop("modules", None)
    pattern = own or preset(targets, model.config.text_config.model_type)
    upstream = upstream_of(model, pattern)
    return add_lora(model, Lora(pattern=pattern, **options), frozen=upstream), upstream


def take_out(base: Any, names: Sequence[str]) -> Tower:
    """Move those parts out of the network; they stay callable through the tower alone."""
    parts = {name: getattr(base, name) for name in names}
    for name in names:
        setattr(base, name, None)
    return Tower(parts)

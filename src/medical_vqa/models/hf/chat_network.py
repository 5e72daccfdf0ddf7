"""A chat model's network in two: `Upstream`, which sees and cannot train, and `ChatNet`, downstream of the cache."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from medical_vqa.models.hf.generation import summed_loss
from medical_vqa.models.hf.lora import Lora, add_lora, keep_trainable_state

if TYPE_CHECKING:
    from medical_vqa.models.base import Batch

_LANGUAGE_PARTS = ("language_model", "text_model")
_LANGUAGE_LAYERS = r"(.*\.)?(language_model|text_model)\..*\.(q_proj|v_proj)"

BESIDE_LANGUAGE = r"(?!.*(language_model|text_model)\.).*"
"""Every layer but the language model's: what is never kept in 4 bits, because features and words pass through it."""


class Upstream(nn.Module):
    """The vision part and its projector, taken out of the network but for the moments in which they encode."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._inner = (inner,)  # in a tuple: the network is no part of this
        names = [name for name, _ in inner.named_children() if name not in _LANGUAGE_PARTS]
        self.parts = nn.ModuleDict({name: getattr(inner, name) for name in names})
        self.own = nn.ParameterDict(dict(inner.named_parameters(recurse=False)))  # LLaVA's mark of a line's end
        self.requires_grad_(False).eval()
        self._attach(False)

    def _attach(self, there: bool) -> None:
        for name, part in (*self.parts.items(), *self.own.items()):
            setattr(self._inner[0], name, part if there else None)

    @torch.no_grad()
    def encode(self, pixels: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        """One picture's features: ``tokens`` (T, W), or (parts, T, W) for models that cut a picture up.

        Qwen3-VL adds ``deep`` (layers, T, W): what its first language layers are given besides.
        """
        self.to(device)
        inner: Any = self._inner[0]
        accepted = inspect.signature(inner.get_image_features).parameters
        dtype = next(self.parameters()).dtype
        inputs = {k: _onto(v, device, dtype) for k, v in pixels.items() if k in accepted}
        self._attach(True)
        try:
            found = inner.get_image_features(**inputs, return_dict=True)
        finally:
            self._attach(False)
        deep = getattr(found, "deepstack_features", None)
        return {"tokens": _joined(found.pooler_output)} | (
            {"deep": torch.stack([_joined(layer) for layer in deep])} if deep else {}
        )


class ChatNet(nn.Module):
    """Everything downstream of the cache; its state is the adapters alone."""

    def __init__(self, adapted: Any, upstream: Upstream) -> None:
        super().__init__()
        self.adapted = adapted
        self._away = (upstream,)  # in a tuple: not a part of this module, neither moved with it nor saved
        keep_trainable_state(self)

    @property
    def base(self) -> Any:
        """The network with its adapters."""
        return self.adapted.get_base_model()

    @property
    def upstream(self) -> Upstream:
        """What is upstream of the cache."""
        return self._away[0]

    def forward(self, batch: Batch) -> Tensor:
        """Cross entropy summed over the tokens of the answers, in nats."""
        return summed_loss(*self.answer_logits(batch))

    def answer_logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (N, A, V) at the places that predict the labels (N, A), which end every row."""
        labels = batch["labels"]
        out = self.base(**self.inputs(batch), logits_to_keep=labels.shape[1] + 1, use_cache=False)
        return out.logits[:, :-1], labels

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """What the network takes: tokens, and the features of each row's image."""
        rows = {k.removeprefix("row."): v for k, v in batch.items() if k.startswith("row.")}
        device = batch["row.input_ids"].device
        count = 1 + int(batch["image_of"].max())
        seen = [self._seen(batch, place, device) for place in range(count)]
        own = [seen[place] for place in batch["image_of"].tolist()]
        return rows | {"mm_encoder_outputs": {"image": _Encoded(own)}}

    def _seen(self, batch: Batch, place: int, device: torch.device) -> dict[str, Tensor]:
        if features := _under(batch, f"features.{place}."):
            return features
        return self.upstream.encode(_under(batch, f"picture.{place}."), device)


class _Encoded:
    """What the networks read of ``get_image_features``: each row's projected tokens, and Qwen3's deeper ones."""

    def __init__(self, own: Sequence[Mapping[str, Tensor]]) -> None:
        tokens = [features["tokens"] for features in own]
        # a list of (T, W) where pictures differ in size, one tensor (parts, T, W) where they are cut up
        self.pooler_output: Any = tokens if tokens[0].ndim == 2 else torch.cat(tokens)
        self.deepstack_features: Any = None
        if "deep" in own[0]:
            self.deepstack_features = [list(layer) for layer in zip(*(one["deep"] for one in own), strict=True)]
        self.last_hidden_state = self.hidden_states = self.attentions = None

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name, default)


def adapt(model: Any, lora: Mapping[str, Any]) -> Any:
    """The network with adapters as the recipe's `lora` says, none of them in the vision part."""
    options = {key: value for key, value in lora.items() if key not in ("targets", "modules")}
    pattern = lora.get("modules") or _LANGUAGE_LAYERS
    return add_lora(model, Lora(pattern=pattern, **options), frozen=frozen_parts(model))


def frozen_parts(model: Any) -> list[str]:
    """Names of the parts whose outputs are kept: everything inside but the language model."""
    return [f"model.{name}" for name, _ in model.model.named_children() if name not in _LANGUAGE_PARTS]


def language_weights(model: nn.Module) -> int:
    """How many numbers the frozen matrices of the language model hold, those that 4-bit loading packs."""
    layers = [layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and "lora_" not in name
              and not re.fullmatch(BESIDE_LANGUAGE, name)]  # fmt: skip
    return sum(layer.weight.numel() for layer in layers)


def _joined(found: Tensor | Sequence[Tensor]) -> Tensor:
    return found if isinstance(found, Tensor) else torch.cat(list(found))


def _under(batch: Batch, prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in batch.items() if key.startswith(prefix)}


def _onto(value: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    return value.to(device, dtype) if value.is_floating_point() else value.to(device)

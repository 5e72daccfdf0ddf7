"""A chat model's network in two halves: the frozen `ChatVisionEncoder`, and `ChatNet` with the adapters."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from medical_vqa.models.hf.adapter_model import AdapterNet
from medical_vqa.models.hf.lora import Lora, add_lora, continue_lora

if TYPE_CHECKING:
    from medical_vqa.models.base import Batch

_LANGUAGE_PARTS = ("language_model", "text_model")
_LANGUAGE_LAYERS = {
    "attention": r"(.*\.)?(language_model|text_model)\..*\.(q_proj|v_proj)",
    "all-linear": r"(.*\.)?(language_model|text_model)\..*",
}


class ChatVisionEncoder(nn.Module):
    """The vision modules and their projector, attached to the network only while they encode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = (network,)  # in a tuple: not a submodule of this one
        names = [name for name, _ in network.named_children() if name not in _LANGUAGE_PARTS]
        self.parts = nn.ModuleDict({name: getattr(network, name) for name in names})
        self.own = nn.ParameterDict(dict(network.named_parameters(recurse=False)))  # LLaVA's token of a line's end
        self.requires_grad_(False).eval()
        self._attach(False)

    def _attach(self, attached: bool) -> None:
        for name, part in (*self.parts.items(), *self.own.items()):
            setattr(self._network[0], name, part if attached else None)

    @torch.no_grad()
    def encode(self, pixels: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        """Features of one picture.

        Args:
            pixels: Output of the processor.
            device: Where to encode.

        Returns:
            ``tokens`` (T, W), or (parts, T, W) for models that divide a picture. Qwen3-VL has ``deepstack``
            (layers, T, W) as well, which its first language layers add.
        """
        self.to(device)
        network: Any = self._network[0]
        accepted = inspect.signature(network.get_image_features).parameters
        dtype = next(self.parameters()).dtype
        inputs = {
            name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for name, value in pixels.items()
            if name in accepted
        }
        self._attach(True)
        try:
            output = network.get_image_features(**inputs, return_dict=True)
        finally:
            self._attach(False)
        features = {"tokens": _joined(output.pooler_output)}
        if deepstack := getattr(output, "deepstack_features", None):
            features["deepstack"] = torch.stack([_joined(layer) for layer in deepstack])
        return features


class ChatNet(AdapterNet):
    """Everything that follows the cached features."""

    def answer_logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (N, A, V) at the places that predict the labels (N, A), which are the end of every row."""
        labels = batch["labels"]
        out = self.base(**self.inputs(batch), logits_to_keep=labels.shape[1] + 1, use_cache=False)
        return out.logits[:, :-1], labels

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Input of the network: token ids, and the features of each row's image."""
        rows = _with_prefix(batch, "row.")
        device = batch["row.input_ids"].device
        images = 1 + int(batch["image_of"].max())
        features = [self._features(batch, image, device) for image in range(images)]
        features_of_rows = [features[image] for image in batch["image_of"].tolist()]
        return rows | {"mm_encoder_outputs": {"image": _ImageFeatures(features_of_rows)}}

    def _features(self, batch: Batch, image: int, device: torch.device) -> dict[str, Tensor]:
        if features := _with_prefix(batch, f"features.{image}."):
            return features
        encoded: dict[str, Tensor] = self.vision_encoder.encode(_with_prefix(batch, f"pixels.{image}."), device)
        return encoded


class _ImageFeatures:
    """What the networks read of ``get_image_features``: each row's projected tokens, and Qwen3-VL's deepstack."""

    def __init__(self, features_of_rows: Sequence[Mapping[str, Tensor]]) -> None:
        tokens = [features["tokens"] for features in features_of_rows]
        # a list of (T, W) where pictures differ in size, one tensor (parts, T, W) where they are divided
        self.pooler_output: Any = tokens if tokens[0].ndim == 2 else torch.cat(tokens)
        self.deepstack_features: Any = None
        if "deepstack" in features_of_rows[0]:
            layers = zip(*(features["deepstack"] for features in features_of_rows), strict=True)
            self.deepstack_features = [list(layer) for layer in layers]
        self.last_hidden_state = None
        self.hidden_states = None
        self.attentions = None

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name, default)


def adapt(network: Any, lora: Mapping[str, Any], initial: Path | None = None) -> tuple[Any, tuple[str, ...]]:
    """The network with adapters, and the names of the modules whose output is cached.

    The latter are all but the language model; no adapter may be inside them.

    Args:
        network: The published network.
        lora: Fresh adapters as a recipe describes them.
        initial: A folder with adapters to start from instead.
    """
    options = {key: value for key, value in lora.items() if key not in ("targets", "modules", "layers")}
    pattern = lora.get("modules") or _LANGUAGE_LAYERS[lora.get("layers", "attention")]
    names = tuple(f"model.{name}" for name, _ in network.model.named_children() if name not in _LANGUAGE_PARTS)
    if initial is not None:
        return continue_lora(network, initial, frozen=names), names
    return add_lora(network, Lora(pattern=pattern, **options), frozen=names), names


def _joined(output: Tensor | Sequence[Tensor]) -> Tensor:
    return output if isinstance(output, Tensor) else torch.cat(list(output))


def _with_prefix(batch: Batch, prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in batch.items() if key.startswith(prefix)}

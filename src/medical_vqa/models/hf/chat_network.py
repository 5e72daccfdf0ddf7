"""A chat model's network in two halves: the frozen `ChatVisionEncoder`, and `ChatNet` with all that trains.

    picture -> tower -> [A] -> projector -> [B] -> language model <- prompt

B is cached per picture when only the language model trains, A when the projector does, and nothing when the tower does.
Between A and B each network has code of its own (pixel shuffle, windows, tiles put together), so A is not fed into the
projector but given out again in place of the tower: the rest of ``get_image_features`` then runs as published.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from medical_vqa.errors import ModelError
from medical_vqa.models.hf.adapter_net import AdapterNet
from medical_vqa.models.hf.lora import (
    LORA_SIZES,
    Lora,
    adapter_modules,
    add_lora,
    continue_lora,
    savable_modules,
    trained_digest,
    trains_language_wholly,
)
from medical_vqa.models.memory import is_within

if TYPE_CHECKING:
    from medical_vqa.models.base import Batch

_LANGUAGE_PARTS = ("language_model", "text_model")
_LANGUAGE_LAYERS = {
    "attention": r"(.*\.)?(language_model|text_model)\..*\.(q_proj|v_proj)",
    "all-linear": r"(.*\.)?(language_model|text_model)\..*",
}
_TOWER = r"(.*\.)?(vision_tower|vision_model|visual)\.(?!merger|deepstack_merger_list|head\.).*"
_VISION_LAYERS = {"attention": rf"{_TOWER}\.(q_proj|v_proj|qkv)", "all-linear": _TOWER}
_QWEN_PROJECTORS = ("merger", "deepstack_merger_list")
"""Inside the vision part of a Qwen-VL."""


@dataclass(frozen=True, slots=True)
class VisionParts:
    """Names of the vision modules of a network without its head (``network.model``)."""

    all: tuple[str, ...]
    """Everything but the language model."""
    tower: tuple[str, ...]
    """The vision encoder; empty where it is not known."""
    projector: tuple[str, ...]
    """What turns its output into the language model's input; empty where it is not known."""

    @classmethod
    def of(cls, network: nn.Module) -> VisionParts:
        """The parts of a network, by the names that transformers gives them."""
        names = [name for name, _ in network.named_children() if name not in _LANGUAGE_PARTS]
        if "visual" in names:
            visual = network.get_submodule("visual")
            children = [name for name, part in visual.named_children() if any(True for _ in part.parameters())]
            projector = tuple(f"visual.{name}" for name in children if name in _QWEN_PROJECTORS)
            tower = tuple(f"visual.{name}" for name in children if name not in _QWEN_PROJECTORS)
            return cls(tuple(names), tower if projector else (), projector)
        tower = tuple(name for name in names if name in ("vision_tower", "vision_model"))
        projector = tuple(name for name in names if name in ("multi_modal_projector", "connector"))
        return cls(tuple(names), tower, projector)

    def prefixed(self, names: Sequence[str]) -> tuple[str, ...]:
        """Names in the network with its head."""
        return tuple(f"model.{name}" for name in names)


class ChatVisionEncoder(nn.Module):
    """The vision modules as far as they are frozen, attached to the network only while they encode."""

    def __init__(self, network: nn.Module, cached: Sequence[str]) -> None:
        """Take the modules whose output is cached out of the network.

        Args:
            network: The network without its head.
            cached: Names of these modules in it.
        """
        super().__init__()
        self._network = (network,)  # in a tuple: not a submodule of this one
        self._parts = VisionParts.of(network)
        self.frozen = bool(cached)
        """Whether anything is cached; otherwise the vision encoder trains."""
        self.projects = not cached or set(cached) == set(self._parts.all)
        """Whether the features are those that enter the language model; otherwise the projector follows them."""
        self.cached = nn.ModuleDict({name.replace(".", "/"): network.get_submodule(name) for name in cached})
        # LLaVA's token of a line's end
        self.own = nn.ParameterDict(dict(network.named_parameters(recurse=False)) if cached and self.projects else {})
        self.requires_grad_(False).eval()
        self._lock = threading.RLock()  # a server encodes one picture while it answers about another
        for place in (*self.cached, *self.own):
            setattr(*self._place(place), None)

    def _place(self, place: str) -> tuple[Any, str]:
        parent, _, name = place.rpartition("/")
        return self._network[0].get_submodule(parent.replace("/", ".")), name

    @contextmanager
    def _attached(self, modules: Mapping[str, Any]) -> Iterator[None]:
        """A block in which the network has other modules at some places."""
        with self._lock:
            places = [self._place(place) for place in modules]
            previous = [getattr(*place) for place in places]
            for place, module in zip(places, modules.values(), strict=True):
                setattr(*place, module)
            try:
                yield
            finally:
                for place, module in zip(places, previous, strict=True):
                    setattr(*place, module)

    @property
    def weight(self) -> Tensor:
        """A frozen weight of the tower; its type is that of the pixels."""
        tower = self if self.frozen else self._network[0].get_submodule(self._parts.all[0])
        return next(p for p in tower.parameters() if p.is_floating_point())

    def trained_digest(self, prefix: str) -> str:
        """SHA-256 over a text and the trained weights of the vision modules."""
        return trained_digest(self._network[0], self._parts.all, prefix)

    def encode(self, pixels: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        """What is cached of one picture, or what enters the language model where nothing is.

        Args:
            pixels: Output of the processor.
            device: Where to encode.

        Returns:
            ``tokens`` (T, W), or (parts, T, W) for models that divide a picture. Qwen3-VL has ``deepstack``
            (layers, T, W) as well, which its first language layers add. Where the projector trains, ``tower.NAME`` are
            outputs of the tower, and ``input.NAME`` what else the network reads of the picture.
        """
        self.to(device)
        if not self.frozen:
            return self._project(pixels, device)
        with torch.no_grad():
            if self.projects:
                with self._attached(dict(self.cached) | dict(self.own)):
                    return self._project(pixels, device)
            recorded: dict[str, Tensor] = {}
            with self._attached(self._recording(recorded)), suppress(_ProjectorReachedError):
                self._project(pixels, device)
        sizes = {name: value for name, value in pixels.items() if not value.is_floating_point() and value.ndim < 3}
        shape = torch.tensor(pixels["pixel_values"].shape)
        inputs = {f"input.{name}": value for name, value in (sizes | {"pixel_values": shape}).items()}
        return {name: value.clone() for name, value in (recorded | inputs).items()}  # a file holds no shared memory

    def project(self, features: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        """What enters the language model, from what was cached."""
        if "tokens" in features:
            return dict(features)
        pixels = {name.removeprefix("input."): value for name, value in features.items() if name.startswith("input.")}
        shape = pixels["pixel_values"].tolist()
        pixels["pixel_values"] = torch.ones(1, device=device).expand(shape)  # only its shape is read
        tower = {name.removeprefix("tower."): value for name, value in features.items() if name.startswith("tower.")}
        with self._attached(self._replaying({name: value.to(device) for name, value in tower.items()})):
            return self._project(pixels, device)

    def _project(self, pixels: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        network: Any = self._network[0]
        accepted = inspect.signature(network.get_image_features).parameters
        dtype = self.weight.dtype
        inputs = {
            name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for name, value in pixels.items()
            if name in accepted
        }
        output = network.get_image_features(**inputs, return_dict=True)
        features = {"tokens": _joined(output.pooler_output)}
        if deepstack := getattr(output, "deepstack_features", None):
            features["deepstack"] = torch.stack([_joined(layer) for layer in deepstack])
        return features

    def _recording(self, recorded: dict[str, Tensor]) -> dict[str, Any]:
        """The tower, which records the outputs that are read after it, and a stop before the projector."""
        if "visual/blocks" not in self.cached:
            (projector,) = self._parts.projector
            towers = {name: _RecordedTower(tower, recorded) for name, tower in self.cached.items()}
            return towers | {projector: _Stop()}
        blocks: Any = self.cached["visual/blocks"]
        read = {len(blocks) - 1, *getattr(self._network[0].visual, "deepstack_visual_indexes", ())}
        recording = [_RecordedBlock(b, i, recorded) if i in read else b for i, b in enumerate(blocks)]
        ended = {"visual/merger": _Stop(), "visual/deepstack_merger_list": nn.ModuleList(nn.Identity() for _ in blocks)}
        present = {name: module for name, module in ended.items() if name.replace("/", ".") in self._parts.projector}
        return dict(self.cached) | present | {"visual/blocks": nn.ModuleList(recording)}

    def _replaying(self, recorded: Mapping[str, Tensor]) -> dict[str, Any]:
        """Stand-ins of the tower that give out what was recorded."""
        if "visual/blocks" not in self.cached:
            return {name: _ReplayedTower(recorded, tower) for name, tower in self.cached.items()}
        layers: Any = self.cached["visual/blocks"]
        any_output = next(iter(recorded.values()))
        blocks = nn.ModuleList([_ReplayedBlock(recorded.get(str(index))) for index in range(len(layers))])
        return {name: _Zeros(any_output) for name in self.cached} | {"visual/blocks": blocks}


class _ProjectorReachedError(Exception):
    """Ends the encoding of a picture before its projector, which trains and may be on another device."""


class _Stop(nn.Module):
    def forward(self, *_: Any, **__: Any) -> Any:
        raise _ProjectorReachedError


class _RecordedTower(nn.Module):
    """A tower; what is read of its output is recorded."""

    def __init__(self, tower: nn.Module, recorded: dict[str, Tensor]) -> None:
        super().__init__()
        self._tower = (tower,)
        self._recorded = recorded

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return _RecordedOutput(self._tower[0](*inputs, **named), self._recorded)


class _RecordedOutput:
    def __init__(self, output: Any, recorded: dict[str, Tensor]) -> None:
        self._output = output
        self._recorded = recorded

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._output, name)
        if name == "hidden_states":
            return _RecordedLayers(value, self._recorded)
        if isinstance(value, Tensor):
            self._recorded[f"tower.{name}"] = value
        return value


class _RecordedLayers:
    def __init__(self, layers: Sequence[Tensor], recorded: dict[str, Tensor]) -> None:
        self._layers = layers
        self._recorded = recorded

    def __getitem__(self, index: int) -> Tensor:
        self._recorded[f"tower.{index}"] = self._layers[index]
        return self._layers[index]


class _ReplayedTower(nn.Module):
    """Returns what a `_RecordedTower` recorded: layers by their index, other outputs by their name."""

    def __init__(self, recorded: Mapping[str, Tensor], tower: Any) -> None:
        super().__init__()
        self._recorded = recorded
        self.patch_size = getattr(tower, "patch_size", None)  # Pixtral's is read behind the projector

    def forward(self, *_: Any, **__: Any) -> Any:
        layers = {int(name): value for name, value in self._recorded.items() if name.lstrip("-").isdecimal()}
        return SimpleNamespace(**self._recorded, hidden_states=layers)


class _RecordedBlock(nn.Module):
    """A layer of a Qwen-VL's tower whose output is recorded."""

    def __init__(self, block: nn.Module, index: int, recorded: dict[str, Tensor]) -> None:
        super().__init__()
        self._block = (block,)
        self._name = f"tower.{index}"
        self._recorded = recorded

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        output: Tensor = self._block[0](*inputs, **named)
        self._recorded[self._name] = output
        return output


class _ReplayedBlock(nn.Module):
    def __init__(self, output: Tensor | None) -> None:
        super().__init__()
        self._output = output

    def forward(self, tokens: Tensor, **_: Any) -> Tensor:
        return tokens if self._output is None else self._output


class _Zeros(nn.Module):
    """Stands in for the embeddings of patches and positions of a Qwen-VL, whose blocks are replayed."""

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self._like = like

    def forward(self, inputs: Tensor, *_: Any, **__: Any) -> Tensor:
        shape = inputs.shape[:1] if inputs.is_floating_point() else inputs.shape  # patches, or indices of positions
        return self._like.new_zeros(()).expand(*shape, self._like.shape[-1])


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
        features = _with_prefix(batch, f"features.{image}.")
        if not features:
            features = self.vision_encoder.encode(_with_prefix(batch, f"pixels.{image}."), device)
        projected: dict[str, Tensor] = self.vision_encoder.project(features, device)
        return projected


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

    The latter are all but the language model, or the tower alone when the projector trains, or none when the tower
    does; nothing inside them trains.

    Args:
        network: The published network.
        lora: Fresh adapters as a recipe describes them.
        initial: A folder with adapters to start from instead.

    Raises:
        ModelError: The parts that should train are not known of this type of network.
    """
    parts = VisionParts.of(network.model)
    tower, projector = parts.prefixed(parts.tower), parts.prefixed(parts.projector)
    in_place = language_modules(network) if trains_language_wholly(lora, initial) else ()
    if initial is not None:
        changed = adapter_modules(initial, network)
        vision_trains = any(is_within(name, tower) for name in changed)
        projector_trains = any(is_within(name, projector) for name in changed)
    else:
        vision, projector_trains = lora.get("vision", "none"), lora.get("projector", False)
        vision_trains = vision != "none"
    if (vision_trains and not tower) or (projector_trains and not projector):
        raise ModelError(
            f"where the vision encoder of a model of type {network.config.model_type} ends and its projector begins is "
            "not known; set model.lora.projector: false and model.lora.vision: none, or use another checkpoint"
        )
    cached = () if vision_trains else tower if projector_trains else parts.prefixed(parts.all)
    if initial is not None:
        return continue_lora(network, initial, frozen=cached, in_place=in_place), cached
    full = (*(tower if vision == "full" else ()), *(projector if projector_trains else ()))
    sizes = {name: lora[name] for name in LORA_SIZES if name in lora}
    trained = savable_modules(network, full)
    adapters = Lora(pattern=_pattern(lora), trained_modules=trained, in_place=in_place, **sizes)
    return add_lora(network, adapters, frozen=cached), cached


def language_modules(network: Any) -> tuple[str, ...]:
    """Names of the language model and its head."""
    names = [f"model.{name}" for name, _ in network.model.named_children() if name in _LANGUAGE_PARTS]
    return (*names, *(name for name, _ in network.named_children() if name == "lm_head"))


def _pattern(lora: Mapping[str, Any]) -> str | None:
    """All layers that get adapters; None for none."""
    layers = lora.get("layers", "attention")
    patterns = []
    if lora.get("modules") is not None:
        patterns.append(lora["modules"])
    elif lora.get("targets") != "none" and lora.get("language") != "full":
        patterns.append(_LANGUAGE_LAYERS[layers])
    if lora.get("vision") == "lora":
        patterns.append(_VISION_LAYERS[layers])
    return "|".join(patterns) or None


def _joined(output: Tensor | Sequence[Tensor]) -> Tensor:
    return output if isinstance(output, Tensor) else torch.cat(list(output))


def _with_prefix(batch: Batch, prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in batch.items() if key.startswith(prefix)}

"""The families of published checkpoints as recipes and bundles know them: options and capabilities, without torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from medical_vqa.config.recipe import Count, Fraction, ModelOptions, Positive, Section
from medical_vqa.models.base import ModelFamily
from medical_vqa.models.options import AugmentOptions

LANGUAGE_FILE = "language_model.safetensors"
"""File of a bundle with the weights of a language model that trained wholly."""


class LoraOptions(Section):
    """What trains: low-rank adapters, their places and sizes, and the modules that train in addition."""

    targets: Literal["qformer", "language", "both", "none"] = "language"
    """The Q-Former, the language model, or both; none, so that only the projector or the vision encoder trains."""
    language: Literal["lora", "full"] = "lora"
    """Train the language model by adapters (`targets` says whether), or all its weights, in fp32."""
    layers: Literal["attention", "all-linear"] = "attention"
    """Query and value projections of the targets, or all their linear layers except the head."""
    modules: str | None = None
    """A regular expression over full dotted layer names, in place of `targets` and their `layers`."""
    rank: Count = 8
    """Width of the bottleneck."""
    alpha: Positive = 32.0
    """The update is scaled by alpha / rank."""
    dropout: Fraction = 0.1
    """Dropout of an adapter's input in training."""
    dora: bool = False
    """Learn magnitudes apart from directions (DoRA)."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) (rank-stabilized LoRA), so that a large rank does not weaken the update."""
    projector: bool = False
    """Train all weights, in fp32, of what projects the vision encoder's output into the language model."""
    projector_rate: Positive = 1.0
    """Factor of the learning rate for the projector."""
    vision: Literal["none", "lora", "full"] = "none"
    """Train the vision encoder: by adapters (`layers` chooses where), or all its weights, in fp32. Nothing is cached
    then: it runs in every step, and `--plan` counts its activations."""
    vision_rate: Positive = 0.2
    """Factor of the learning rate for the vision encoder; 0.2 is that of LLaVA-OneVision."""

    @model_validator(mode="after")
    def _something_trains(self) -> Self:
        adapters = self.targets != "none" or self.modules is not None
        if not adapters and not self.projector and self.vision == "none" and self.language == "lora":
            raise ValueError(
                "nothing would train: targets is none; set projector: true, vision: lora or full, language: full, or "
                "targets: language"
            )
        return self


class ChatLoraOptions(LoraOptions):
    """What trains of a chat model."""

    targets: Literal["language", "none"] = "language"
    """The language model; none, so that only the projector or the vision encoder trains."""
    rank: Count = 16
    """Width of the bottleneck."""


class CheckpointOptions(ModelOptions):
    """What every published checkpoint needs."""

    checkpoint: str
    """A hub id, or a folder in the hub's layout."""
    revision: str | None = None
    """Branch, tag or commit on the hub; None for its newest. The resolved commit is written into the bundle."""
    augment: AugmentOptions | None = None
    """Random changes to training pictures; not together with `features`."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of storing them: less memory, a third more time."""


class ViltOptions(CheckpointOptions):
    """ViLT with a fresh classification head; all of it is trained."""

    checkpoint: str = "dandelin/vilt-b32-mlm"
    """A hub id, or a folder in the hub's layout."""


class AdapterOptions(CheckpointOptions):
    """A frozen language model with adapters."""

    features: bool = True
    """Cache the output of what is frozen of the vision part, so that it runs once per image: all of it, or what
    precedes a projector that trains, or nothing where the vision encoder trains."""
    dtype: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Precision of the frozen weights; auto is the precision of the run. Adapters stay fp32."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    """How transformers computes attention; auto takes what it prefers for the model."""
    four_bit: bool = False
    """Store the language model's frozen weights in 4 bits (NF4), by bitsandbytes: needs an NVIDIA GPU and the extra
    `qlora`."""
    initial: str | None = None
    """Adapters to start from in place of fresh ones: a bundle or run of the same family, or a folder with a LoRA
    adapter in PEFT's format, or ``hub:USER/NAME`` for either, of the same checkpoint. They keep their places and sizes;
    only the rates of `lora` have an effect."""
    lora: LoraOptions = LoraOptions()
    """What trains."""

    @model_validator(mode="after")
    def _augment_or_features(self) -> Self:
        if self.features and self.augment is not None:
            raise ValueError(
                "augment changes the pictures in every epoch while features caches the vision part's output for the "
                "unchanged ones; set augment: null or features: false"
            )
        return self

    @model_validator(mode="after")
    def _whole_or_four_bit(self) -> Self:
        if self.four_bit and self.lora.language == "full":
            raise ValueError(
                "lora.language full trains the weights that four_bit stores in 4 bits, which cannot be trained; set "
                "four_bit: false, or lora.language: lora"
            )
        return self


class Blip2Options(AdapterOptions):
    """BLIP-2 with LoRA."""

    checkpoint: str = "Salesforce/blip2-flan-t5-xl"
    """A hub id, or a folder in the hub's layout."""
    prompt: str = "Answer the following question based on the image: {question}"
    """What the language model reads after the image."""


class ChatOptions(AdapterOptions):
    """A vision-language chat model with LoRA, DoRA or 4-bit QLoRA."""

    checkpoint: str = "Qwen/Qwen2.5-VL-3B-Instruct"
    """A hub id, or a folder in the hub's layout."""
    prompt: str = "{question}\nAnswer with a word or a short phrase."
    """The user's turn, after the image."""
    lora: ChatLoraOptions = ChatLoraOptions()
    """What trains."""
    side: Annotated[int, Field(ge=28, le=2048)] = 448
    """Longest side of a picture, pixels: more pixels are more tokens."""
    splitting: bool = True
    """Let models that divide a picture into tiles do so; false saves most of their tokens (`--plan` counts them)."""


class _CheckpointFamily(ModelFamily):
    """What the families of published checkpoints share."""

    trainable = True
    needs_torch = True
    estimates_memory = True
    extras = ("train", "hub")


class ViltFamily(_CheckpointFamily):
    """ViLT: a classifier over the training answers."""

    family = "vilt"
    implementation = "medical_vqa.models.hf.vilt:Vilt"
    Options = ViltOptions
    has_closed_answers = True
    library = "transformers"
    library_usage = "ViltForQuestionAnswering.from_pretrained(THIS_REPOSITORY)"


class Blip2Family(_CheckpointFamily):
    """BLIP-2: writes its answers."""

    starts_from_bundle = True

    family = "blip2"
    implementation = "medical_vqa.models.hf.blip2:Blip2"
    Options = Blip2Options
    merges = True
    library = "peft"
    library_usage = "PeftModel.from_pretrained(base, THIS_REPOSITORY), base = {checkpoint}"


class ChatFamily(_CheckpointFamily):
    """Any model that transformers loads as ``AutoModelForImageTextToText``: writes its answers."""

    reads_conversations = True

    starts_from_bundle = True

    family = "chat"
    implementation = "medical_vqa.models.hf.chat:ChatVlm"
    Options = ChatOptions
    merges = True
    library = "peft"
    library_usage = "PeftModel.from_pretrained(base, THIS_REPOSITORY), base = {checkpoint}"

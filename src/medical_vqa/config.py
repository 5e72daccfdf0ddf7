"""Recipe: everything that makes a training run, from YAML and back; unknown keys are refused, with the nearest named.

    name: slake-compact
    data: {name: slake, where: {language: en}}
    model: {family: compact}
    training: {epochs: 60, batch_size: 192, learning_rate: 1.0e-3}

Configuration stops at the door: below `pipelines.py` only plain, typed, keyword-only arguments are passed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medical_vqa.errors import ConfigError
from medical_vqa.schema.records import Split
from medical_vqa.text import did_you_mean

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DataRecipe(_Part):
    """Which rows are learned from, and which choose the checkpoint."""

    name: str
    """A dataset by the name it was prepared under: ``slake``."""
    root: Path | None = None
    """Where it was prepared; None for ``$MEDICAL_VQA_HOME/data``."""
    where: dict[str, str] = Field(default_factory=dict)
    """Facts that rows must have: ``{language: en}``."""
    train: Literal["train", "validation"] = "train"
    """The split to learn from; never test."""
    validation: Literal["train", "validation"] | None = "validation"
    """The split that chooses the checkpoint; never test. None: a share of the training groups is held out."""
    validation_fraction: Annotated[float, Field(gt=0.0, le=0.5)] = 0.15
    """Share of the training groups (images, patients) held out when `validation` is None."""
    also: dict[str, str] = Field(default_factory=dict)
    """Facts of further rows to learn from, ``{language: zh}``: of the training split, and only about images that the
    selected training rows ask about, so that no image is both learned from and chosen on."""
    regions: bool = False
    """Learn from masks and boxes too, where the dataset was published with them; the compact family alone can."""


class PictureRecipe(_Part):
    """How every picture is prepared."""

    side: Annotated[int, Field(ge=16, le=2048)] = 160
    """Pixels."""
    mode: Literal["L", "RGB"] = "L"
    """Grayscale or color."""
    fit: Literal["stretch", "pad", "inside"] = "stretch"
    """Stretch to a square, pad to a square, or fit inside it."""


class AugmentRecipe(_Part):
    """Small random changes to training pictures; no flips, because left and right carry meaning."""

    rotate: Annotated[float, Field(ge=0, le=45)] = 10.0
    """Largest turn, degrees, either way."""
    shift: Share = 0.06
    """Largest shift, as a share of the side, each way."""
    scale: Share = 0.1
    """Largest change of size, as a share."""
    intensity: Share = 0.15
    """Largest change of brightness and contrast, as a share."""


class CompactRecipe(_Part):
    """The compact network: sizes and regularization."""

    family: Literal["compact"] = "compact"
    """The small model of our own, trained from scratch."""
    picture: PictureRecipe = PictureRecipe()
    """Grayscale and square."""
    augment: AugmentRecipe | None = AugmentRecipe()
    """None leaves pictures as they are."""
    mirror: Share = 0.0
    """Share of training pictures that are mirrored, with left and right swapped in questions, answers and regions."""
    reword: Share = 0.0
    """Share of training questions that are put in other words by rules."""
    region_weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Weight of what is learned from regions (``data.regions``) beside the answers."""
    foreground: Annotated[int, Field(ge=16, le=2048)] | None = None
    """Side, in pixels, of the square around what is not dark that the network sees of the picture; None: all of it."""
    initial: str | None = None
    """The bundle of a compact model to start from, or ``shipped`` for the one in the package."""
    local_contrast: bool = True
    """The network sees each pixel against what lies around it as well: faint findings, at any exposure."""
    channels: Annotated[tuple[Count, ...], Field(min_length=2, max_length=6)] = (32, 64, 128, 192)
    """Output channels of the stem and each residual block; every one halves the picture's side."""
    width: Annotated[int, Field(ge=8, multiple_of=2)] = 192
    """Width D of words and image tokens."""
    heads: Count = 4
    """Attention heads; must divide `width`."""
    layers: Count = 2
    """Layers in which words attend to each other and to the image."""
    dropout: Share = 0.15
    """Of words, attention, layers and head."""
    label_smoothing: Share = 0.1
    """Share of the target spread over all answers."""
    question_words: Count = 32
    """Longer questions are cut after this many words."""


class BaselineRecipe(_Part):
    """Question-only answers: no picture, no gradient."""

    family: Literal["question-only", "majority"]
    """``question-only`` looks the question up, ``majority`` always gives the commonest answer."""


class LoraRecipe(_Part):
    """Low-rank adapters: where they go and how large they are."""

    targets: Literal["qformer", "language", "both"] = "language"
    """Query and value projections of the Q-Former, of the language model, or of both."""
    modules: str | None = None
    """A regular expression over whole dotted layer names, in place of `targets`."""
    rank: Count = 8
    """Width of the bottleneck."""
    alpha: Positive = 32.0
    """The update is scaled by alpha / rank."""
    dropout: Share = 0.1
    """Share of an adapter's input dropped in training."""
    dora: bool = False
    """Learn magnitudes apart from directions."""


class _Published(_Part):
    """What every published checkpoint needs."""

    checkpoint: str
    """A hub id, or a folder in the hub's layout."""
    revision: str | None = None
    """Branch, tag or commit on the hub; None for its newest. The commit found is written into the bundle."""
    augment: AugmentRecipe | None = None
    """Changes to training pictures; not together with `features`."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more time."""


class ViltRecipe(_Published):
    """ViLT with a fresh classification head, trained whole."""

    family: Literal["vilt"]
    """ViLT."""
    checkpoint: str = "dandelin/vilt-b32-mlm"
    """A hub id, or a folder in the hub's layout."""


class _Prompted(_Published):
    """A frozen language model with adapters."""

    features: bool = True
    """Keep what the frozen vision part makes of each picture, so that it runs once per image and never again."""
    dtype: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Of the frozen weights; auto is the precision of the run. Adapters stay fp32."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.features and self.augment is not None:
            raise ValueError(
                "augment changes the pictures in every epoch while features keeps what the vision part made of the "
                "unchanged ones; set augment: null or features: false"
            )
        return self


class Blip2Recipe(_Prompted):
    """BLIP-2 with LoRA."""

    family: Literal["blip2"]
    """BLIP-2."""
    checkpoint: str = "Salesforce/blip2-flan-t5-xl"
    """A hub id, or a folder in the hub's layout."""
    prompt: str = "Answer the following question based on the image: {question}"
    """What the language model reads after the image."""
    lora: LoraRecipe = LoraRecipe()
    """Adapters."""


class ChatLoraRecipe(LoraRecipe):
    """Low-rank adapters of a chat model."""

    targets: Literal["language"] = "language"
    """Query and value projections of the language model."""
    rank: Count = 16
    """Width of the bottleneck."""


class ChatRecipe(_Prompted):
    """A vision-language chat model with LoRA, DoRA or 4-bit QLoRA."""

    family: Literal["chat"]
    """Any model transformers loads as AutoModelForImageTextToText."""
    checkpoint: str = "Qwen/Qwen2.5-VL-3B-Instruct"
    """A hub id, or a folder in the hub's layout."""
    prompt: str = "{question}\nAnswer with a word or a short phrase."
    """The user's turn, after the image."""
    lora: ChatLoraRecipe = ChatLoraRecipe()
    """Adapters."""
    four_bit: bool = False
    """Keep the frozen weights in 4 bits (NF4), by bitsandbytes: needs an NVIDIA GPU and the extra `qlora`."""
    side: Annotated[int, Field(ge=28, le=2048)] = 448
    """Longest side of a picture, pixels: more pixels are more tokens."""


ModelRecipe = Annotated[
    CompactRecipe | BaselineRecipe | ViltRecipe | Blip2Recipe | ChatRecipe, Field(discriminator="family")
]


class DecodingRecipe(_Part):
    """How answers are chosen, at validation and ever after."""

    method: Literal["greedy", "beam", "rank"] = "greedy"
    """Of models that write: word by word, by beams, or by ranking the training answers. A classifier always ranks."""
    beams: Annotated[int, Field(ge=2, le=64)] = 4
    """How many beginnings ``beam`` follows."""
    max_tokens: Annotated[int, Field(ge=1, le=512)] = 24
    """Longest answer that is written, in tokens."""
    alternatives: Annotated[int, Field(ge=0, le=20)] = 4
    """How many next best answers a prediction carries."""


class TrainingRecipe(_Part):
    """The loop: how long, how fast, how exact, and what chooses the checkpoint."""

    epochs: Count = 60
    """Passes over the training rows."""
    batch_size: Count = 192
    """Questions per optimizer step and process, before accumulation."""
    grouping: Literal["image", "question"] = "image"
    """``image``: all questions of an image in one step, so that it is encoded once; ``question``: rows in any order."""
    accumulate: Count = 1
    """Batches per optimizer step."""
    micro_batch: Count | Literal["auto"] = "auto"
    """Questions on the device at once; a batch is taken in so many parts. ``auto`` begins with the whole batch and
    halves when the device runs out of memory."""
    length_buckets: bool = False
    """Questions of like length share a batch, so that less is padded."""
    learning_rate: Positive = 1e-3
    """Peak rate of AdamW, after the warm-up and before the cosine."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.05
    """Of matrices and kernels; never of biases, norms and embeddings of position."""
    warmup: Share = 0.03
    """Share of all steps over which the rate rises from zero."""
    clip: Positive = 1.0
    """Largest norm of the gradient."""
    average: Share = 0.995
    """Decay of the running average of weights that is evaluated and saved; 0 keeps the last weights."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Of matrix products; auto takes bf16 or fp16 on a GPU and fp32 elsewhere."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``mps``."""
    seed: int = 0
    """Of initial weights, order, dropout and augmentation."""
    evaluate_every: Count = 1
    """Epochs between scores on validation."""
    select: Literal["em", "f1", "last"] = "em"
    """The validation score that chooses the checkpoint; ``last`` takes the final one."""
    patience: Count | None = None
    """Stop after this many scores without a better one; None runs to the end."""
    checkpoint_minutes: Annotated[float, Field(ge=0.0)] = 2.0
    """Minutes between checkpoints to resume from; one is also kept at every epoch that is scored."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Experiment trackers beside ``metrics.jsonl``, through accelerate."""


class Recipe(_Part):
    """A training run, whole."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Names the run folder: ``runs/NAME``."""
    data: DataRecipe
    """What is learned from."""
    model: ModelRecipe
    """What learns."""
    training: TrainingRecipe = TrainingRecipe()
    """How."""
    decoding: DecodingRecipe = DecodingRecipe()
    """How it answers."""

    @model_validator(mode="after")
    def _regions_need_compact(self) -> Self:
        if self.data.regions and self.model.family != "compact":
            raise ValueError(f"data.regions is for the compact family, not for {self.model.family}; set it to false")
        return self

    def to_yaml(self) -> str:
        """Every field, defaults included."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def digest(self) -> str:
        """SHA-256 of the resolved recipe, hex."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def find_recipe(path: Path) -> Path:
    """The recipe file itself, or one that ships with the package, by its name: ``slake-compact``."""
    if path.is_file():
        return path
    package = Path(__file__).parent
    for folder in (package / "recipes", package.parents[1] / "recipes"):
        shipped = folder / f"{path.stem}.yaml"
        if path.parent in (Path(), Path("recipes")) and shipped.is_file():
            return shipped
    return path


def load_recipe(path: Path, overrides: Mapping[str, str] | None = None) -> Recipe:
    """Read a recipe; `overrides` maps dotted keys to YAML values: ``{"training.epochs": "5"}``.

    Raises `ConfigError`, in one sentence, for a missing file, bad YAML, an unknown key or a value out of bounds.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no recipe at {path}; the recipes that come with the project lie in recipes/") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not a readable YAML recipe ({_one_line(error)}); compare recipes/") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected keys such as name, data, model and training, got {type(content).__name__}")
    for key, value in (overrides or {}).items():
        _set(content, key, value)
    return parse_recipe(content, origin=str(path))


def parse_recipe(content: Mapping[str, Any], *, origin: str) -> Recipe:
    """Validate a recipe's content; `origin` begins every message."""
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_explain(error)}") from None


def where_split(name: str) -> Split:
    """A split by the name a person typed; raises `ConfigError`."""
    for split, names in _SPLIT_NAMES.items():
        if name.lower() in names:
            return split
    raise ConfigError(f"unknown split {name!r}; use train, validation or test")


_SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "validate", "valid", "val", "dev"),
    "test": ("test",),
}


def _set(content: dict[str, Any], key: str, value: str) -> None:
    *parents, last = key.split(".")
    place = content
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise ConfigError(f"--set {key}: {parent!r} is a value, not a group of keys; see `recipe.yaml` of any run")
    place[last] = yaml.safe_load(value)


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    families = {"compact", "question-only", "majority", "vilt", "blip2", "chat"}
    location = [str(part) for part in first["loc"] if str(part) not in families]
    key = ".".join(location)
    if first["type"] == "extra_forbidden":
        known = _keys_at(location[:-1])
        otherwise = f"the keys there are {', '.join(sorted(known))}"
        return f"unknown key {key!r}; {did_you_mean(location[-1], known, otherwise=otherwise)}"
    if first["type"] == "missing":
        return f"missing key {key!r}; add it"
    got = first.get("input")
    shown = "" if isinstance(got, dict) else f", got {got!r}"
    return f"{key or 'recipe'}: {first['msg'][0].lower()}{first['msg'][1:]}{shown}; correct it"


def _keys_at(location: list[str]) -> set[str]:
    tables: dict[str, tuple[type[_Part], ...]] = {
        "": (Recipe,),
        "data": (DataRecipe,),
        "model": (CompactRecipe, BaselineRecipe, ViltRecipe, Blip2Recipe, ChatRecipe),
        "model.lora": (LoraRecipe,),
        "decoding": (DecodingRecipe,),
        "training": (TrainingRecipe,),
        "model.picture": (PictureRecipe,),
        "model.augment": (AugmentRecipe,),
    }
    return {name for part in tables.get(".".join(location), ()) for name in part.model_fields}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

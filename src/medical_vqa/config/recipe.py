"""The sections of a recipe. Unknown keys are refused; the family named in `model` validates that section itself.

    name: slake-compact
    data: {name: slake, where: {language: en}}
    model: {family: compact}
    training: {epochs: 60, batch_size: 192, learning_rate: 1.0e-3}

Configuration stops at the pipelines: below them only plain, typed, keyword-only arguments are passed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from medical_vqa import registry
from medical_vqa.errors import ConfigError
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.mistakes import Mistake, MistakesError, mistakes_in, report, shown
from medical_vqa.schema.selection import POOLED

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]


_GATHERING = ContextVar("gathering", default=False)
"""Whether an enclosing section reports the mistakes of those inside it."""


@contextlib.contextmanager
def _gathering() -> Iterator[None]:
    token = _GATHERING.set(True)
    try:
        yield
    finally:
        _GATHERING.reset(token)


class Section(BaseModel):
    """A group of keys: frozen, unknown keys refused, every field described by the docstring under it.

    Wrong content raises `ConfigError`, which lists every mistake.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="wrap")
    @classmethod
    def _report_all(cls, content: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if _GATHERING.get():
            return handler(content)
        try:
            with _gathering():
                return handler(content)
        except ValidationError as error:
            mistakes = mistakes_in(error.errors(include_url=False), cls)
            origin = (info.context or {}).get("origin", cls.__name__)
            raise ConfigError(report(mistakes, origin=origin)) from error


class ModelOptions(Section):
    """The `model` section of a recipe; each family adds its own keys in a subclass, its `Options`."""

    family: str
    """Name of the model family: ``compact``."""


class DatasetRecipe(Section):
    """Rows of one dataset: those that are learned from, and those that choose the checkpoint."""

    name: str
    """A dataset by the name it was prepared under: ``slake``."""
    root: Path | None = None
    """Folder that holds prepared datasets; None for ``$MEDICAL_VQA_HOME/data``."""
    where: dict[str, str] = Field(default_factory=dict)
    """Facts that rows must have: ``{language: en}``."""
    train: Literal["train", "validation", "train+validation"] = "train"
    """The split to learn from; never test. ``train+validation``: the rows of both, once every choice is made; nothing
    is held out then, so no score chooses a checkpoint (`training.select: last`) and none stands in the card."""
    validation: Literal["train", "validation"] | None = "validation"
    """The split that chooses the checkpoint; never test. None: a fraction of the training groups is held out."""
    validation_fraction: Annotated[float, Field(gt=0.0, le=0.5)] = 0.15
    """Fraction of the training groups (images, patients) held out when `validation` is None."""
    also: dict[str, str] = Field(default_factory=dict)
    """Facts of further rows to learn from, ``{language: zh}``: of the training split, and only about images that the
    selected training rows ask about, so that no image is both learned from and chosen on."""
    weight: Annotated[float, Field(gt=0.0, le=100.0)] = 1.0
    """How often an epoch passes over the training rows: 2 takes each twice, 0.5 a random half of the images."""


class DataRecipe(DatasetRecipe):
    """Which rows are learned from, and which choose the checkpoint."""

    regions: bool = False
    """Learn from the masks and boxes published with the dataset too; for families that learn regions. In a mixture they
    are those of the first dataset, and images of the others count as not annotated."""
    mixture: tuple[DatasetRecipe, ...] = ()
    """Further datasets to learn from, with the keys above from `name` to `weight`. Each is scored on its own validation
    rows, and the mean of these scores chooses the checkpoint. A `root` that is not given is the first dataset's."""

    @model_validator(mode="after")
    def _different_datasets(self) -> Self:
        names = [self.name, *(one.name for one in self.mixture)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"mixture: the dataset {twice[0]} occurs twice; name each once, and select its rows with where and also"
            )
        return self


class TrainingRecipe(Section):
    """The training loop: length, rates, precision, and what chooses the checkpoint."""

    epochs: Count = 60
    """Passes over the training rows."""
    batch_size: Count = 192
    """Questions per optimizer step and process, before accumulation."""
    grouping: Literal["image", "question"] = "image"
    """``image``: all questions of an image in one step, so that it is encoded once; ``question``: rows in any order."""
    accumulate: Count = 1
    """Batches per optimizer step."""
    micro_batch: Count | Literal["auto"] = "auto"
    """Questions on the device at once; a batch is split into parts of this size. ``auto`` begins with the full batch
    and halves when the device runs out of memory."""
    length_buckets: bool = False
    """Questions of similar length share a batch, which reduces padding."""
    optimizer: Literal["adamw", "adamw-8bit", "paged-adamw-8bit"] = "adamw"
    """AdamW of torch, or of bitsandbytes (extra `qlora`) with moments in 8 bits, which, paged, may leave the GPU."""
    learning_rate: Positive = 1e-3
    """Peak rate of AdamW, after the warm-up and before the cosine."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.05
    """Weight decay of matrices and kernels; never of biases, norms and position embeddings."""
    warmup: Fraction = 0.03
    """Fraction of all steps over which the rate rises from zero."""
    clip: Positive = 1.0
    """Largest norm of the gradient."""
    average: Fraction = 0.995
    """Decay of the running average of weights that is evaluated and saved; 0 keeps the last weights."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Precision of matrix products; auto takes bf16 or fp16 on a GPU and fp32 elsewhere."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``mps``."""
    seed: int = 0
    """Seed of initial weights, order, dropout and augmentation."""
    evaluate_every: Count = 1
    """Epochs between scores on validation."""
    select: Literal["em", "f1", "last"] = "em"
    """The validation score that chooses the checkpoint; ``last`` takes the final one."""
    patience: Count | None = None
    """Stop after this many scores without a better one; None runs to the end."""
    checkpoint_minutes: Annotated[float, Field(ge=0.0)] = 2.0
    """Minutes between checkpoints to resume from; every epoch that is scored writes one too."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Experiment trackers in addition to ``metrics.jsonl``, through accelerate."""


class Recipe(Section):
    """A complete training run. Wrong content raises `ConfigError`, which lists every mistake."""

    name: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
            json_schema_extra={"expected": "letters, digits, dots, dashes and underscores, a letter or digit first"},
        ),
    ]
    """Names the run folder: ``runs/NAME``."""
    data: DataRecipe
    """Rows to learn from."""
    model: SerializeAsAny[ModelOptions]
    """The model family and its options."""
    training: TrainingRecipe = TrainingRecipe()
    """The training loop."""
    decoding: Decoding = Decoding()
    """How the model answers."""

    @model_validator(mode="wrap")
    @classmethod
    def _report_all(cls, content: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        """Validate the `model` section by its family, and raise one `ConfigError` for the mistakes of all sections.

        The context may hold `origin`, `overrides` and `mistakes` of the reading, as `report` takes them.
        """
        context = info.context or {}
        mistakes = list(context.get("mistakes", ()))
        if isinstance(content, Mapping) and "model" in content:
            try:
                options = model_options(content["model"])
            except MistakesError as error:
                mistakes += error.mistakes
                options = ModelOptions(family="")  # keeps the other sections' mistakes apart from this one's
            content = {**content, "model": options}
        try:
            with _gathering():
                recipe = handler(content)
        except ValidationError as error:
            mistakes += mistakes_in(error.errors(include_url=False), cls)
        else:
            if not mistakes:
                mistakes += _contradictions(recipe)
        if mistakes:
            origin, overrides = context.get("origin", "the recipe"), context.get("overrides", ())
            raise ConfigError(report(mistakes, origin=origin, sections=list(cls.model_fields), overrides=overrides))
        return recipe

    def to_yaml(self) -> str:
        """Every field, defaults included."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def digest(self) -> str:
        """SHA-256 of the resolved recipe, hex."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def _contradictions(recipe: Recipe) -> list[Mistake]:
    """What sections that are right by themselves ask for and cannot have together."""
    mistakes = []
    family = registry.find("models", recipe.model.family)
    if recipe.data.regions and not family.learns_regions:
        text = f"the family {recipe.model.family} learns nothing from regions; set it to false"
        mistakes.append(Mistake("data.regions", text))
    datasets = {"data": recipe.data} | {f"data.mixture.{n}": one for n, one in enumerate(recipe.data.mixture)}
    pooled = [place for place, one in datasets.items() if one.train == POOLED]
    for place in pooled:
        if datasets[place].validation != "validation":
            text = f"{place}.train: {POOLED} learns from all rows, and none can be held out of them; leave this out"
            mistakes.append(Mistake(f"{place}.validation", text))
    if len(pooled) == len(datasets) and recipe.training.select != "last" and not family.counted:
        text = f"with data.train: {POOLED} no rows are left to choose a checkpoint on; set it to last"
        mistakes.append(Mistake("training.select", text))
    return mistakes


def model_options(section: Any) -> ModelOptions:
    """The `model` section, validated by the options of the family that it names; raises `MistakesError`."""
    family = _trainable_family(section)
    options: type[ModelOptions] = family.Options
    if isinstance(section, options):
        return section
    if isinstance(section, ModelOptions):
        text = f"expected {options.__name__} for the family {section.family}, got {type(section).__name__}"
        raise MistakesError([Mistake("model", text)])
    try:
        with _gathering():
            return options.model_validate(section)
    except ValidationError as error:
        owner = f"the family {family.family}"
        raise MistakesError(
            mistakes_in(error.errors(include_url=False), options, prefix=("model",), owner=owner)
        ) from error


def _trainable_family(section: Any) -> Any:
    """The family that a `model` section names; raises `MistakesError`."""
    if not isinstance(section, Mapping | ModelOptions):
        raise MistakesError([Mistake("model", f"expected keys such as family, got {shown(section)}")])
    name = section.family if isinstance(section, ModelOptions) else section.get("family")
    if name is None:
        raise MistakesError([Mistake("model.family", f"missing key; add one of {_trainable_families()}")])
    if not isinstance(name, str):
        text = f"expected the name of a model family, got {shown(name)}; choose one of {_trainable_families()}"
        raise MistakesError([Mistake("model.family", text)])
    try:
        family = registry.find("models", name)
    except ConfigError as error:
        raise MistakesError([Mistake("model.family", str(error))]) from error
    if not family.trainable:
        text = f"{name} only answers and cannot be trained; choose one of {_trainable_families()}"
        raise MistakesError([Mistake("model.family", text)])
    return family


def _trainable_families() -> str:
    return ", ".join(name for name in registry.names("models") if registry.find("models", name).trainable)

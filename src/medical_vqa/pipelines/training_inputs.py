"""From a recipe to what training takes: rows, model family, device, options, and the card of the model to be."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medical_vqa import registry
from medical_vqa.data.prepared.dataset import default_root
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.errors import ConfigError, DataError
from medical_vqa.pipelines.inputs import learned_images, short_digest
from medical_vqa.pipelines.load import HUB, bundle_folder, download_adapter
from medical_vqa.pipelines.queries import answer_coverage, learnable
from medical_vqa.runtime import devices
from medical_vqa.schema.bundle_card import (
    CARD_NAME,
    MOST_DIGESTS,
    BundleCard,
    FurtherData,
    ModelFacts,
    StartingModel,
    TrainingData,
    read_bundle_card,
)
from medical_vqa.schema.records import Example
from medical_vqa.schema.selection import POOLED, Selection

if TYPE_CHECKING:
    from medical_vqa.config import Recipe
    from medical_vqa.config.recipe import DatasetRecipe
    from medical_vqa.data.cache.regions import RegionStore
    from medical_vqa.models.base import ModelFamily, VqaModel
    from medical_vqa.runtime.devices import ComputeChoice


_IMAGE_CHARACTERS = 1_000
"""Characters that have about as many tokens as an image, to put rows of similar length together."""


@dataclass(frozen=True, slots=True)
class TrainingPart:
    """What one dataset contributes."""

    selected: SelectedDataset
    """Dataset and selection of the rows."""
    rows: list[Example]
    """Training rows, each with an answer."""
    validation_rows: list[Example]
    """Rows that choose the checkpoint; none where they are learned from."""
    weight: float
    """How often an epoch passes over the training rows."""


@dataclass(frozen=True, slots=True)
class TrainingInputs:
    """What a recipe resolves to on this machine."""

    recipe: Recipe
    """The recipe."""
    family: type[ModelFamily]
    """Model family of the recipe."""
    compute: ComputeChoice | None
    """Device and precision; None for a family that is counted in one pass."""
    parts: tuple[TrainingPart, ...]
    """The datasets; several in a mixture."""
    regions: RegionStore | None
    """Regions in the images to learn from, where the recipe asks for them."""
    options: dict[str, Any]
    """Keyword arguments of the family's `build` or `fit`."""

    @property
    def selected(self) -> SelectedDataset:
        """The first dataset, with its selection."""
        return self.parts[0].selected

    @property
    def rows(self) -> list[Example]:
        """The training rows of all datasets."""
        return [row for part in self.parts for row in part.rows]

    @property
    def validation_rows(self) -> list[Example]:
        """The rows of all datasets that choose the checkpoint."""
        return [row for part in self.parts for row in part.validation_rows]

    @property
    def weights(self) -> list[float] | None:
        """How often an epoch takes each training row; None where it takes every one once."""
        if all(part.weight == 1.0 for part in self.parts):
            return None
        return [part.weight for part in self.parts for _ in part.rows]

    @property
    def manifest(self) -> str:
        """Hash of the datasets' manifests."""
        digests = [part.selected.manifest.digest for part in self.parts]
        return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()

    @property
    def question_lengths(self) -> list[int] | None:
        """Characters of each row's question and answer, an estimate of its tokens; None without length buckets."""
        if not self.recipe.training.length_buckets:
            return None
        return [self.length_of(row) for row in self.rows]

    def length_of(self, row: Example) -> int:
        """Characters of what the family reads of a row, its answer included; an image counts as a number of them."""
        length = len(row.question) + len(row.answers[0] if row.answers else "")
        if not self.family.reads_conversations:
            return length
        before = len(row.system) + sum(len(turn.question) + len(turn.answer) for turn in row.turns)
        return length + before + _IMAGE_CHARACTERS * len(row.other_image_ids)

    @property
    def note(self) -> str | None:
        """What of the rows the family does not read, in one sentence; None where it reads everything."""
        rows = sum(bool(row.other_image_ids or row.turns or row.system) for row in self.rows)
        if self.family.reads_conversations or not rows:
            return None
        return (
            f"{rows:,} rows have several images, earlier turns or a system message; {self.family.family} models "
            "receive the first image and the last question alone"
        )


def training_inputs(recipe: Recipe) -> TrainingInputs:
    """Resolve a recipe: open its dataset, choose the device, find the bundle to start from.

    Raises:
        ConfigError: The device or precision is not available, or the bundle to start from is of another family.
        DataError: The dataset is not prepared, has no such rows, or training and validation share images.
        MissingDependencyError: The family needs a library that is not installed.
    """
    family = registry.find("models", recipe.model.family)
    settings = recipe.training
    compute = None
    if not family.counted:
        compute = devices.choose_precision(settings.precision, devices.choose_device(settings.device))
    parts = tuple(training_part(one, recipe.data.root) for one in (recipe.data, *recipe.data.mixture))
    refuse_shared_images(parts)
    if family.counted and any(part.weight != 1.0 for part in parts):
        raise ConfigError(f"{family.family} is counted in one pass, which has no weights; leave data.weight out")
    initial: str | None = getattr(recipe.model, "initial", None) if family.starts_from_bundle else None
    folder = initial_bundle(initial, family) if initial else None
    if folder is not None:
        recipe = like_initial(recipe, folder, family)
    options = recipe.model.model_dump(exclude={"family"})
    if folder is not None:
        options["initial"] = folder
        refuse_learned_images(folder, parts)
    if compute is not None and compute.precision == "fp16":
        problem = family.model_class().fp16_problem(**options)
        compute = devices.without_fp16(compute, problem, requested=settings.precision)
    if compute is not None and options.get("dtype") == "auto":
        options["dtype"] = compute.precision
    regions = parts[0].selected.dataset.regions if recipe.data.regions else None
    if regions is not None:
        options["regions"] = regions.names
    return TrainingInputs(recipe, family, compute, parts, regions, options)


def training_part(data: DatasetRecipe, root: Path | None) -> TrainingPart:
    """Open one dataset of a recipe.

    Args:
        data: Its section.
        root: Folder of prepared datasets where the section names none.
    """
    selected = SelectedDataset.open(selection_of(data, root))
    rows = learnable(selected.rows("train"))
    validation_rows = [] if selected.selection.learns_validation else selected.rows("validation")
    refuse_shared_groups(rows, validation_rows)
    return TrainingPart(selected, rows, validation_rows, data.weight)


def select_rows(recipe: Recipe) -> Selection:
    """The rows of the first dataset that a recipe's data section selects."""
    return selection_of(recipe.data)


def selection_of(data: DatasetRecipe, root: Path | None = None) -> Selection:
    """The rows that a section selects; `root` is the folder of prepared datasets where it names none."""
    return Selection(
        dataset=data.name,
        root=(data.root or root or default_root()).expanduser().resolve(),
        where=data.where,
        train=data.train,
        validation=data.validation,
        validation_fraction=data.validation_fraction,
        also=data.also,
    )


def refuse_shared_groups(rows: Sequence[Example], validation_rows: Sequence[Example]) -> None:
    """Raise `DataError` when an image or patient is in both parts: the validation score would mean nothing."""
    shared = {row.group for row in rows} & {row.group for row in validation_rows}
    if shared:
        raise DataError(
            f"{len(shared)} images or patients (such as {min(shared)}) are in both the training and the validation "
            "rows; select one language with data.where, or hold groups out with data.validation: null"
        )


def refuse_shared_images(parts: Sequence[TrainingPart]) -> None:
    """Raise `DataError` when an image trains in one dataset of a mixture and chooses the checkpoint in another."""
    if len(parts) == 1:
        return
    trained = {p.selected.images.digest(image): p for p in parts for image in images_of(p.rows)}
    for part in parts:
        for image in sorted(images_of(part.validation_rows)):
            other = trained.get(part.selected.images.digest(image))
            if other is not None:
                raise DataError(
                    f"{image} is a validation image of {part.selected.dataset.name} and a training image of "
                    f"{other.selected.dataset.name}, so its score would mean nothing; prepare one of them with "
                    "--resplit clean, or leave it out of data.mixture"
                )


def refuse_learned_images(initial: Path, parts: Sequence[TrainingPart]) -> None:
    """Raise `ConfigError` when the model that training starts from learned from images that choose the checkpoint."""
    if not (initial / CARD_NAME).is_file():
        return  # another program's adapter, which says nothing of its rows
    training = read_bundle_card(initial).data
    for part in parts:
        learned = (training is not None and learned_images(training, part.selected)) or frozenset()
        held_out = images_of(part.validation_rows)
        if known := [image for image in held_out if short_digest(part.selected, image) in learned]:
            raise ConfigError(
                f"the model in {initial} learned from {len(known):,} of the validation images of "
                f"{part.selected.dataset.name} (such as {min(known)}), so a score there would mean nothing; start from "
                f"a model that did not (model.initial), or hold no rows of this dataset out (train: {POOLED})"
            )


def images_of(rows: Iterable[Example]) -> set[str]:
    """Ids of all images of some rows."""
    return {image for row in rows for image in row.images}


def initial_bundle(name: str, family: type[ModelFamily]) -> Path:
    """The bundle to start from, with its files checked; raises `ConfigError` when it is of another family."""
    from medical_vqa.models.bundle import check_files

    path = Path(name).expanduser()
    if (path / "adapter_config.json").is_file() and not (path / CARD_NAME).is_file():
        return path  # another program's adapter
    from_hub = name.startswith(HUB) and family.merges
    folder = download_adapter(name.removeprefix(HUB)) if from_hub else bundle_folder(name)
    if from_hub and not (folder / CARD_NAME).is_file():
        return folder  # another program's
    card = read_bundle_card(folder)
    if card.family not in (family.family, family.exported_family):  # an export has the same weights
        raise ConfigError(
            f"{folder} is a {card.family} bundle, and a {family.family} model starts from a {family.family} bundle; "
            "name another in model.initial"
        )
    check_files(folder, card)
    return folder


def like_initial(recipe: Recipe, initial: Path, family: type[ModelFamily]) -> Recipe:
    """The recipe with what its model must share with the one it starts from, for the options that it leaves out.

    Args:
        recipe: The recipe.
        initial: Bundle that its model starts from.
        family: Model family of both.
    """
    shared = {
        name: value for name, value in family.options_of(initial).items() if name not in recipe.model.model_fields_set
    }
    if not shared:
        return recipe
    options = family.Options.model_validate(recipe.model.model_dump() | shared)
    return recipe.model_copy(update={"model": options})


def model_card(inputs: TrainingInputs, model: VqaModel) -> BundleCard:
    """The card of the model that is trained from these inputs; scores are added later."""
    recipe, first, manifest = inputs.recipe, inputs.parts[0], inputs.selected.manifest
    initial = inputs.options.get("initial")
    start = read_bundle_card(initial).data if initial and (initial / CARD_NAME).is_file() else None
    data = TrainingData(
        selection=inputs.selected.selection,
        title=manifest.title,
        manifest=manifest.digest,
        license=manifest.license,
        citation=manifest.citation,
        rows=len(first.rows),
        images=len(images_of(first.rows)),
        weight=first.weight,
        mixture=tuple(_further_data(part) for part in inputs.parts[1:]),
        validation_answer_coverage=answer_coverage(model, inputs.validation_rows) if inputs.validation_rows else None,
        started_from=starting_model(initial) if initial and (initial / CARD_NAME).is_file() else None,
        image_digests=image_digests(inputs.parts, start),
    )
    return BundleCard(
        family=recipe.model.family,
        name=recipe.name,
        data=data,
        facts=ModelFacts.of(model.describe()),
        decoding=recipe.decoding,
        prompt=model.prompt,
        license="; ".join(dict.fromkeys(part.selected.manifest.license for part in inputs.parts)),
    )


def image_digests(parts: Sequence[TrainingPart], start: TrainingData | None) -> tuple[str, ...]:
    """Short digests of the training images and of those of the model that training starts from; empty for too many.

    They are empty, too, where the images of that model are unknown: a list without them would be taken for complete.
    """
    own = {short_digest(part.selected, image) for part in parts for image in images_of(part.rows)}
    earlier = learned_images(start, parts[0].selected) if start is not None else frozenset[str]()
    digests = own | earlier if earlier is not None else set[str]()
    return tuple(sorted(digests)) if len(digests) <= MOST_DIGESTS else ()


def _further_data(part: TrainingPart) -> FurtherData:
    manifest = part.selected.manifest
    return FurtherData(
        selection=part.selected.selection,
        title=manifest.title,
        manifest=manifest.digest,
        license=manifest.license,
        citation=manifest.citation,
        rows=len(part.rows),
        images=len(images_of(part.rows)),
        weight=part.weight,
    )


def starting_model(bundle: Path) -> StartingModel:
    """The model that training starts from, for the new card; raises `ConfigError` when its own says too little."""
    card = read_bundle_card(bundle)
    if card.data is None:
        raise ConfigError(f"{bundle} does not record its training rows; start from a bundle of `medical-vqa train`")
    return StartingModel(
        name=card.name,
        created=card.created,
        title=card.data.title,
        rows=card.data.rows,
        images=card.data.images,
        scores=card.checkpoint_selection.scores if card.checkpoint_selection else {},
        selections=card.data.learned,
    )

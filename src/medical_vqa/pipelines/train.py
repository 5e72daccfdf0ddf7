"""Train a model by a recipe into a run folder."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medical_vqa import registry
from medical_vqa.config import Recipe, load_recipe
from medical_vqa.data.prepared.dataset import default_root
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.errors import ConfigError, DataError
from medical_vqa.pipelines.bundles import find_bundle, shipped_bundle
from medical_vqa.pipelines.load import ANSWER_BATCH
from medical_vqa.pipelines.queries import answer_coverage, learnable, main_process_first, queries
from medical_vqa.runtime import ProgressCallback
from medical_vqa.schema.records import Example
from medical_vqa.schema.selection import Selection

if TYPE_CHECKING:
    from medical_vqa.models.base import Trainable, VqaModel
    from medical_vqa.models.queries import PictureQueries
    from medical_vqa.runtime.devices import ComputeChoice
    from medical_vqa.schema.bundle_card import BundleCard, StartingModel
    from medical_vqa.training.journal import Journal
    from medical_vqa.training.plan import Plan
    from medical_vqa.training.settings import FitResult, Scores, Watcher


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A finished training run; every function that takes the path of a run folder takes this too."""

    run: Path
    """The run folder: recipe, environment, ``metrics.jsonl`` and bundle."""
    bundle: Path
    """Folder of the trained model, inside the run folder."""
    result: FitResult | None
    """Steps, best epoch and seconds; None for a baseline, which is counted in one pass."""

    def __fspath__(self) -> str:
        return str(self.run)


def train(
    recipe: Recipe, run: Path, *, watcher: Watcher, fresh: bool = False, pictures: ProgressCallback | None = None
) -> TrainedRun:
    """Train by the recipe into the run folder, going on from its checkpoint when a run of this recipe was cut short.

    Raises `ConfigError` when the folder holds a finished run or one of another recipe, and `fresh` is not set.
    """
    from medical_vqa.training.journal import Journal

    selected = SelectedDataset.open(selection_of(recipe))
    rows, held_out = learnable(selected.rows("train")), selected.rows("validation")
    refuse_shared_groups(rows, held_out)
    family = registry.find("models", recipe.model.family)
    choice = None if family.counted else chosen_runtime(recipe)
    journal = Journal(run)
    with main_process_first() as main:
        if main:
            claim(journal, recipe, fresh=fresh, manifest=selected.manifest.digest, choice=choice)
    if choice is None:
        return _count_baseline(family, recipe, selected, rows, journal)
    fitted = _fit(recipe, selected, rows, held_out, choice, journal, watcher, pictures)
    return TrainedRun(run, journal.bundle, fitted)


def plan(recipe: Recipe) -> Plan:
    """What training by the recipe will take, from configurations alone; raises like `train`."""
    from medical_vqa.models.memory import estimate_memory
    from medical_vqa.runtime.devices import choose_device, choose_precision, device_memory
    from medical_vqa.training.plan import Plan, count_steps

    family, settings = registry.find("models", recipe.model.family), recipe.training
    if family.counted:
        raise ConfigError(f"{recipe.model.family} is counted in one go and needs no plan; train it")
    rows = learnable(SelectedDataset.open(selection_of(recipe)).rows("train"))
    device = choose_device(settings.device)
    choice = choose_precision(settings.precision, device)
    options = options_of(recipe, choice.precision)
    if family.estimates_memory:
        estimate = family.model_class().memory_estimate(rows, **options)
    else:
        estimate = estimate_memory(family.model_class().build(rows, **options).module)
    memory = estimate.memory(
        batch_size=settings.batch_size,
        precision=choice.precision,
        features=options.get("features", False),
        checkpointing=options.get("gradient_checkpointing", False),
    )
    images = [row.image_id for row in rows]
    keys = {"epochs", "batch_size", "grouping", "accumulate", "seed"}
    steps = count_steps(
        images, lengths_of(rows) if settings.length_buckets else None, **settings.model_dump(include=keys)
    )
    where = f"{choice.device}, {choice.precision}"
    return Plan(estimate, memory, len(rows), len(set(images)), steps, where, device_memory(device))


def _count_baseline(
    family: Any, recipe: Recipe, selected: SelectedDataset, rows: Sequence[Example], journal: Journal
) -> TrainedRun:
    from medical_vqa.models.bundle import write_bundle

    baseline = family.model_class().fit(rows, **recipe.model.model_dump(exclude={"family"}))
    write_bundle(journal.bundle, card_for(recipe, selected, rows, baseline), baseline.save)
    journal.finish({})
    return TrainedRun(journal.folder, journal.bundle, None)


def _fit(
    recipe: Recipe,
    selected: SelectedDataset,
    rows: Sequence[Example],
    held_out: Sequence[Example],
    choice: ComputeChoice,
    journal: Journal,
    watcher: Watcher,
    pictures: ProgressCallback | None,
) -> FitResult:
    from medical_vqa.models.bundle import write_bundle
    from medical_vqa.runtime.devices import seed_everything, use_all_cores
    from medical_vqa.schema.bundle_card import CheckpointSelection
    from medical_vqa.training.loop import fit
    from medical_vqa.training.settings import Callbacks, TrainingSettings

    settings, main = recipe.training, os.environ.get("RANK", "0") == "0"
    family = registry.find("models", recipe.model.family)
    if choice.device == "cuda" and family.estimates_memory:
        plan(recipe).check()  # before gigabytes are read that the GPU cannot hold
    use_all_cores()
    seed_everything(settings.seed)
    regions = selected.dataset.regions if recipe.data.regions else None
    options = options_of(recipe, choice.precision) | ({"regions": regions.names} if regions else {})
    model: Trainable = family.model_class().build(rows, **options)
    card = card_for(recipe, selected, rows, model, held_out)
    asked = queries(selected, held_out, model, progress=pictures, device=choice.device)
    data = queries(selected, rows, model, learn=True, regions=regions, progress=pictures, device=choice.device)

    def keep(scores: Scores, epoch: int) -> None:
        chosen = CheckpointSelection(metric=settings.select, epoch=epoch, scores=scores)
        with tempfile.TemporaryDirectory() as aside:  # where others leave what they only helped to gather (FSDP)
            place = journal.bundle if main else Path(aside) / "bundle"
            write_bundle(place, card.model_copy(update={"checkpoint_selection": chosen}), model.save)

    fitted = fit(
        model,
        data,
        images=data.images,
        lengths=lengths_of(rows) if settings.length_buckets else None,
        settings=TrainingSettings(
            **settings.model_dump(exclude={"device", "precision", "length_buckets"}),
            device=choice.device,
            precision=choice.precision,
        ),
        callbacks=Callbacks(
            evaluate=lambda: validation_scores(model, asked, held_out, card), save=keep, watcher=watcher
        ),
        journal=journal,
    )
    if main:  # `fit` has ended the process group, so there is none to wait with
        journal.finish(dataclasses.asdict(fitted))
    return fitted


def validation_scores(
    model: VqaModel, asked: PictureQueries, held_out: Sequence[Example], card: BundleCard
) -> dict[str, float]:
    """EM and F1 on the rows that choose the checkpoint, each in [0, 1], answered as the bundle will answer."""
    from medical_vqa.evaluation.metrics.exact_match import exact_match
    from medical_vqa.evaluation.metrics.token_overlap import token_f1
    from medical_vqa.evaluation.predicting import answer_all
    from medical_vqa.evaluation.statistics.tally import tally

    answers = {a.id: a for a in answer_all(model, asked, card.decoding, batch_size=ANSWER_BATCH)}
    return {metric.name: tally(metric, held_out, answers).total() or 0.0 for metric in (exact_match(), token_f1())}


def claim(journal: Journal, recipe: Recipe, *, fresh: bool, manifest: str, choice: ComputeChoice | None) -> None:
    """Make the run folder ours: new, emptied because `fresh` was asked for, or cut short and taken up again."""
    from medical_vqa.runtime.environment import environment

    old = journal.folder / "recipe.yaml"
    if fresh:
        journal.clear()
    if old.is_file():
        if load_recipe(old).digest() != recipe.digest():
            raise ConfigError(
                f"{journal.folder} holds a run of another recipe; train with --fresh to replace it, or into --run DIR"
            )
        if journal.finished:
            raise ConfigError(
                f"{journal.folder} holds this run, finished; train with --fresh to do it again, or into --run DIR"
            )
        if journal.manifest() != manifest:
            raise ConfigError(
                f"the rows have changed since {journal.folder} was begun; train with --fresh to begin again"
            )
        if journal.checkpoint() is not None:
            return
        journal.clear()
    facts = {"dataset_manifest": manifest, "device": dataclasses.asdict(choice) if choice else None}
    journal.start(recipe_yaml=recipe.to_yaml(), environment=environment() | facts)


def chosen_runtime(recipe: Recipe) -> ComputeChoice:
    """Device and precision of a training run, with the reason; raises `ConfigError` when they are not to be had."""
    from medical_vqa.runtime.devices import choose_device, choose_precision

    return choose_precision(recipe.training.precision, choose_device(recipe.training.device))


def selection_of(recipe: Recipe) -> Selection:
    """The rows that a recipe's data section selects."""
    data = recipe.data
    root = (data.root or default_root()).expanduser().resolve()
    return Selection(
        dataset=data.name,
        root=root,
        where=data.where,
        train=data.train,
        validation=data.validation,
        validation_fraction=data.validation_fraction,
        also=data.also,
    )


def refuse_shared_groups(rows: Sequence[Example], held_out: Sequence[Example]) -> None:
    """Raise `DataError` when an image or patient is both learned from and chosen on: the score would mean nothing."""
    shared = {row.group for row in rows} & {row.group for row in held_out}
    if shared:
        raise DataError(
            f"{len(shared)} images or patients (such as {min(shared)}) are in both the training and the validation "
            "rows; select one language with data.where, or hold groups out with data.validation: null"
        )


def lengths_of(rows: Sequence[Example]) -> list[int]:
    """Characters of each row's question and answer: near enough to tokens to bring like lengths together."""
    return [len(row.question) + len(row.answers[0]) for row in rows]


def options_of(recipe: Recipe, precision: str) -> dict[str, Any]:
    """What a family's `build` is given: its recipe section, `auto` precision resolved to the run's, bundles found."""
    options = recipe.model.model_dump(exclude={"family"})
    if options.get("initial") and registry.find("models", recipe.model.family).starts_from_bundle:
        options["initial"] = initial_bundle(options["initial"], recipe.model.family)
    return options | {"dtype": precision} if options.get("dtype") == "auto" else options


def initial_bundle(path: str, family: str) -> Path:
    """The bundle to start from, or the one in the package for ``shipped``; its files are checked.

    Raises `ConfigError` when it is of another family.
    """
    from medical_vqa.models.bundle import check_files
    from medical_vqa.schema.bundle_card import read_bundle_card

    folder = shipped_bundle() if path == "shipped" else find_bundle(Path(path))
    card = read_bundle_card(folder)
    if card.family not in (family, registry.find("models", family).exported_family):  # an export has the same weights
        raise ConfigError(
            f"{folder} is a {card.family} bundle, and a {family} model starts from a {family} bundle; name another in "
            "model.initial"
        )
    check_files(folder, card)
    return folder


def starting_model(bundle: Path) -> StartingModel:
    """The model that training starts from, for the new card; raises `ConfigError` when its own says too little."""
    from medical_vqa.schema.bundle_card import StartingModel, read_bundle_card

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
    )


def card_for(
    recipe: Recipe, selected: SelectedDataset, rows: Sequence[Example], model: Any, held_out: Sequence[Example] = ()
) -> BundleCard:
    """The card of the model that this recipe trains on these rows; scores are added later."""
    from medical_vqa.schema.bundle_card import BundleCard, Decoding, ModelFacts, TrainingData

    manifest = selected.manifest
    initial = options_of(recipe, "fp32").get("initial")
    data = TrainingData(
        selection=selected.selection,
        title=manifest.title,
        manifest=manifest.digest,
        license=manifest.license,
        citation=manifest.citation,
        rows=len(rows),
        images=len({row.image_id for row in rows}),
        validation_answer_coverage=answer_coverage(model, held_out) if held_out else None,
        started_from=starting_model(initial) if initial else None,
    )
    return BundleCard(
        family=recipe.model.family,
        name=recipe.name,
        data=data,
        facts=ModelFacts.of(model.describe()),
        decoding=Decoding(**recipe.decoding.model_dump()),
        prompt=model.prompt,
        license=manifest.license,
    )

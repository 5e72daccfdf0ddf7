"""Train a model by a recipe into a run folder."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medical_vqa.config import Recipe, load_recipe
from medical_vqa.errors import ConfigError
from medical_vqa.pipelines.load import ANSWER_BATCH
from medical_vqa.pipelines.plan import plan_of
from medical_vqa.pipelines.preflight import check_bundle
from medical_vqa.pipelines.queries import main_process_first, queries
from medical_vqa.pipelines.training_inputs import TrainingInputs, TrainingPart, model_card, training_inputs
from medical_vqa.schema.mistakes import shown

if TYPE_CHECKING:
    from medical_vqa.models.base import Trainable
    from medical_vqa.models.queries import JoinedQueries
    from medical_vqa.runtime.devices import ComputeChoice
    from medical_vqa.schema.bundle_card import Decoding
    from medical_vqa.training.journal import Journal
    from medical_vqa.training.settings import FitResult, Scores, Watcher

_MOST_CHANGES = 3
"""Changed keys of a recipe that a message names."""


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


def train(recipe: Recipe, run: Path, *, watcher: Watcher, fresh: bool = False) -> TrainedRun:
    """Train by a recipe into a run folder; an interrupted run of the same recipe resumes at its checkpoint.

    Args:
        recipe: The recipe.
        run: The run folder.
        watcher: Receives steps and scores.
        fresh: Whether to discard an earlier run in the folder.

    Raises:
        ConfigError: The folder holds a finished run or one of another recipe and `fresh` is not set, or the device is
            not available.
        DataError: The dataset is not prepared, or has no such rows.
        TrainingError: The loss is not a number; the last checkpoint is kept.
    """
    from medical_vqa.models.bundle import write_bundle
    from medical_vqa.training.journal import Journal

    inputs = training_inputs(recipe)
    journal = Journal(run)
    with main_process_first() as main:
        if main:
            start_or_resume(journal, inputs, fresh=fresh)
    if inputs.compute is None:  # a baseline, which is counted in one pass over the rows
        baseline = inputs.family.model_class().fit(inputs.rows, **inputs.options)
        write_bundle(journal.bundle, model_card(inputs, baseline), baseline.save)
        journal.finish({})
        return TrainedRun(run, journal.bundle, None)
    return TrainedRun(run, journal.bundle, _fit(inputs, inputs.compute, journal, watcher))


def start_or_resume(journal: Journal, inputs: TrainingInputs, *, fresh: bool) -> None:
    """Prepare the run folder: new, cleared because `fresh` is set, or as an interrupted run left it."""
    from medical_vqa.runtime.environment import environment

    folder, manifest = journal.folder, inputs.manifest
    if fresh and folder.is_dir() and any(folder.iterdir()):
        if not (folder / "environment.json").is_file():
            raise ConfigError(f"{folder} holds files and no run, and --fresh would delete them; choose another --run")
        journal.clear()
    if (folder / "recipe.yaml").is_file():
        if changes := _changes(load_recipe(folder / "recipe.yaml"), inputs.recipe):
            raise ConfigError(
                f"{folder} holds a run of another recipe ({', '.join(changes)}); train with --fresh to replace it, or "
                "into --run DIR"
            )
        if journal.finished:
            raise ConfigError(
                f"{folder} holds this run, finished; train with --fresh to do it again, or into --run DIR"
            )
        if journal.manifest() != manifest:
            raise ConfigError(f"the rows have changed since {folder} was begun; train with --fresh to begin again")
        if journal.checkpoint() is not None:
            return
        journal.clear()
    device = dataclasses.asdict(inputs.compute) if inputs.compute else None
    journal.start(
        recipe_yaml=inputs.recipe.to_yaml(),
        environment=environment() | {"dataset_manifest": manifest, "device": device},
    )


def _changes(before: Recipe, now: Recipe) -> list[str]:
    """Each value of a recipe that differs from the one before, as ``training.epochs: 3, now 5``."""

    def values(content: Any, key: str = "") -> dict[str, Any]:
        if not isinstance(content, Mapping) or not content:
            return {key: content}
        parts = [values(value, f"{key}.{name}" if key else name) for name, value in content.items()]
        return {name: value for part in parts for name, value in part.items()}

    old, new = (values(recipe.model_dump(mode="json")) for recipe in (before, now))
    keys = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
    shown_keys = [f"{key}: {shown(old.get(key))}, now {shown(new.get(key))}" for key in keys[:_MOST_CHANGES]]
    return [*shown_keys, *(["..."] if len(keys) > _MOST_CHANGES else [])]


def _fit(inputs: TrainingInputs, compute: ComputeChoice, journal: Journal, watcher: Watcher) -> FitResult:
    """Train by gradient steps; the bundle is rewritten whenever a validation score is the best so far."""
    from medical_vqa.models.bundle import write_bundle
    from medical_vqa.models.queries import JoinedQueries
    from medical_vqa.runtime.devices import seed_everything, use_all_cores
    from medical_vqa.schema.bundle_card import CheckpointSelection
    from medical_vqa.training.loop import fit
    from medical_vqa.training.settings import Callbacks, TrainingSettings

    settings = inputs.recipe.training
    main = os.environ.get("RANK", "0") == "0"
    if compute.device == "cuda" and inputs.family.estimates_memory:
        plan_of(inputs).check()  # before gigabytes are read that the GPU cannot hold
    use_all_cores()
    if journal.checkpoint() is None:
        with main_process_first() as first:
            if first:
                check_bundle(inputs, compute.device)
    seed_everything(settings.seed)
    model: Trainable = inputs.family.model_class().build(inputs.rows, **inputs.options)
    card = model_card(inputs, model)
    held_out = [part for part in inputs.parts if part.validation_rows]
    validation = JoinedQueries(
        [queries(part.selected, part.validation_rows, model, device=compute.device) for part in held_out]
    )
    data = JoinedQueries(
        [
            queries(part.selected, part.rows, model, learn=True, regions=inputs.regions, device=compute.device)
            for part in inputs.parts
        ]
    )

    def save(scores: Scores, epoch: int) -> None:
        selection = CheckpointSelection(metric=settings.select, epoch=epoch, scores=scores)
        with tempfile.TemporaryDirectory() as discarded:  # under FSDP the others only help to gather the weights
            folder = journal.bundle if main else Path(discarded) / "bundle"
            write_bundle(folder, card.model_copy(update={"checkpoint_selection": selection}), model.save)

    result = fit(
        model,
        data,
        images=data.images,
        lengths=inputs.question_lengths,
        weights=inputs.weights,
        settings=TrainingSettings(
            **settings.model_dump(exclude={"device", "precision", "length_buckets"}),
            device=compute.device,
            precision=compute.precision,
        ),
        callbacks=Callbacks(
            evaluate=(lambda: validation_scores(model, validation, held_out, card.decoding)) if held_out else None,
            save=save,
            watcher=watcher,
        ),
        journal=journal,
    )
    if main:  # `fit` has ended the process group, so there is none to wait with
        journal.finish(dataclasses.asdict(result))
    return result


def validation_scores(
    model: Trainable, validation: JoinedQueries, parts: Sequence[TrainingPart], decoding: Decoding
) -> dict[str, float]:
    """EM and F1 on the validation rows, each in [0, 1], answered as the bundle will answer.

    Of several datasets, ``em`` and ``f1`` are the means over the datasets, and ``em/NAME`` those of each. Several
    processes divide the questions among them, and each returns the scores of all.

    Args:
        model: The model as it is.
        validation: The queries of the rows of all datasets.
        parts: The datasets, with the rows and their accepted answers.
        decoding: How answers are chosen.
    """
    from medical_vqa.evaluation.metrics.exact_match import exact_match
    from medical_vqa.evaluation.metrics.token_overlap import token_f1
    from medical_vqa.evaluation.predicting import answer_all
    from medical_vqa.evaluation.statistics.tally import tally
    from medical_vqa.models.fsdp import is_sharded
    from medical_vqa.training.processes import gather_parts, process_part

    # with sharded weights every process has to take part in every answer
    part = (0, 1) if is_sharded(model.module) else process_part()
    own = answer_all(model, validation, decoding, batch_size=ANSWER_BATCH, part=part)
    answers = {answer.id: answer for answer in (own if part[1] == 1 else gather_parts(own))}
    metrics = (exact_match(), token_f1())
    scores = [
        {metric.name: tally(metric, part.validation_rows, answers).total() or 0.0 for metric in metrics}
        for part in parts
    ]
    if len(parts) == 1:
        return scores[0]
    means = {metric.name: sum(one[metric.name] for one in scores) / len(scores) for metric in metrics}
    each = zip(parts, scores, strict=True)
    return means | {f"{name}/{part.selected.dataset.name}": one[name] for part, one in each for name in one}

"""The main path, one short function per stage: prepare → train → predict → score → report → ask.

This is the only module in which stages meet. They talk through files: `train` writes a bundle, `predict` reads one and
writes ``predictions-SPLIT.jsonl`` with a card beside it, `score` and `report` read those.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medical_vqa import catalog
from medical_vqa.config import Recipe, load_recipe
from medical_vqa.data.images import prepare_picture
from medical_vqa.data.ingest import ingest_file
from medical_vqa.data.manifest import Manifest
from medical_vqa.data.prepare import Progress, prepare
from medical_vqa.data.prepared import default_root
from medical_vqa.data.selection import Selection
from medical_vqa.errors import ConfigError, DataError
from medical_vqa.models.abstention import calibrated
from medical_vqa.records import Example, Prediction, Split, read_predictions

if TYPE_CHECKING:
    from medical_vqa.data.features import FeatureStore
    from medical_vqa.data.picture_cache import PictureCache
    from medical_vqa.data.prepared import PreparedDataset
    from medical_vqa.data.regions import RegionStore
    from medical_vqa.evaluation.results import Results
    from medical_vqa.models.abstention import Verdict
    from medical_vqa.models.bundle import BundleCard
    from medical_vqa.models.model import Trainable, Vision, VqaModel
    from medical_vqa.models.queries import PictureQueries
    from medical_vqa.runtime import Choice
    from medical_vqa.serving.engine import Engine
    from medical_vqa.serving.settings import Settings
    from medical_vqa.training.journal import Journal
    from medical_vqa.training.loop import Fitted, Scores, Watcher
    from medical_vqa.training.plan import Plan

Counter = Callable[[int, int], None]
"""Told how many are done, and of how many."""
CPU_BATCH, GPU_BATCH = 8, 64  # questions that a server answers at once: on few cores more only make each wait longer
ANSWER_BATCH = 64  # questions answered at once: large enough to be fast, small enough for any memory


# --- prepare ----------------------------------------------------------------------------------------------------------


def prepare_dataset(
    name: str,
    *,
    source: Path | None,
    root: Path,
    partial: bool = False,
    under: str | None = None,
    download: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Check a published dataset and lay it out under ``root/NAME``.

    Without a `source` the shipped sample is taken where there is one; otherwise, or with `download`, the hub is asked.
    Raises `IncompleteError` when part of it is missing and `partial` is not set, `OfflineError` without a network.
    """
    dataset = catalog.find("datasets", name)()
    folder = source or (None if download else dataset.bundled())
    if folder is None:
        from medical_vqa.data.download import download as from_hub

        folder = from_hub(dataset.card, root / f"{name}.download")
    return prepare(dataset, folder, root, partial=partial, name=under, progress=progress)


# --- train ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training run left behind."""

    run: Path
    """The run folder."""
    bundle: Path
    """The model, inside it."""
    fitted: Fitted | None
    """Steps, best epoch, seconds; None for a floor, which is counted in one go."""


def train(
    recipe: Recipe, run: Path, *, watcher: Watcher, fresh: bool = False, pictures: Counter | None = None
) -> Trained:
    """Train by the recipe into the run folder, going on from its checkpoint when a run of this recipe was cut short.

    Raises `ConfigError` when the folder holds a finished run or one of another recipe, and `fresh` is not set.
    """
    from medical_vqa.training.journal import Journal

    selection = selection_of(recipe)
    rows, held_out = learnable(selection.rows("train")), selection.rows("validation")
    refuse_shared_groups(rows, held_out)
    family = catalog.find("models", recipe.model.family)
    choice = chosen_runtime(recipe) if hasattr(family, "build") else None
    journal = Journal(run)
    with main_process_first() as main:
        if main:
            claim(journal, recipe, fresh=fresh, manifest=selection.open().manifest.digest, choice=choice)
    if choice is None:
        return _count_floor(family, recipe, selection, rows, journal)
    fitted = _fit(recipe, selection, rows, held_out, choice, journal, watcher, pictures)
    return Trained(run, journal.bundle, fitted)


def plan(recipe: Recipe) -> Plan:
    """What training by the recipe will take, from configurations alone; raises like `train`."""
    from medical_vqa.models.sketch import sketch_of
    from medical_vqa.runtime import choose_device, choose_precision, memory_of
    from medical_vqa.training.plan import Plan, steps_of

    family, settings = catalog.find("models", recipe.model.family), recipe.training
    if not hasattr(family, "build"):
        raise ConfigError(f"{recipe.model.family} is counted in one go and needs no plan; train it")
    selection = selection_of(recipe)
    rows = learnable(selection.rows("train"))
    device = choose_device(settings.device)
    choice = choose_precision(settings.precision, device)
    options = options_of(recipe, choice.precision)
    sketched = hasattr(family, "sketch")
    sketch = family.sketch(rows, **options) if sketched else sketch_of(family.build(rows, **options).module)
    memory = sketch.memory(
        batch_size=settings.batch_size,
        precision=choice.precision,
        features=options.get("features", False),
        checkpointing=options.get("gradient_checkpointing", False),
    )
    images = [row.image_id for row in rows]
    keys = {"epochs", "batch_size", "grouping", "accumulate", "seed"}
    steps = steps_of(images, lengths_of(rows) if settings.length_buckets else None, **settings.model_dump(include=keys))
    where = f"{choice.device}, {choice.precision}"
    return Plan(sketch, memory, len(rows), len(set(images)), steps, where, memory_of(device))


def _count_floor(
    family: Any, recipe: Recipe, selection: Selection, rows: Sequence[Example], journal: Journal
) -> Trained:
    from medical_vqa.models.bundle import write_bundle

    floor = family.fit(rows)
    write_bundle(journal.bundle, card_for(recipe, selection, rows, floor), floor.save)
    journal.finish({})
    return Trained(journal.folder, journal.bundle, None)


def _fit(
    recipe: Recipe,
    selection: Selection,
    rows: Sequence[Example],
    held_out: Sequence[Example],
    choice: Choice,
    journal: Journal,
    watcher: Watcher,
    pictures: Counter | None,
) -> Fitted:
    from medical_vqa.data.regions import RegionStore
    from medical_vqa.models.bundle import write_bundle
    from medical_vqa.runtime import seed_everything, use_all_cores
    from medical_vqa.training.loop import fit

    settings, main = recipe.training, os.environ.get("RANK", "0") == "0"
    if choice.device == "cuda" and hasattr(catalog.find("models", recipe.model.family), "sketch"):
        plan(recipe).check()  # before gigabytes are read that the GPU cannot hold
    use_all_cores()
    seed_everything(settings.seed)
    regions = RegionStore(selection.open().folder) if recipe.data.regions else None
    options = options_of(recipe, choice.precision) | ({"regions": regions.names} if regions else {})
    model: Trainable = catalog.find("models", recipe.model.family).build(rows, **options)
    card = card_for(recipe, selection, rows, model, held_out)
    asked = queries(selection, held_out, model, progress=pictures, device=choice.device)
    data = queries(selection, rows, model, learn=True, regions=regions, progress=pictures, device=choice.device)

    def keep(scores: Scores, epoch: int) -> None:
        chosen = {"by": settings.select, "split": "validation", "epoch": epoch, "scores": dict(scores)}
        with tempfile.TemporaryDirectory() as aside:  # where others leave what they only helped to gather (FSDP)
            place = journal.bundle if main else Path(aside) / "bundle"
            write_bundle(place, dataclasses.replace(card, selection=chosen), model.save)

    fitted = fit(
        model,
        data,
        images=data.images,
        journal=journal,
        watcher=watcher,
        keep=keep,
        evaluate=lambda: validation_scores(model, asked, held_out, card),
        device=choice.device,
        precision=choice.precision,
        lengths=lengths_of(rows) if settings.length_buckets else None,
        **settings.model_dump(exclude={"device", "precision", "length_buckets"}),
    )
    if main:  # `fit` has ended the process group, so there is none to wait with
        journal.finish(dataclasses.asdict(fitted))
    return fitted


def validation_scores(
    model: VqaModel, asked: PictureQueries, held_out: Sequence[Example], card: BundleCard
) -> dict[str, float]:
    """EM and F1 on the rows that choose the checkpoint, each in [0, 1], answered as the bundle will answer."""
    from medical_vqa.evaluation.metrics import ExactMatch, TokenF1
    from medical_vqa.evaluation.predict import answer_all
    from medical_vqa.evaluation.tally import tally

    answers = {a.id: a for a in answer_all(model, asked, card.decoding, batch_size=ANSWER_BATCH)}
    return {metric.name: tally(metric, held_out, answers).total() or 0.0 for metric in (ExactMatch(), TokenF1())}


def claim(journal: Journal, recipe: Recipe, *, fresh: bool, manifest: str, choice: Choice | None) -> None:
    """Make the run folder ours: new, emptied because `fresh` was asked for, or cut short and taken up again."""
    from medical_vqa.runtime import environment

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


def chosen_runtime(recipe: Recipe) -> Choice:
    """Device and precision of a training run, with the reason; raises `ConfigError` when they are not to be had."""
    from medical_vqa.runtime import choose_device, choose_precision

    return choose_precision(recipe.training.precision, choose_device(recipe.training.device))


# --- predict ----------------------------------------------------------------------------------------------------------


def predict(
    bundle: Path,
    *,
    split: Split,
    out: Path | None = None,
    selection: Selection | None = None,
    device: str = "auto",
    shuffle_images: bool = False,
    progress: Counter | None = None,
) -> Path:
    """Answer a split of the bundle's own dataset, or of another `selection`; returns where the predictions lie.

    `bundle` may also be a run folder. Cut short, it goes on where it stopped. `shuffle_images` asks every question of
    another row's image: what is right then owes nothing to the image, and is a floor of this very model.
    """
    from medical_vqa.evaluation import predict as stage

    folder = find_bundle(bundle)
    model, card = load_model(folder, device)
    chosen = selection or Selection.from_json(card.data["selection"])
    path = out or folder.parent / f"{'shuffled' if shuffle_images else 'predictions'}-{split}.jsonl"
    rows = chosen.rows(split)
    covered = answer_coverage(model, rows)
    about = {
        "model": excerpt(card, folder),
        "selection": chosen.to_json(),
        "split": split,
        "manifest": chosen.open().manifest.digest,
        **({"answer_coverage": covered} if covered is not None else {}),
        **({"shuffled_images": True} if shuffle_images else {}),
        **({"calibration": dict(card.calibration)} if card.calibration else {}),
    }
    asked = queries(chosen, rows, model)
    if shuffle_images:
        asked.images = other_images(asked.images)
    stage.predict(
        model,
        asked,
        decoding=card.decoding,
        path=path,
        card=about,
        batch_size=ANSWER_BATCH,
        progress=progress,
    )
    return path


def other_images(images: Sequence[str], seed: int = 0) -> list[str]:
    """Every image replaced by another one, the same for all its questions; raises `DataError` for a single image."""
    import random

    distinct = sorted(set(images))
    if len(distinct) < 2:
        raise DataError("every question is about one image, so there is no other to ask about; choose more rows")
    shuffled = distinct[:]
    random.Random(seed).shuffle(shuffled)
    following = dict(zip(shuffled, [*shuffled[1:], shuffled[0]], strict=True))
    return [following[image] for image in images]


# --- score and report -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scored:
    """A predictions file joined to its rows, scored beside its floors."""

    selection: Selection
    """Which rows."""
    split: Split
    """Of which split."""
    examples: list[Example]
    """The rows themselves."""
    predictions: list[Prediction]
    """What the model answered."""
    floors: Mapping[str, list[Prediction]]
    """What answers without looking are worth."""
    results: Results
    """The numbers."""
    options: tuple[str, ...] = ()
    """What was asked beside the file, as words of the command line."""


def score(
    predictions: Path,
    *,
    selection: Selection | None = None,
    split: Split | None = None,
    protocols: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    crossed: Sequence[tuple[str, ...]] = (),
    risk: float = 0.1,
) -> Scored:
    """Score a predictions file under SQuAD v2's rule, beside the floors counted on the training rows.

    `selection` and `split` say which rows were asked, for a file without a card; `columns` says where in another
    program's file the answers are (`evaluation.foreign`); `protocols` names rules to score by beside it; `crossed`
    are breakdowns beside those of every fact; `risk` is what share of wrong answers is tolerated when abstaining.
    """
    from medical_vqa.evaluation.breakdown import usual_cross
    from medical_vqa.evaluation.inputs import asked_rows, leaks_of, read_answers, shuffled_floor
    from medical_vqa.evaluation.results import evaluate

    ours = read_predictions(predictions) if columns is None else None
    selection, split, card = asked_rows(predictions, selection, split)
    examples = selection.rows(split)
    answered = read_answers(predictions, columns, examples) if ours is None else ours
    train_rows = learnable(selection.rows("train"))
    floors = floor_answers(train_rows, examples) | shuffled_floor(predictions, examples)
    calibration = card.get("calibration") or {}
    results = evaluate(
        examples,
        answered,
        floors=floors,
        dataset=dataset_ref(selection, split),
        model=card.get("model", {}),
        crossed=[*usual_cross(examples), *crossed],
        protocols=protocols,
        train=train_rows,
        leaks=leaks_of(selection, split, card),
        temperature=calibration.get("temperature"),
        temperature_from=calibration.get("fitted_on", ""),
        risk=risk,
    )
    options = options_used(selection, split, card, columns, crossed, risk)
    return Scored(selection, split, examples, answered, floors, results, options)


def options_used(
    selection: Selection,
    split: Split,
    card: Mapping[str, Any],
    columns: Mapping[str, str] | None,
    crossed: Sequence[tuple[str, ...]],
    risk: float,
) -> tuple[str, ...]:
    """The words of the command line that score a file again as it was scored."""
    from medical_vqa.evaluation.calibration import RISK

    said: list[str] = []
    if (card.get("selection"), card.get("split")) != (selection.to_json(), split):
        said += ["--dataset", selection.dataset, "--root", str(selection.root), "--split", split]
        said += [word for fact, value in selection.where.items() for word in ("--where", f"{fact}={value}")]
        said += ["--map", ",".join(f"{name}={column}" for name, column in columns.items())] if columns else []
    said += [word for facts in crossed for word in ("--by", ",".join(facts))]
    return tuple(said + (["--risk", f"{risk:g}"] if risk != RISK else []))


def breakdowns(scored: Scored, metric: str, facts: Sequence[tuple[str, ...]]) -> list[str]:
    """Tables of a metric by facts, for a terminal; `metric` is a name of `em`, `laterality` ..., or `helm.bleu1`.

    Raises `ConfigError` for an unknown metric, `DataError` for an unknown fact or a metric that applies to no row.
    """
    from medical_vqa.evaluation.breakdown_table import breakdown_texts
    from medical_vqa.evaluation.results import find_metric

    train_rows = learnable(scored.selection.rows("train"))
    chosen = find_metric(metric, train=train_rows, rows=scored.examples)
    return breakdown_texts(chosen, facts, scored.examples, scored.predictions, scored.floors)


def write_results(scored: Scored, path: Path) -> Path:
    """Write ``results.json``; returns its path."""
    from medical_vqa.training.journal import write_text

    write_text(path, scored.results.to_json() + "\n")
    return path


def report(scored: Scored, predictions: Path, path: Path) -> Path:
    """Write one self-contained HTML page on scored predictions; returns its path."""
    from medical_vqa.evaluation.audit_report import findings
    from medical_vqa.evaluation.inputs import read_audit
    from medical_vqa.evaluation.report import write_report
    from medical_vqa.training.journal import Journal

    name = scored.results.model.get("name", predictions.stem)
    history = Journal(predictions.parent).rows()
    write_report(
        path,
        results=scored.results,
        examples=scored.examples,
        predictions=scored.predictions,
        floors=scored.floors,
        images=scored.selection.open().images,
        title=f"{name} on {scored.selection.dataset}, {scored.split}",
        card=scored.results.model or None,
        history=history or None,
        reproduce=commands(scored, predictions),
        audit=findings(looked) if (looked := read_audit(scored.selection.open())) else (),
    )
    return path


def floor_answers(train_rows: Sequence[Example], examples: Sequence[Example]) -> dict[str, list[Prediction]]:
    """What the training rows answer to these questions without an image, under each floor's name."""
    from medical_vqa.models.floor import Majority, QuestionLookup
    from medical_vqa.models.model import Decoding
    from medical_vqa.models.queries import PictureQueries

    asked = list(PictureQueries(examples, [e.image_id for e in examples], None))
    floors = {"question-only": QuestionLookup, "majority": Majority}
    return {name: floor.fit(train_rows).answer(asked, Decoding()) for name, floor in floors.items()}


# --- ask --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Consulted:
    """What came of one question about one image file."""

    answer: Prediction
    """The answer, its confidence calibrated."""
    verdict: Verdict
    """Whether to give it."""
    card: BundleCard
    """Of the model."""


def ask(
    bundle: Path,
    image: Path,
    question: str,
    *,
    device: str = "auto",
    frame: int | None = None,
    window: tuple[float, float] | None = None,
) -> tuple[Prediction, BundleCard]:
    """One answer to one question about one image file. Raises `ImageError`, `ModelError` or `BundleError`.

    `frame` is a frame of a DICOM file, a slice of a NIfTI volume or a page of a TIFF, from 0; `window` is the centre
    and width of the values of a DICOM or NIfTI file to show.
    """
    found = consult(bundle, image, question, device=device, frame=frame, window=window)
    return found.answer, found.card


def consult(
    bundle: Path,
    image: Path,
    question: str,
    *,
    device: str = "auto",
    frame: int | None = None,
    window: tuple[float, float] | None = None,
) -> Consulted:
    """One answer, and whether the model had better not have given it; takes and raises what `ask` does."""
    from medical_vqa.models.abstention import verdict
    from medical_vqa.models.model import Query, check_question
    from medical_vqa.models.queries import NO_PICTURE

    asked = check_question(question)
    picture = ingest_file(image, frame=frame, window=window).image
    model, card = load_model(find_bundle(bundle), device)
    visual = prepare_picture(picture, model.picture) if model.picture is not None else NO_PICTURE
    query = Query("ask", asked, "ask", visual)
    answer = calibrated(model.answer([query], card.decoding)[0], card)
    return Consulted(answer, verdict(model, card, query, answer), card)


# --- serve ------------------------------------------------------------------------------------------------------------


def serve(settings: Settings) -> None:
    """Answer questions over HTTP until the process is told to stop.

    Raises `BundleError`, or `ConfigError` when the address is taken or the store of images cannot be reached.
    """
    from medical_vqa.serving.server import run

    run(engine_for(settings), settings)


def engine_for(settings: Settings) -> Engine:
    """The engine that answers for a bundle, sized for its device."""
    from medical_vqa.runtime import choose_device
    from medical_vqa.serving.engine import Engine

    model, card = load_model(find_bundle(settings.model or shipped_bundle()), settings.device)
    large = hasattr(model, "build") and choose_device(settings.device).type != "cpu"  # others run without torch
    return Engine(
        model,
        card,
        batch=settings.batch or (GPU_BATCH if large else CPU_BATCH),
        wait=settings.batch_wait_ms / 1000,
        queue=settings.queue,
        deadline=settings.deadline,
        cached=settings.cached_answers,
    )


# --- what the stages share --------------------------------------------------------------------------------------------


def selection_of(recipe: Recipe) -> Selection:
    """The rows that a recipe's data section selects."""
    data = recipe.data
    root = (data.root or default_root()).expanduser().resolve()
    return Selection(
        data.name, root, dict(data.where), data.train, data.validation, data.validation_fraction, also=dict(data.also)
    )


def learnable(rows: Sequence[Example]) -> list[Example]:
    """The rows that have an answer to learn; raises `DataError` when none has."""
    answered = [row for row in rows if row.answers]
    if not answered:
        raise DataError(f"none of the {len(rows)} training rows has an answer; choose another split or filter")
    return answered


def refuse_shared_groups(rows: Sequence[Example], held_out: Sequence[Example]) -> None:
    """Raise `DataError` when an image or patient is both learned from and chosen on: the score would mean nothing."""
    shared = {row.group for row in rows} & {row.group for row in held_out}
    if shared:
        raise DataError(
            f"{len(shared)} images or patients (such as {min(shared)}) are in both the training and the validation "
            "rows; select one language with data.where, or hold groups out with data.validation: null"
        )


def queries(
    selection: Selection,
    rows: Sequence[Example],
    model: VqaModel,
    *,
    learn: bool = False,
    regions: RegionStore | None = None,
    progress: Counter | None = None,
    device: str | None = None,
) -> PictureQueries:
    """What the model sees of these rows: pictures prepared once, or what its frozen vision part made of them, once.

    `device` is where to encode; None leaves the model where it is.
    """
    from medical_vqa.data.picture_cache import PictureCache
    from medical_vqa.models.queries import PictureQueries

    prepared = selection.open()
    digests = [prepared.images.digest(row.image_id) for row in rows]
    if model.picture is None:
        return PictureQueries(rows, digests, None, learn=learn)
    cache = PictureCache(prepared.folder / "pictures", model.picture)
    if model.vision is not None and model.vision.frozen:
        images = {digest: row.image_id for digest, row in zip(digests, rows, strict=True)}
        store = feature_store(prepared, images, cache, model.vision, progress, device)
        return PictureQueries(rows, digests, store, learn=learn)
    cache.ensure(prepared.images, [row.image_id for row in rows], progress)
    return PictureQueries(rows, digests, cache, learn=learn, regions=regions)


def feature_store(
    prepared: PreparedDataset,
    images: Mapping[str, str],
    cache: PictureCache,
    vision: Vision,
    progress: Counter | None,
    device: str | None,
) -> FeatureStore:
    """The features of `images` (digest -> id) by this vision part, those encoded that no run or server has yet."""
    import torch

    from medical_vqa.data.features import FeatureStore

    with main_process_first():
        store = FeatureStore(prepared.folder / "features", vision.fingerprint)
        if missing := store.missing(list(images)):
            cache.ensure(prepared.images, [images[digest] for digest in missing])
            if device is not None:
                vision.to(torch.device(device))
            store.ensure(missing, cache.get, vision.encode, progress)
            if device is not None:
                vision.to(torch.device("cpu"))  # training needs the device's memory for the rest
    return store


def lengths_of(rows: Sequence[Example]) -> list[int]:
    """Characters of each row's question and answer: near enough to tokens to bring like lengths together."""
    return [len(row.question) + len(row.answers[0]) for row in rows]


def options_of(recipe: Recipe, precision: str) -> dict[str, Any]:
    """What a family's `build` is given: its recipe section, `auto` precision resolved to the run's, bundles found."""
    options = recipe.model.model_dump(exclude={"family"})
    if initial := options.get("initial"):
        options["initial"] = compact_bundle(initial)
    return options | {"dtype": precision} if options.get("dtype") == "auto" else options


def compact_bundle(path: str | Path) -> Path:
    """The compact bundle that a recipe means, or the one in the package for ``shipped``; its files are checked."""
    from medical_vqa.models.bundle import check_files, read_card

    folder = shipped_bundle() if str(path) == "shipped" else find_bundle(Path(path))
    card = read_card(folder)
    if card.family != "compact":
        raise ConfigError(
            f"{folder} is a {card.family} bundle and a compact model can start from its like alone; name another"
        )
    check_files(folder, card)
    return folder


def start_of(path: str) -> dict[str, Any]:
    """What a model started from, for its card: the rows of that one are behind its answers too."""
    from medical_vqa.models.bundle import read_card

    card = read_card(compact_bundle(path))
    facts = {key: card.data[key] for key in ("title", "rows", "images") if key in card.data}
    return {"name": card.name, "created": card.created, **facts, "scores": card.selection.get("scores", {})}


def card_for(
    recipe: Recipe, selection: Selection, rows: Sequence[Example], model: Any, held_out: Sequence[Example] = ()
) -> BundleCard:
    """The card of the model that this recipe makes from these rows; scores come later."""
    from medical_vqa.models.bundle import BundleCard
    from medical_vqa.models.model import Decoding

    manifest = selection.open().manifest
    images = len({row.image_id for row in rows})
    data = {
        "selection": selection.to_json(),
        "title": manifest.title,
        "manifest": manifest.digest,
        "licence": manifest.licence,
        "citation": manifest.citation,
        "rows": len(rows),
        "images": images,
    }
    if (covered := answer_coverage(model, held_out)) is not None:
        data["answer_coverage"] = {"validation": covered}
    if initial := getattr(recipe.model, "initial", None):
        data["started_from"] = start_of(initial)
    return BundleCard(
        recipe.model.family,
        recipe.name,
        data=data,
        model=model.describe(),
        decoding=Decoding(**recipe.decoding.model_dump()),
        prompt=getattr(model, "prompt", None),
        licence=manifest.licence,
    )


def answer_coverage(model: Any, rows: Sequence[Example]) -> float | None:
    """Share of rows whose answer is on a classifier's closed list; None for models that write."""
    if (answers := getattr(model, "answers", None)) is None:
        return None
    return round(float(answers.coverage([row.answers[0] for row in rows if row.answers])), 4)


def dataset_ref(selection: Selection, split: Split) -> Any:
    """What results say about the rows they were computed on."""
    from medical_vqa.evaluation.results import DatasetRef

    manifest = selection.open().manifest
    return DatasetRef(
        name=selection.dataset,
        split=split,
        where=dict(selection.where),
        drawn=drawn(selection, split),
        manifest=manifest.digest,
        title=manifest.title,
        licence=manifest.licence,
        citation=manifest.citation,
        homepage=manifest.homepage,
    )


def drawn(selection: Selection, split: Split) -> str:
    """How a split was drawn that is not the published one; empty for one that is."""
    if selection.validation is not None or split == "test":
        return ""
    share = selection.validation_fraction if split == "validation" else 1 - selection.validation_fraction
    return (
        f"Not a published split: {share:.0%} of the images (or patients) of {selection.train}, held apart by chance "
        f"(seed {selection.seed})"
    )


def shipped_bundle() -> Path:
    """The compact model that comes with the package."""
    return Path(__file__).parent / "assets" / "compact"


def find_bundle(folder: Path) -> Path:
    """The bundle that a path means: itself, or the one in a run folder."""
    inside = folder / "bundle"
    return inside if not (folder / "card.json").is_file() and inside.is_dir() else folder


def load_model(folder: Path, device: str) -> tuple[VqaModel, BundleCard]:
    """The model in a bundle, on the device; a floor and an ONNX bundle need no torch."""
    from medical_vqa.models.bundle import load_bundle, read_card

    family = read_card(folder).family
    if not hasattr(catalog.find("models", family), "build"):
        if device not in ("auto", "cpu"):
            raise ConfigError(f"{family} models run on the CPU and not on {device}; leave --device out")
        return load_bundle(folder)
    from medical_vqa.runtime import choose_device, use_all_cores

    chosen = choose_device(device)
    use_all_cores()
    return load_bundle(folder, device=chosen)


def excerpt(card: BundleCard, folder: Path) -> dict[str, Any]:
    """What predictions and results say about the model."""
    kept = {
        key: getattr(card, key) for key in ("name", "family", "model", "selection", "licence", "created", "version")
    }
    return {**kept, "bundle": str(folder), "trained_on": card.data, "files": dict(card.files)}


def commands(scored: Scored, predictions: Path) -> list[str]:
    """How to make these numbers again, from the dataset on."""
    folder, where = predictions.parent, f"--root {scored.selection.root}"
    made = [f"medical-vqa prepare {scored.selection.dataset} {where}"]
    made += [f"medical-vqa audit {scored.selection.dataset} {where}"] if scored.split != "train" else []
    if (folder / "recipe.yaml").is_file():
        again = f"medical-vqa predict {folder} --split {scored.split}"
        made += [f"medical-vqa train {folder / 'recipe.yaml'}", again, f"{again} --shuffle-images"]
    words = ["medical-vqa", "report", str(predictions), *scored.options]
    return [*made, shlex.join(words)]


def main_process_first() -> AbstractContextManager[bool]:
    """Under `accelerate launch` the others wait for the main process; yields whether this is the main one."""
    from contextlib import contextmanager, nullcontext

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return nullcontext(True)
    import torch
    from accelerate import PartialState

    @contextmanager
    def in_turn() -> Any:
        state = PartialState(cpu=not torch.cuda.is_available())  # otherwise it sees one process where no GPU is
        with state.main_process_first():
            yield state.is_main_process

    return in_turn()

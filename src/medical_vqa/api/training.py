"""Read recipes and train by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from medical_vqa.api.arguments import StrPath, as_dataset, as_overrides, as_yaml
from medical_vqa.api.calls import public
from medical_vqa.io import as_path

if TYPE_CHECKING:
    from medical_vqa.config import Recipe
    from medical_vqa.pipelines.train import TrainedRun
    from medical_vqa.training.settings import Watcher


@public
def load_recipe(recipe: StrPath | Recipe | Mapping[str, Any], overrides: Mapping[str, object] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        recipe: Name of a recipe in this package (``demo``, ``slake-compact`` ...), a YAML file, a recipe, or its
            content as a mapping.
        overrides: Dotted keys and their values: ``{"training.epochs": 5}``. Text is read as YAML, as ``--set`` does.

    Returns:
        The recipe, validated.

    Raises:
        MedicalVqaError: There is no such recipe, or a key or value of it is wrong.

    Examples:
        >>> mv.load_recipe("demo", {"training.epochs": 1}).training.epochs
        1
    """
    from medical_vqa import config

    texts = as_overrides(overrides)
    if isinstance(recipe, config.Recipe):
        return config.override_recipe(recipe, texts)
    if isinstance(recipe, Mapping):
        return config.parse_recipe(recipe, origin="the recipe", overrides=texts)
    return config.load_recipe(config.find_recipe(as_path(recipe, "recipe")), texts)


@public
def train(
    recipe: StrPath | Recipe | Mapping[str, Any],
    *,
    data: StrPath | None = None,
    run: StrPath | None = None,
    fresh: bool = False,
    overrides: Mapping[str, object] | None = None,
    progress: bool = True,
    watcher: Watcher | None = None,
) -> TrainedRun:
    """Train a model by a recipe; the same call resumes an interrupted run.

    Args:
        recipe: Name of a recipe in this package, a YAML file, a recipe, or its content as a mapping.
        data: Prepared dataset to train on: its name, its folder, or what `prepare` returned; by default the one that
            the recipe names.
        run: Run folder; by default ``runs/NAME`` of the recipe.
        fresh: Whether to discard an earlier run in that folder.
        overrides: Changes to the recipe, as in `load_recipe`.
        progress: Whether to show steps, scores and time left.
        watcher: Receives steps and scores in place of the progress display.

    Returns:
        The finished run.

    Raises:
        MedicalVqaError: The recipe, the data or the device is wrong, or the run folder holds another run.

    Examples:
        >>> run = mv.train("demo", data=mv.prepare("slake-mini"), overrides={"training.epochs": 1})
        >>> run.bundle
        PosixPath('runs/demo/bundle')
    """
    from medical_vqa.pipelines.runs import RUNS
    from medical_vqa.pipelines.train import train as stage
    from medical_vqa.progress import TrainingBar, console

    changes = as_overrides(overrides)
    if data is not None:
        name, root = as_dataset(data, None, "data")
        changes = {"data.name": as_yaml(name), "data.root": as_yaml(str(root)), **changes}
    resolved = load_recipe(recipe, changes)
    folder = RUNS / resolved.name if run is None else as_path(run, "run")
    if watcher is not None:
        return stage(resolved, folder, watcher=watcher, fresh=fresh)
    with TrainingBar(console(stderr=True, quiet=not progress)) as bar:
        return stage(resolved, folder, watcher=bar, fresh=fresh)

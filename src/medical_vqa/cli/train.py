"""The train command."""

from __future__ import annotations

import os
from pathlib import Path

import click

from medical_vqa.cli.options import pairs
from medical_vqa.cli.terminal import console
from medical_vqa.pipelines.runs import RUNS


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--run", type=click.Path(path_type=Path), help="Run folder.  [default: runs/NAME of the recipe]")
@click.option("--fresh", is_flag=True, help="Throw away an earlier run in that folder.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key, e.g. training.epochs=5.")
@click.option("--plan", "only_plan", is_flag=True, help="Print parameters, memory and steps, and train nothing.")
def train(recipe: Path, run: Path | None, fresh: bool, overrides: tuple[str, ...], only_plan: bool) -> None:
    """Train by a recipe; the same command goes on after an interruption."""
    from medical_vqa import registry
    from medical_vqa.config import find_recipe, load_recipe
    from medical_vqa.pipelines import train as train_stage
    from medical_vqa.progress import TrainingBar
    from medical_vqa.runtime.devices import require_torch

    resolved = load_recipe(find_recipe(recipe), pairs(overrides, "--set"))
    if registry.find("models", resolved.model.family).needs_torch:
        require_torch()
    if only_plan:
        click.echo("\n".join(train_stage.plan(resolved).lines()))
        return
    terminal = console(quiet=os.environ.get("RANK", "0") != "0")  # under a launcher the main process speaks for all
    folder = run or RUNS / resolved.name
    with TrainingBar(terminal) as bar:
        trained = train_stage.train(resolved, folder, watcher=bar, fresh=fresh)
    if trained.fitted is not None:
        early = ", stopped early" if trained.fitted.stopped_early else ""
        terminal.print(
            f"{trained.fitted.steps:,} steps in {trained.fitted.seconds / 60:.1f} min{early}", highlight=False
        )
    terminal.print(f"model: {trained.bundle}\nrecord: {trained.run / 'metrics.jsonl'}", highlight=False)

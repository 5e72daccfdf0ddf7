"""The train command."""

from __future__ import annotations

import os
from pathlib import Path

import click

from medical_vqa.cli.options import NamedPath, pairs


@click.command()
@click.argument("recipe", type=NamedPath(path_type=Path))
@click.option(
    "--run",
    "--run-dir",
    "run",
    type=NamedPath(path_type=Path),
    help="Run folder; torchrun takes the longer name.  [default: runs/NAME of the recipe]",
)
@click.option("--fresh", is_flag=True, help="Discard an earlier run in that folder.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key, e.g. training.epochs=5.")
@click.option("--plan", "only_plan", is_flag=True, help="Print parameters, memory and steps, and train nothing.")
def train(recipe: Path, run: Path | None, fresh: bool, overrides: tuple[str, ...], only_plan: bool) -> None:
    """Train by a recipe; the same command resumes an interrupted run."""
    from medical_vqa import api
    from medical_vqa.pipelines.plan import plan
    from medical_vqa.progress import TrainingBar, console

    resolved = api.load_recipe(recipe, pairs(overrides, "--set"))
    if only_plan:
        click.echo("\n".join(plan(resolved).lines()))
        return
    terminal = console(quiet=os.environ.get("RANK", "0") != "0")  # under a launcher only the main process prints
    with TrainingBar(terminal) as bar:
        trained = api.train(resolved, run=run, fresh=fresh, watcher=bar)
    if (result := trained.result) is not None:
        early = ", stopped early" if result.stopped_early else ""
        terminal.print(f"{result.steps:,} steps in {result.seconds / 60:.1f} min{early}", highlight=False)
    terminal.print(f"model: {trained.bundle}\nmetrics: {trained.run / 'metrics.jsonl'}", highlight=False)

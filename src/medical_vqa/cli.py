"""The command line: one short function per command; everything it does is a call into `pipelines.py`.

Heavy modules are imported inside the commands, so that ``medical-vqa --help`` answers at once.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medical_vqa.errors import ConfigError, MedicalVqaError
from medical_vqa.runtime import wait_politely
from medical_vqa.text import per_cent

if TYPE_CHECKING:
    from rich.console import Console

    from medical_vqa.data.selection import Selection

RUNS = Path("runs")
EPILOG = "Research software: not a medical device and not for diagnosis."


class _Commands(click.Group):
    """Lists commands in the order of the main path, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)


@click.group(cls=_Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="medical-vqa")
def cli() -> None:
    """Prepare, fine-tune, evaluate and ask models that answer questions about medical images.

    The main path: prepare, train, predict, report, ask.
    """


def main() -> None:
    """Run the command line: a user's mistake is one sentence on stderr and exit status 2."""
    warnings.filterwarnings("ignore", module=r"torch\.|accelerate\.")
    wait_politely()
    try:
        cli()
    except MedicalVqaError as error:
        click.echo(f"medical-vqa: {error}", err=True)
        sys.exit(2)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        click.echo(f"medical-vqa: the disk is full ({error.filename or error}); make room and run it again", err=True)
        sys.exit(2)


def _console(*, stderr: bool = False, quiet: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, soft_wrap=True, quiet=quiet)


def _root(root: Path | None) -> Path:
    from medical_vqa.data.prepared import default_root

    return (root or default_root()).expanduser().resolve()


def _pairs(values: tuple[str, ...], option: str) -> dict[str, str]:
    parted = [value.partition("=") for value in values]
    if bad := [key for key, sign, _ in parted if not sign]:
        raise ConfigError(f"{option} {bad[0]!r}: expected KEY=VALUE, for example {option} language=en")
    return {key: value for key, _, value in parted}


def _newest(pattern: str, what: str, make: str) -> Path:
    found = sorted(RUNS.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ConfigError(f"no {what} under {RUNS}/; name one, or make one with `{make}`")
    return found[-1]


def _newest_run() -> Path:
    return _newest("*/finished.json", "finished run", "medical-vqa train recipes/slake-compact.yaml").parent


def _selection(dataset: str | None, root: Path | None, where: Mapping[str, str]) -> Selection | None:
    if dataset is None:
        if where or root:
            raise ConfigError("--root and --where need --dataset, which names the rows they select from")
        return None
    from medical_vqa.data.selection import Selection

    return Selection(dataset, _root(root), dict(where))


dataset_options = [
    click.option("--dataset", help="A prepared dataset, instead of the one the model was trained on."),
    click.option(
        "--root", type=click.Path(path_type=Path), help="Where it was prepared.  [default: ~/.cache/medical-vqa/data]"
    ),
    click.option("--where", multiple=True, metavar="FACT=VALUE", help="Only rows with this fact, e.g. language=en."),
]


def _with(options: list[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


# --- prepare ----------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("name")
@click.option(
    "--source",
    help="Folder that holds the published files, or `hub` to download them.  [default: the shipped sample, or the hub]",
)
@click.option(
    "--root", type=click.Path(path_type=Path), help="Where to lay it out.  [default: ~/.cache/medical-vqa/data]"
)
@click.option("--partial", is_flag=True, help="Go on although part of the dataset is missing.")
@click.option("--as", "under", metavar="NAME", help="Prepare it under another name (for `folder`).")
def prepare(name: str, source: str | None, root: Path | None, partial: bool, under: str | None) -> None:
    """Check a dataset, lay it out, and count what is in it.

    NAME is slake, vqa-rad, slake-mini (the shipped sample), or folder (your own questions and images).
    """
    from medical_vqa import pipelines
    from medical_vqa.data.prepared import PreparedDataset
    from medical_vqa.data.summary import manifest_table, shared_images
    from medical_vqa.progress import counts_table, stages

    console, place = _console(), _root(root)
    folder = None if source in (None, "hub") else Path(str(source))
    with stages(_console(stderr=True)) as progress:
        manifest = pipelines.prepare_dataset(
            name, source=folder, root=place, partial=partial, under=under, progress=progress, download=source == "hub"
        )
    prepared = PreparedDataset(place, manifest.name)
    rows = {split: prepared.examples(split) for split in prepared.splits}
    table = [
        [line.fact, line.value, *(f"{line.counts.get(split, 0):,}" for split in rows)]
        for line in manifest_table(manifest, rows)
    ]
    console.print(counts_table(manifest.title, ["fact", "value", *rows], table))
    missing = [f"missing: {phrase}" for phrase in manifest.missing]
    for note in [*manifest.notes, *shared_images(manifest, rows), *missing]:
        console.print(f"note: {note}", highlight=False)
    console.print(
        f"prepared in {prepared.folder} (manifest {manifest.digest[:12]}); licence: {manifest.licence}", highlight=False
    )


# --- train ------------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--run", type=click.Path(path_type=Path), help="Run folder.  [default: runs/NAME of the recipe]")
@click.option("--fresh", is_flag=True, help="Throw away an earlier run in that folder.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key, e.g. training.epochs=5.")
def train(recipe: Path, run: Path | None, fresh: bool, overrides: tuple[str, ...]) -> None:
    """Train by a recipe; the same command goes on after an interruption."""
    from medical_vqa import pipelines
    from medical_vqa.config import find_recipe, load_recipe
    from medical_vqa.progress import TrainingBar
    from medical_vqa.runtime import require_torch

    resolved = load_recipe(find_recipe(recipe), _pairs(overrides, "--set"))
    if resolved.model.family not in ("floor", "majority"):
        require_torch()
    console = _console(quiet=os.environ.get("RANK", "0") != "0")  # under a launcher the main process speaks for all
    folder = run or RUNS / resolved.name
    with TrainingBar(console) as bar:
        trained = pipelines.train(resolved, folder, watcher=bar, fresh=fresh)
    if trained.fitted is not None:
        early = ", stopped early" if trained.fitted.stopped_early else ""
        console.print(
            f"{trained.fitted.steps:,} steps in {trained.fitted.seconds / 60:.1f} min{early}", highlight=False
        )
    console.print(f"model: {trained.bundle}\nrecord: {trained.run / 'metrics.jsonl'}", highlight=False)


# --- predict, score, report -------------------------------------------------------------------------------------------


@cli.command()
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option("--split", default="validation", show_default=True, help="train, validation or test.")
@click.option("--out", type=click.Path(path_type=Path), help="File to write.  [default: beside the bundle]")
@click.option("--device", default="auto", show_default=True)
@_with(dataset_options)
def predict(
    model: Path | None,
    split: str,
    out: Path | None,
    device: str,
    dataset: str | None,
    root: Path | None,
    where: tuple[str, ...],
) -> None:
    """Answer every question of a split.

    MODEL is a run folder or a bundle; by default the newest finished run.
    """
    from medical_vqa import pipelines
    from medical_vqa.config import where_split
    from medical_vqa.progress import counting

    chosen = model or _newest_run()
    with counting(_console(stderr=True), f"answering with {chosen}", "questions") as progress:
        path = pipelines.predict(
            chosen,
            split=where_split(split),
            out=out,
            device=device,
            progress=progress,
            selection=_selection(dataset, root, _pairs(where, "--where")),
        )
    click.echo(f"predictions: {path}")


@cli.command()
@click.argument("predictions", required=False, type=click.Path(path_type=Path))
@click.option("--split", help="Of the rows that were asked, for a file without a card.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@_with(dataset_options)
def score(
    predictions: Path | None,
    split: str | None,
    as_json: bool,
    dataset: str | None,
    root: Path | None,
    where: tuple[str, ...],
) -> None:
    """Score predictions: EM and F1 with intervals, beside the question-only floor.

    PREDICTIONS is a predictions.jsonl; by default the newest one under runs/.
    """
    from medical_vqa import pipelines
    from medical_vqa.evaluation.results import headline

    chosen = predictions or _newest("*/predictions-*.jsonl", "predictions", "medical-vqa predict")
    scored = _scored(chosen, split, _selection(dataset, root, _pairs(where, "--where")))
    path = pipelines.write_results(scored, _beside(chosen, "results", ".json"))
    click.echo(scored.results.to_json() if as_json else headline(scored.results))
    click.echo(f"results: {path}", err=as_json)


@cli.command()
@click.argument("predictions", required=False, type=click.Path(path_type=Path))
@click.option("--split", help="Of the rows that were asked, for a file without a card.")
@click.option("--out", type=click.Path(path_type=Path), help="HTML file to write.  [default: beside the predictions]")
@_with(dataset_options)
def report(
    predictions: Path | None,
    split: str | None,
    out: Path | None,
    dataset: str | None,
    root: Path | None,
    where: tuple[str, ...],
) -> None:
    """Write a report: one HTML page with scores, intervals, breakdowns and a gallery of answers.

    PREDICTIONS is a predictions.jsonl; by default the newest one under runs/.
    """
    from medical_vqa import pipelines
    from medical_vqa.evaluation.results import headline

    chosen = predictions or _newest("*/predictions-*.jsonl", "predictions", "medical-vqa predict")
    scored = _scored(chosen, split, _selection(dataset, root, _pairs(where, "--where")))
    results = pipelines.write_results(scored, _beside(chosen, "results", ".json"))
    page = pipelines.report(scored, chosen, out or _beside(chosen, "report", ".html"))
    click.echo(headline(scored.results))
    click.echo(f"report: {page}\nresults: {results}")


def _scored(predictions: Path, split: str | None, selection: Selection | None) -> Any:
    from medical_vqa import pipelines
    from medical_vqa.config import where_split

    return pipelines.score(predictions, selection=selection, split=where_split(split) if split else None)


def _beside(predictions: Path, word: str, suffix: str) -> Path:
    stem = predictions.stem
    name = stem.replace("predictions", word) if "predictions" in stem else f"{stem}-{word}"
    return predictions.with_name(name + suffix)


# --- ask --------------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.argument("question")
@click.option(
    "--model", type=click.Path(path_type=Path), help="A run folder or a bundle.  [default: the newest finished run]"
)
@click.option("--device", default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def ask(image: Path, question: str, model: Path | None, device: str, as_json: bool) -> None:
    """Ask one question about one image."""
    from medical_vqa import pipelines

    chosen = model or _newest_run()
    answer, card = pipelines.ask(chosen, image, question, device=device)
    if as_json:
        found = {k: v for k, v in answer.to_json().items() if k != "id"}
        click.echo(
            json.dumps({"image": str(image), "question": question, **found, "model": card.name}, ensure_ascii=False)
        )
        return
    click.secho(answer.answer, bold=True)
    if answer.confidence is not None:
        click.echo(f"confidence {per_cent(answer.confidence)}")
    if answer.alternatives:
        click.echo("or: " + ", ".join(f"{text} ({per_cent(share)})" for text, share in answer.alternatives))
    click.echo(f"{card.name}, {card.family}. {EPILOG}", err=True)


if __name__ == "__main__":
    main()

"""The command line: one short function per command; everything it does is a call into `pipelines.py`.

Heavy modules are imported inside the commands, so that ``medical-vqa --help`` answers at once.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medical_vqa.errors import ConfigError, MedicalVqaError, MissingDependencyError
from medical_vqa.runtime import wait_politely
from medical_vqa.text import per_cent

if TYPE_CHECKING:
    from rich.console import Console

    from medical_vqa.data.prepared.selection import Selection

RUNS = Path("runs")
EPILOG = "Research software: not a medical device and not for diagnosis."


MAP_HELP = "Columns of another program's file: id (or image and question) and answer, e.g. id=qid,answer=text."


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
    from medical_vqa.data.prepared.dataset import default_root

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


def _run_or_shipped() -> Path:
    """The newest finished run, or else the model that ships with the package."""
    from medical_vqa.pipelines import bundles as bundles_stage

    finished = any(RUNS.glob("*/finished.json"))
    return _newest_run() if finished else bundles_stage.shipped_bundle()


def _newest_run() -> Path:
    return _newest("*/finished.json", "finished run", "medical-vqa train recipes/slake-compact.yaml").parent


def _selection(dataset: str | None, root: Path | None, where: Mapping[str, str]) -> Selection | None:
    if dataset is None:
        if where or root:
            raise ConfigError("--root and --where need --dataset, which names the rows they select from")
        return None
    from medical_vqa.data.prepared.selection import Selection

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
    from medical_vqa.data.prepared.dataset import PreparedDataset
    from medical_vqa.data.prepared.summary import manifest_table, shared_images
    from medical_vqa.pipelines import prepare as prepare_stage
    from medical_vqa.progress import counts_table, stages

    console, place = _console(), _root(root)
    folder = None if source in (None, "hub") else Path(str(source))
    with stages(_console(stderr=True)) as progress:
        manifest = prepare_stage.prepare_dataset(
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
        f"prepared in {prepared.folder} (manifest {manifest.digest[:12]}); license: {manifest.license}", highlight=False
    )


# --- train ------------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--run", type=click.Path(path_type=Path), help="Run folder.  [default: runs/NAME of the recipe]")
@click.option("--fresh", is_flag=True, help="Throw away an earlier run in that folder.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key, e.g. training.epochs=5.")
@click.option("--plan", "only_plan", is_flag=True, help="Print parameters, memory and steps, and train nothing.")
def train(recipe: Path, run: Path | None, fresh: bool, overrides: tuple[str, ...], only_plan: bool) -> None:
    """Train by a recipe; the same command goes on after an interruption."""
    from medical_vqa.config import find_recipe, load_recipe
    from medical_vqa.pipelines import train as train_stage
    from medical_vqa.progress import TrainingBar
    from medical_vqa.runtime import require_torch

    resolved = load_recipe(find_recipe(recipe), _pairs(overrides, "--set"))
    if resolved.model.family not in ("question-only", "majority"):
        require_torch()
    if only_plan:
        click.echo("\n".join(train_stage.plan(resolved).lines()))
        return
    console = _console(quiet=os.environ.get("RANK", "0") != "0")  # under a launcher the main process speaks for all
    folder = run or RUNS / resolved.name
    with TrainingBar(console) as bar:
        trained = train_stage.train(resolved, folder, watcher=bar, fresh=fresh)
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
@click.option("--base-url", help="Of openai:MODEL, up to and with /v1, e.g. http://localhost:8000/v1.")
@click.option("--api-key-env", default="OPENAI_API_KEY", show_default=True, help="Where the endpoint's key is.")
@click.option("--concurrency", default=8, show_default=True, help="Requests at once, for openai:MODEL.")
@click.option("--logprobs/--no-logprobs", default=True, help="Ask openai:MODEL for a confidence.")
@click.option("--price", type=(float, float), metavar="IN OUT", help="Per million tokens: prints the cost.")
@click.option("--shuffle-images", is_flag=True, help="Ask of another row's image: a baseline that `score` then shows.")
@_with(dataset_options)
def predict(
    model: Path | None,
    split: str,
    out: Path | None,
    device: str,
    base_url: str | None,
    api_key_env: str,
    concurrency: int,
    logprobs: bool,
    price: tuple[float, float] | None,
    shuffle_images: bool,
    dataset: str | None,
    root: Path | None,
    where: tuple[str, ...],
) -> None:
    """Answer every question of a split.

    MODEL is a run folder or a bundle, by default the newest finished run; or openai:MODEL, which asks any
    OpenAI-compatible endpoint at --base-url about --dataset.
    """
    from medical_vqa.config import where_split
    from medical_vqa.evaluation.predicting import read_prediction_card
    from medical_vqa.pipelines import predict as predict_stage
    from medical_vqa.progress import counting

    if model is not None and str(model).startswith("openai:"):
        selection = _selection(dataset, root, _pairs(where, "--where"))
        _predict_served(
            str(model), base_url, api_key_env, concurrency, logprobs, price, selection, split, out, shuffle_images
        )
        return
    chosen = model or _newest_run()
    with counting(_console(stderr=True), f"answering with {chosen}", "questions") as progress:
        path = predict_stage.predict(
            chosen,
            split=where_split(split),
            out=out,
            device=device,
            shuffle_images=shuffle_images,
            progress=progress,
            selection=_selection(dataset, root, _pairs(where, "--where")),
        )
    click.echo(f"predictions: {path}")
    if (covered := read_prediction_card(path).get("answer_coverage")) is not None:
        click.echo(f"closed list: it holds the answers of {per_cent(covered)} of these rows")


def _predict_served(
    name: str,
    base_url: str | None,
    api_key_env: str,
    concurrency: int,
    logprobs: bool,
    price: tuple[float, float] | None,
    selection: Selection | None,
    split: str,
    out: Path | None,
    shuffle_images: bool,
) -> None:
    import os

    from medical_vqa.config import where_split
    from medical_vqa.models.remote.openai import Endpoint
    from medical_vqa.pipelines import predict as predict_stage
    from medical_vqa.progress import counting

    if base_url is None or selection is None:
        raise ConfigError(f"{name} needs --base-url, such as http://localhost:8000/v1, and --dataset, to ask about")
    endpoint = Endpoint(name.removeprefix("openai:"), base_url, logprobs=logprobs)
    folder = "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in endpoint.model)
    path = out or RUNS / folder / f"{'shuffled' if shuffle_images else 'predictions'}-{split}.jsonl"
    with counting(_console(stderr=True), f"asking {name}", "questions") as progress:
        path, usage = predict_stage.predict_served(
            endpoint,
            selection,
            where_split(split),
            out=path,
            api_key=os.environ.get(api_key_env, ""),
            concurrency=concurrency,
            shuffle_images=shuffle_images,
            progress=progress,
        )
    click.echo(f"predictions: {path}")
    cost = f", cost {usage.cost(per_million_in=price[0], per_million_out=price[1]):.4f}" if price else ""
    click.echo(
        f"spent: {usage.requests:,} requests, {usage.retries:,} retries, {usage.prompt_tokens:,} tokens in, "
        f"{usage.completion_tokens:,} out{cost}"
    )


@cli.command()
@click.argument("predictions", required=False, type=click.Path(path_type=Path))
@click.option("--split", help="Of the rows that were asked, for a file without a card.")
@click.option("--protocol", help="Also score by this published rule, or by `all` of them, in one table.")
@click.option("--map", "columns", metavar="NAME=COLUMN,...", help=MAP_HELP)
@click.option("--by", "crossed", multiple=True, metavar="FACT[,FACT]", help="Also print a metric by a fact, or two.")
@click.option("--metric", default="em", show_default=True, help="Which, for --by: em, laterality, helm.bleu1 ...")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@_with(dataset_options)
def score(
    predictions: Path | None,
    split: str | None,
    protocol: str | None,
    columns: str | None,
    crossed: tuple[str, ...],
    metric: str,
    as_json: bool,
    dataset: str | None,
    root: Path | None,
    where: tuple[str, ...],
) -> None:
    """Score predictions: EM and F1 with intervals, beside the question-only baseline.

    PREDICTIONS is a predictions.jsonl, by default the newest one under runs/; or, with --map, a CSV, JSON or JSONL
    file of another program.
    """
    from medical_vqa.evaluation.reporting.summary import clean_line, look_at, not_scored
    from medical_vqa.evaluation.results import headline
    from medical_vqa.pipelines import score as score_stage

    chosen = predictions or _newest("*/predictions-*.jsonl", "predictions", "medical-vqa predict")
    selection = _selection(dataset, root, _pairs(where, "--where"))
    scored = _scored(chosen, split, selection, columns=columns, protocol=protocol)
    path = score_stage.write_results(scored, _beside(chosen, "results", ".json"))
    click.echo(scored.results.to_json() if as_json else headline(scored.results))
    for line in not_scored(scored.results):
        click.echo(f"not scored, {line}", err=True)
    for line in [*look_at(scored.results), clean_line(scored.results)]:
        click.echo(line, err=as_json) if line else None
    if protocol and not as_json:
        click.echo(_protocol_table(scored.results))
    for part in score_stage.breakdowns(scored, metric, _facts(crossed)) if crossed and not as_json else ():
        click.echo(f"\n{part}")
    click.echo(f"results: {path}", err=as_json)


@cli.command()
@click.argument("predictions", nargs=-1, type=click.Path(path_type=Path))
@click.option("--split", help="Of the rows that were asked, for a file without a card.")
@click.option("--out", type=click.Path(path_type=Path), help="HTML file to write.  [default: beside the predictions]")
@click.option("--map", "columns", metavar="NAME=COLUMN,...", help=MAP_HELP)
@click.option("--by", "crossed", multiple=True, metavar="FACT,FACT", help="Also break scores down by facts crossed.")
@click.option("--risk", type=float, default=0.1, show_default=True, help="Tolerated share of wrong answers.")
@_with(dataset_options)
def report(
    predictions: tuple[Path, ...],
    split: str | None,
    out: Path | None,
    columns: str | None,
    crossed: tuple[str, ...],
    risk: float,
    dataset: str | None,
    root: Path | None,
    where: tuple[str, ...],
) -> None:
    """Write a report: one HTML page with scores, intervals, breakdowns and a gallery of answers.

    PREDICTIONS is a predictions.jsonl, by default the newest one under runs/; several are compared in one page.
    """
    from medical_vqa.config import where_split
    from medical_vqa.evaluation.results import headline
    from medical_vqa.pipelines import report as report_stage
    from medical_vqa.pipelines import score as score_stage
    from medical_vqa.pipelines.inputs import asked_of_all

    selection = _selection(dataset, root, _pairs(where, "--where"))
    given = predictions or (_newest("*/predictions-*.jsonl", "predictions", "medical-vqa predict"),)
    facts = _facts(crossed)
    asked = asked_of_all(given, selection, where_split(split) if split else None)
    all_scored = [
        _scored(path, of, rows, columns=columns, protocol="all", crossed=facts, risk=risk)
        for path, (rows, of, _) in zip(given, asked, strict=True)
    ]
    if len(given) > 1:
        page = report_stage.comparison_page(all_scored, given, out or given[0].with_name("comparison.html"))
        click.echo(f"report: {page}")
        return
    (chosen,), (scored,) = given, all_scored
    results = score_stage.write_results(scored, _beside(chosen, "results", ".json"))
    page = report_stage.report(scored, chosen, out or _beside(chosen, "report", ".html"))
    click.echo(headline(scored.results))
    click.echo(f"report: {page}\nresults: {results}")


@cli.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--split", help="Of the rows that were asked, for files without a card.")
@click.option("--map", "columns", metavar="NAME=COLUMN,...", help=MAP_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per comparison.")
@_with(dataset_options)
def compare(
    files: tuple[Path, ...],
    split: str | None,
    columns: str | None,
    as_json: bool,
    dataset: str | None,
    root: Path | None,
    where: tuple[str, ...],
) -> None:
    """Compare prediction files of the same rows, paired by question.

    Prints the difference of every two with its interval, McNemar's exact test, a permutation test over whole images,
    Holm's correction over all of them, and what difference these questions could show.
    """
    import dataclasses

    from medical_vqa.config import where_split
    from medical_vqa.evaluation.imports.tables import parse_map
    from medical_vqa.evaluation.reporting.compare_table import comparison_text
    from medical_vqa.pipelines import compare as compare_stage

    pairs = compare_stage.compare(
        files,
        selection=_selection(dataset, root, _pairs(where, "--where")),
        split=where_split(split) if split else None,
        columns=parse_map(columns) if columns else None,
    )
    lines = [json.dumps(dataclasses.asdict(pair), ensure_ascii=False) for pair in pairs]
    click.echo("\n".join(lines) if as_json else comparison_text(pairs))


@cli.command()
@click.argument("predictions", required=False, type=click.Path(path_type=Path))
@click.option("--risk", type=float, default=0.1, show_default=True, help="Tolerated share of wrong answers.")
def calibrate(predictions: Path | None, risk: float) -> None:
    """Fit the confidence's temperature on validation predictions, and keep it in the bundle.

    Also chooses the confidence below which the model should say that it does not know, so that of the answers it does
    give at most the share --risk is wrong. `ask` and reports on other splits use both.
    """
    from medical_vqa.evaluation.reporting.wording import percent
    from medical_vqa.pipelines import calibrate as calibrate_stage

    chosen = predictions or _newest("*/predictions-validation.jsonl", "predictions", "medical-vqa predict")
    found = calibrate_stage.calibrate(chosen, risk=risk)
    click.echo(f"temperature {found.temperature:.2f}, from {found.n:,} answers")
    click.echo(f"calibration error {percent(found.ece)} before, {percent(found.ece_after)} after (on other images)")
    if (when := found.abstention) is None:
        click.echo(f"no threshold keeps the share of wrong answers at {risk:.0%} or below")
    else:
        click.echo(
            f"answer from a confidence of {when.threshold:.2f} (before the temperature): {when.coverage:.0%} of "
            f"questions, {when.wrong:,} of {when.answered:,} wrong, at most {when.upper:.1%} with 95 % confidence"
        )


@cli.command()
@click.argument("dataset")
@click.option("--root", type=click.Path(path_type=Path), help="Where it was prepared.")
@click.option("--out", type=click.Path(path_type=Path), help="HTML page to write.  [default: audit-DATASET.html]")
@click.option("--quick", is_flag=True, help="Compare files only; do not look for near-duplicates.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def audit(dataset: str, root: Path | None, out: Path | None, quick: bool, as_json: bool) -> None:
    """Look for leaks in a prepared dataset: images shared between splits and languages, twins, contradictions.

    What is found is kept beside the dataset; `score` and `report` then also score without the leaked rows.
    """
    from medical_vqa.evaluation.reporting.audit_report import audit_text
    from medical_vqa.pipelines import audit as audit_stage
    from medical_vqa.progress import counting

    place = _root(root)
    with counting(_console(stderr=True), f"looking at {dataset}", "images") as progress:
        found = audit_stage.audit(dataset, place, compare_images=not quick, progress=progress)
    page = audit_stage.audit_page(found, place, out or Path(f"audit-{dataset}.html"))
    click.echo(found.model_dump_json(indent=1) if as_json else audit_text(found))
    click.echo(f"page: {page}", err=as_json)


def _scored(
    predictions: Path,
    split: str | None,
    selection: Selection | None,
    *,
    columns: str | None = None,
    protocol: str | None = None,
    crossed: Sequence[tuple[str, ...]] = (),
    risk: float = 0.1,
) -> Any:
    from medical_vqa.config import where_split
    from medical_vqa.evaluation.imports.tables import parse_map
    from medical_vqa.evaluation.protocols.protocols import find_protocol, protocol_names
    from medical_vqa.pipelines import score as score_stage

    named = protocol_names() if protocol == "all" else [find_protocol(protocol).name] if protocol else []
    return score_stage.score(
        predictions,
        selection=selection,
        split=where_split(split) if split else None,
        protocols=named,
        columns=parse_map(columns) if columns else None,
        crossed=crossed,
        risk=risk,
    )


def _facts(crossed: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(part.strip() for part in pair.split(",")) for pair in crossed]


def _protocol_table(results: Any) -> str:
    """The table, and under it what each defect changes and where each rule was published."""
    from medical_vqa.evaluation.protocols.protocols import find_protocol
    from medical_vqa.evaluation.protocols.table import table_text

    lines = ["", table_text(results.protocols), ""]
    for name in dict.fromkeys(score.protocol for score in results.protocols):
        rule = find_protocol(name)
        lines.append(f"{name}: {rule.citation}")
        changes = dict.fromkeys(score.changes for score in results.protocols if score.protocol == name)
        lines += [f"  - {sentence}" for sentence in [*changes, rule.beyond] if sentence]
    return "\n".join(lines)


def _beside(predictions: Path, word: str, suffix: str) -> Path:
    stem = predictions.stem
    name = stem.replace("predictions", word) if "predictions" in stem else f"{stem}-{word}"
    return predictions.with_name(name + suffix)


# --- ask --------------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.argument("question")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="A run folder or a bundle.  [default: the newest finished run, else the shipped model]",
)
@click.option("--device", default="auto", show_default=True)
@click.option("--frame", type=int, help="Of DICOM, NIfTI or TIFF, from 0.  [default: the first; of NIfTI the middle]")
@click.option(
    "--window", type=(float, float), metavar="CENTER WIDTH", help="Values of DICOM or NIfTI to show, e.g. 40 400."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def ask(
    image: Path,
    question: str,
    model: Path | None,
    device: str,
    frame: int | None,
    window: tuple[float, float] | None,
    as_json: bool,
) -> None:
    """Ask one question about one image.

    IMAGE is a JPEG, PNG, BMP, TIFF, WebP, DICOM or NIfTI file.
    """
    from medical_vqa.pipelines import ask as ask_stage

    came = ask_stage.consult(model or _run_or_shipped(), image, question, device=device, frame=frame, window=window)
    answer, card = came.answer, came.card
    if as_json:
        found = {k: v for k, v in answer.to_json().items() if k != "id"}
        found |= {"abstained": came.abstention.abstained, "reason": came.abstention.reason}
        click.echo(
            json.dumps({"image": str(image), "question": question, **found, "model": card.name}, ensure_ascii=False)
        )
        return
    if came.abstention.reason:
        click.echo(came.abstention.reason)
        click.echo(f"Do not rely on this: {answer.answer}")
    else:
        click.secho(answer.answer, bold=True)
    if answer.confidence is not None:
        click.echo(f"confidence {per_cent(answer.confidence)}")
    if answer.alternatives:
        click.echo("or: " + ", ".join(f"{text} ({per_cent(share)})" for text, share in answer.alternatives))
    click.echo(f"{card.name}, {card.family}. {EPILOG}", err=True)


# --- serve ------------------------------------------------------------------------------------------------------------


@cli.command()
@click.option(
    "--model", type=click.Path(path_type=Path), help="A run folder or a bundle.  [default: the one that ships]"
)
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="0 takes any free one.  [default: $PORT, or 8000]")
@click.option("--store", help="Where uploads live: memory://, a folder, s3://, gs://, redis://.  [default: memory://]")
@click.option("--device", help="cpu, cuda, mps or auto.  [default: auto]")
@click.option("--new-key", is_flag=True, help="Print a key for a client and what to set for it, and serve nothing.")
def serve(
    model: Path | None, host: str | None, port: int | None, store: str | None, device: str | None, new_key: bool
) -> None:
    """Answer questions over HTTP: upload an image once, ask many questions about it.

    Everything else is set by MEDICAL_VQA_* variables; docs/serving.md lists them.
    """
    _require_serving()
    if new_key:
        from medical_vqa.serving.middleware.access import new_key as make_key

        key, digest = make_key()
        click.echo(f"for the client:  {key}\nfor the server:  MEDICAL_VQA_API_KEYS={digest}")
        return
    from medical_vqa.pipelines import serve as serve_stage
    from medical_vqa.serving.settings import read_settings

    serve_stage.serve(read_settings(model=model, host=host, port=port, store=store, device=device))


def _require_serving() -> None:
    import importlib.util

    needed = ("fastapi", "uvicorn", "structlog", "pydantic_settings", "limits", "secure", "safetensors")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise MissingDependencyError(f"serving needs {missing[0]}; run: pip install 'medical-vqa[serve]'")


# --- app --------------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option("--backend", metavar="URL", help="A backend that runs already.  [default: start one on this machine]")
@click.option("--compare", metavar="URL", help="A second backend, whose answers can be shown beside.")
@click.option("--feedback", type=click.Path(path_type=Path), help="Folder for thumbs and corrections.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of the page.")
@click.option("--port", default=8501, show_default=True, envvar="PORT", help="Port of the page.")
def app(
    model: Path | None, backend: str | None, compare: str | None, feedback: Path | None, host: str, port: int
) -> None:
    """Open a page on which one uploads an image and asks.

    MODEL is a run folder or a bundle, by default the model that ships.
    """
    from medical_vqa.app import launch

    click.echo(f"page: http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}")
    sys.exit(
        launch.run(
            model=model, backend=backend, compare=compare, feedback=feedback, host=host, port=port, environ=os.environ
        )
    )


# --- export -----------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("target", required=False, metavar="[REPOSITORY|DIR]")
@click.option("--to", required=True, metavar="hub|onnx|DIR", help="`hub`, with REPOSITORY; `onnx`; or a new folder.")
@click.option("--public", is_flag=True, help="Make a new repository public.")
def export(model: Path, target: str | None, to: str, public: bool) -> None:
    """Write a model with its model card for use elsewhere.

    MODEL is a run folder or a bundle; REPOSITORY is USER/NAME on the Hugging Face hub. `--to onnx` writes a bundle
    into DIR (by default beside MODEL) that predict, ask and serve run without torch, checked on the shipped sample.
    """
    from medical_vqa.pipelines import export as export_stage

    if to == "onnx":
        folder, difference = export_stage.export_onnx(model, Path(target) if target else None)
        click.echo(f"exported: {folder}\nsame answers on the shipped sample, logits within {difference:.1e}")
        return
    click.echo(f"exported: {export_stage.export(model, to=to, repository=target, public=public)}")


# --- deploy -----------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("target", type=click.Choice(["cloud-run", "space", "compose", "kubernetes"]))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--model", type=click.Path(path_type=Path), help="A run folder or a bundle.  [default: the shipped one]")
@click.option("--set", "values", multiple=True, metavar="KEY=VALUE", help="Fill a name in, e.g. project=my-project.")
@click.option("--wheel", type=click.Path(path_type=Path), help="This project's wheel.  [default: built, or the index]")
@click.option("--force", is_flag=True, help="Write over a folder that is not empty.")
def deploy(
    target: str, out: Path, model: Path | None, values: tuple[str, ...], wheel: Path | None, force: bool
) -> None:
    """Write all that puts a model online: container, service, and the commands.

    A compact model is exported to ONNX on the way, and its container holds no torch. With `space --set backend=URL`
    the Space is the page alone.
    """
    from medical_vqa.pipelines import bundles as bundles_stage
    from medical_vqa.pipelines import deploy as deploy_stage

    chosen = model or bundles_stage.shipped_bundle()
    for path in deploy_stage.deploy(target, chosen, out, values=_pairs(values, "--set"), wheel=wheel, force=force):
        click.echo(path)
    click.echo(f"next: the commands in {out / 'README.md'}")


if __name__ == "__main__":
    main()

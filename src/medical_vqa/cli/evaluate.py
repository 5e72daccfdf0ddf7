"""Commands for predictions: predict, score, report, compare and calibrate."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medical_vqa.cli.options import (
    dataset_options,
    map_option,
    pairs,
    selected_rows,
    with_options,
)
from medical_vqa.cli.terminal import console
from medical_vqa.pipelines.runs import newest_predictions, newest_run, sibling
from medical_vqa.text import per_cent

if TYPE_CHECKING:
    from medical_vqa.pipelines.inputs import AnsweredRows
    from medical_vqa.schema.selection import Selection


@click.command()
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
@with_options(dataset_options)
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
    from medical_vqa.pipelines.load import load
    from medical_vqa.pipelines.predict import predict as predict_stage
    from medical_vqa.progress import counting

    name = model or newest_run()
    loaded = load(
        name,
        device=device,
        base_url=base_url,
        api_key=os.environ.get(api_key_env, ""),
        concurrency=concurrency,
        logprobs=logprobs,
    )
    with counting(console(stderr=True), f"answering with {name}", "questions") as progress:
        predictions = predict_stage(
            loaded,
            split=where_split(split),
            out=out,
            shuffle_images=shuffle_images,
            progress=progress,
            selection=selected_rows(dataset, root, pairs(where, "--where")),
        )
    click.echo(f"predictions: {predictions.path}")
    if predictions.coverage is not None:
        click.echo(f"closed list: it holds the answers of {per_cent(predictions.coverage)} of these rows")
    if (usage := predictions.usage) is not None:
        cost = f", cost {usage.cost(per_million_in=price[0], per_million_out=price[1]):.4f}" if price else ""
        click.echo(
            f"spent: {usage.requests:,} requests, {usage.retries:,} retries, {usage.prompt_tokens:,} tokens in, "
            f"{usage.completion_tokens:,} out{cost}"
        )


@click.command()
@click.argument("predictions", required=False, type=click.Path(path_type=Path))
@click.option("--split", help="Of the rows that were asked, for a file without a card.")
@click.option("--protocol", help="Also score by this published rule, or by `all` of them, in one table.")
@map_option
@click.option("--by", "crossed", multiple=True, metavar="FACT[,FACT]", help="Also print a metric by a fact, or two.")
@click.option("--metric", default="em", show_default=True, help="Which, for --by: em, laterality, helm.bleu1 ...")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@with_options(dataset_options)
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

    chosen = predictions or newest_predictions()
    selection = selected_rows(dataset, root, pairs(where, "--where"))
    scored = _scored(chosen, split, selection, columns=columns, protocol=protocol)
    path = scored.write()
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


@click.command()
@click.argument("predictions", nargs=-1, type=click.Path(path_type=Path))
@click.option("--split", help="Of the rows that were asked, for a file without a card.")
@click.option("--out", type=click.Path(path_type=Path), help="HTML file to write.  [default: beside the predictions]")
@map_option
@click.option("--by", "crossed", multiple=True, metavar="FACT,FACT", help="Also break scores down by facts crossed.")
@click.option("--risk", type=float, default=0.1, show_default=True, help="Tolerated share of wrong answers.")
@with_options(dataset_options)
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
    from medical_vqa.pipelines.inputs import answered_rows_of_all

    selection = selected_rows(dataset, root, pairs(where, "--where"))
    given = predictions or (newest_predictions(),)
    facts = _facts(crossed)
    answered = answered_rows_of_all(given, selection, where_split(split) if split else None)
    all_scored = [
        _scored(path, None, None, rows=rows, columns=columns, protocol="all", crossed=facts, risk=risk)
        for path, rows in zip(given, answered, strict=True)
    ]
    if len(given) > 1:
        page = report_stage.comparison_page(all_scored, given, out or given[0].with_name("comparison.html"))
        click.echo(f"report: {page}")
        return
    (chosen,), (scored,) = given, all_scored
    results = scored.write()
    page = report_stage.report(scored, chosen, out or sibling(chosen, "report", ".html"))
    click.echo(headline(scored.results))
    click.echo(f"report: {page}\nresults: {results}")


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--split", help="Of the rows that were asked, for files without a card.")
@map_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per comparison.")
@with_options(dataset_options)
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

    comparisons = compare_stage.compare(
        files,
        selection=selected_rows(dataset, root, pairs(where, "--where")),
        split=where_split(split) if split else None,
        columns=parse_map(columns) if columns else None,
    )
    lines = [json.dumps(dataclasses.asdict(pair), ensure_ascii=False) for pair in comparisons]
    click.echo("\n".join(lines) if as_json else comparison_text(comparisons))


@click.command()
@click.argument("predictions", required=False, type=click.Path(path_type=Path))
@click.option("--risk", type=float, default=0.1, show_default=True, help="Tolerated share of wrong answers.")
def calibrate(predictions: Path | None, risk: float) -> None:
    """Fit the confidence's temperature on validation predictions, and keep it in the bundle.

    Also chooses the confidence below which the model should say that it does not know, so that of the answers it does
    give at most the share --risk is wrong. `ask` and reports on other splits use both.
    """
    from medical_vqa.evaluation.reporting.wording import percent
    from medical_vqa.pipelines import calibrate as calibrate_stage

    chosen = predictions or newest_predictions("predictions-validation.jsonl")
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


def _scored(
    predictions: Path,
    split: str | None,
    selection: Selection | None,
    *,
    rows: AnsweredRows | None = None,
    columns: str | None = None,
    protocol: str | None = None,
    crossed: Sequence[tuple[str, ...]] = (),
    risk: float = 0.1,
) -> Any:
    from medical_vqa import registry
    from medical_vqa.config import where_split
    from medical_vqa.evaluation.imports.tables import parse_map
    from medical_vqa.pipelines import score as score_stage

    named = registry.names("protocols") if protocol == "all" else [protocol] if protocol else []
    return score_stage.score(
        predictions,
        selection=selection,
        split=where_split(split) if split else None,
        rows=rows,
        protocols=named,
        columns=parse_map(columns) if columns else None,
        crossed=crossed,
        risk=risk,
    )


def _facts(crossed: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(part.strip() for part in pair.split(",")) for pair in crossed]


def _protocol_table(results: Any) -> str:
    """The table, and under it what each defect changes and where each rule was published."""
    from medical_vqa import registry
    from medical_vqa.evaluation.protocols.table import table_text

    lines = ["", table_text(results.protocols), ""]
    for name in dict.fromkeys(score.protocol for score in results.protocols):
        rule = registry.find("protocols", name)
        lines.append(f"{name}: {rule.citation}")
        changes = dict.fromkeys(score.changes for score in results.protocols if score.protocol == name)
        lines += [f"  - {sentence}" for sentence in [*changes, rule.caveat] if sentence]
    return "\n".join(lines)

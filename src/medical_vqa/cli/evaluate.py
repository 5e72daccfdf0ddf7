"""Commands for predictions: predict, probe, score, report, compare and calibrate."""

from __future__ import annotations

from pathlib import Path

import click

from medical_vqa.cli.options import (
    Endpoint,
    NamedPath,
    Rows,
    check_price,
    device_option,
    endpoint_options,
    image_dependence_option,
    map_option,
    price_option,
    row_options,
)
from medical_vqa.cli.terminal import echo
from medical_vqa.text import per_cent

split_option = click.option("--split", help="Split of the rows that were asked, for a file without a card.")
risk_option = click.option(
    "--risk", type=float, default=0.1, show_default=True, help="Tolerated fraction of wrong answers."
)


@click.command()
@click.argument("model", required=False)
@click.option("--split", default="validation", show_default=True, help="train, validation or test.")
@click.option("--out", type=NamedPath(path_type=Path), help="File to write.  [default: in the run folder]")
@device_option
@endpoint_options
@click.option("--concurrency", type=int, help="Requests at once, for a remote model.  [default: 8]")
@click.option("--logprobs/--no-logprobs", default=True, help="Ask a remote model for token probabilities.")
@price_option
@click.option("--shuffle-images", is_flag=True, help="Ask about another row's image: a baseline that `score` shows.")
@click.option("--guards/--no-guards", default=False, help="Also record what the guards withhold; scores stay the same.")
@image_dependence_option
@row_options
def predict(
    model: str | None,
    split: str,
    out: Path | None,
    device: str,
    endpoint: Endpoint,
    concurrency: int | None,
    logprobs: bool,
    price: tuple[float, float] | None,
    shuffle_images: bool,
    guards: bool,
    image_dependence: bool | None,
    rows: Rows,
) -> None:
    """Answer every question of a split.

    MODEL is a run folder or a bundle, by default the newest finished run; shipped; hub:USER/NAME; or a remote model
    (openai:MODEL with --base-url, vllm:MODEL, ollama:MODEL ..., or a name in models.yaml), asked about --dataset.
    """
    from medical_vqa import api

    check_price(price, model, endpoint["base_url"])
    predictions = api.predict(
        model,
        split=split,
        out=out,
        shuffle_images=shuffle_images,
        guards=guards,
        image_dependence=image_dependence,
        device=device,
        concurrency=concurrency,
        logprobs=logprobs,
        **endpoint,
        **rows,
    )
    echo(f"predictions: {predictions.path}")
    if predictions.coverage is not None:
        echo(f"the model's list of answers has the right answer to {per_cent(predictions.coverage)} of these questions")
    if (usage := predictions.usage) is not None:
        price = price or predictions.price
        cost = f", cost {usage.cost(per_million_in=price[0], per_million_out=price[1]):.4f}" if price else ""
        withheld = f", {usage.filtered:,} answers withheld by a content filter" if usage.filtered else ""
        if usage.cut_off:
            withheld += f", {usage.cut_off:,} answers cut off at max_tokens (models.yaml)"
        echo(
            f"spent: {usage.requests:,} requests, {usage.retries:,} retries, {usage.prompt_tokens:,} tokens in, "
            f"{usage.completion_tokens:,} out{withheld}{cost}"
        )


@click.command()
@click.argument("model", required=False)
@click.option("--split", default="validation", show_default=True, help="train, validation or test.")
@click.option("--out", type=NamedPath(path_type=Path), help="JSON file to write.  [default: in the run folder]")
@click.option("--limit", type=int, metavar="IMAGES", help="Ask about so many images, drawn at random.  [default: all]")
@click.option("--seed", default=0, show_default=True, help="Seed of replaced pictures and drawn images.")
@device_option
@endpoint_options
@click.option("--concurrency", type=int, help="Requests at once, for a remote model.  [default: 8]")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
@row_options
def probe(
    model: str | None,
    split: str,
    out: Path | None,
    limit: int | None,
    seed: int,
    device: str,
    endpoint: Endpoint,
    concurrency: int | None,
    as_json: bool,
    rows: Rows,
) -> None:
    """Measure whether a model uses the image: replaced pictures, opposites, other words, mirrored sides.

    MODEL is as in `predict`. Writes the numbers, a page that can be cited, and every answer; the same command again
    asks only what is missing.
    """
    from medical_vqa import api
    from medical_vqa.evaluation.reporting.probe_report import sentences

    written = api.probe(
        model,
        split=split,
        out=out,
        limit=limit,
        seed=seed,
        device=device,
        concurrency=concurrency,
        **endpoint,
        **rows,
    )
    if as_json:
        click.echo(written.probe.model_dump_json(indent=2))
        return
    echo("\n".join([str(written), *sentences(written.probe)]))
    echo(f"numbers: {written.path}\npage: {written.page}\nanswers: {written.answers}")


@click.command()
@click.argument("predictions", required=False, type=NamedPath(path_type=Path))
@split_option
@click.option("--protocol", help="Also score by this published rule, or by `all` of them, in one table.")
@map_option
@click.option("--by", metavar="FACT[,FACT]", multiple=True, help="Also print a metric by a fact, or two.")
@click.option("--metric", help="Metric of --by: em, laterality, helm.bleu1 ...  [default: em]")
@click.option("--details", is_flag=True, help="Also compute breakdowns, further metrics, calibration and consistency.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.option("--out", type=NamedPath(path_type=Path), help="JSON file to write.  [default: next to the card, or here]")
@row_options
def score(
    predictions: Path | None,
    split: str | None,
    protocol: str | None,
    columns: str | None,
    by: tuple[str, ...],
    metric: str | None,
    details: bool,
    as_json: bool,
    out: Path | None,
    rows: Rows,
) -> None:
    """Score predictions: EM and F1 with intervals, next to the question-only baseline.

    PREDICTIONS is a predictions.jsonl, by default the newest one under runs/; or a CSV, JSON, JSONL, Excel or parquet
    file of another program, whose columns --map names; without it they are guessed, and shown.
    """
    from medical_vqa import api
    from medical_vqa.api.arguments import as_fact_groups
    from medical_vqa.errors import ConfigError

    if as_json and by:
        raise ConfigError("--by prints a table, which --json leaves out; add --details for breakdowns in the JSON")
    if metric is not None and not by:
        raise ConfigError(f"--metric {metric!r}: is the metric of --by; name a fact too, such as --by answer_type")
    from medical_vqa.evaluation.reporting.protocol_table import protocol_table
    from medical_vqa.evaluation.reporting.summary import row_lines, withheld_line, without_leaks_line

    scores = api.score(
        predictions,
        split=split,
        protocol=() if protocol is None else protocol,
        columns=columns,
        details=details,
        **rows,
    )
    tables = scores.breakdowns(metric or "em", as_fact_groups(by)) if by else []
    path, results = scores.write(out), scores.results
    if scores.guess:
        echo(scores.guess, err=True)
    if as_json:
        click.echo(results.model_dump_json(indent=2))
    else:
        echo(scores)
    for line in row_lines(results.excluded):
        echo(f"not scored, {line}", err=True)
    for line in row_lines(results.warnings):
        echo(line, err=as_json)
    if results.without_leaks:
        echo(without_leaks_line(results), err=as_json)
    if results.withheld:
        echo(withheld_line(results), err=as_json)
    if protocol and not as_json:
        echo(f"\n{protocol_table(results.protocols)}")
    for table in tables:
        echo(f"\n{table}")
    echo(f"results: {path}", err=as_json)


@click.command()
@click.argument("predictions", nargs=-1, type=NamedPath(path_type=Path))
@split_option
@click.option("--out", type=NamedPath(path_type=Path), help="HTML file to write.  [default: next to the predictions]")
@map_option
@click.option("--by", metavar="FACT,FACT", multiple=True, help="Also break scores down by crossed facts.")
@risk_option
@row_options
def report(
    predictions: tuple[Path, ...],
    split: str | None,
    out: Path | None,
    columns: str | None,
    by: tuple[str, ...],
    risk: float,
    rows: Rows,
) -> None:
    """Write a report: one HTML page with scores, intervals, breakdowns and a gallery of answers.

    PREDICTIONS is a predictions.jsonl, by default the newest one under runs/; several are compared in one page.
    """
    from medical_vqa import api

    written = api.report(predictions or None, out, split=split, columns=columns, by=by, risk=risk, **rows)
    for line in written.notes:
        echo(line, err=True)
    if written.results is None:
        echo(f"report: {written.page}")
    else:
        echo(f"{written.scores[0]}\nreport: {written.page}\nresults: {written.results}")


@click.command()
@click.argument("predictions", type=NamedPath(path_type=Path))
@click.option("--claim", required=True, help="The claimed score in per cent, with its decimals: 84.9")
@click.option("--out", type=NamedPath(path_type=Path), help="HTML page to write.  [default: referee.html]")
@split_option
@map_option
@row_options
def referee(
    predictions: Path, claim: str, out: Path | None, split: str | None, columns: str | None, rows: Rows
) -> None:
    """Examine a claimed score: which published rule gives it from these predictions, and which cannot.

    Scores the predictions under every protocol, without leaked rows as well, next to the baseline, with intervals and
    the difference that so many questions can show; prints a table and writes one page to attach to a review.
    """
    from medical_vqa import api

    examination = api.referee(
        predictions, claim, page=out or Path("referee.html"), split=split, columns=columns, **rows
    )
    for line in examination.scores.notes:
        echo(line, err=True)
    echo(examination)
    echo(f"page: {examination.page}")


@click.command()
@click.argument("predictions", type=NamedPath(path_type=Path))
@click.option("--judge", "judge_model", required=True, help="openai:MODEL and the like, or a name in models.yaml.")
@click.option("--out", type=NamedPath(path_type=Path), help="File with judgments.  [default: judged-SPLIT.jsonl]")
@endpoint_options
@click.option("--concurrency", type=int, help="Requests at once.  [default: 8]")
@price_option
@split_option
@map_option
@row_options
def judge(
    predictions: Path,
    judge_model: str,
    out: Path | None,
    endpoint: Endpoint,
    concurrency: int | None,
    price: tuple[float, float] | None,
    split: str | None,
    columns: str | None,
    rows: Rows,
) -> None:
    """Ask a language model whether each answer says the same as its reference.

    Both orders of the two answers are asked, and an answer is right only if both judgments are; prints the number next
    to exact match, and the agreement with judgments that the file has. The same command resumes after an interruption.
    """
    from medical_vqa import api

    judged = api.judge(
        predictions,
        judge_model,
        out=out,
        concurrency=concurrency,
        **endpoint,
        split=split,
        columns=columns,
        **rows,
    )
    echo(judged)
    usage, price = judged.usage, price or judged.price
    cost = f", cost {usage.cost(per_million_in=price[0], per_million_out=price[1]):.4f}" if price else ""
    tokens = f"{usage.prompt_tokens:,} tokens in, {usage.completion_tokens:,} out"
    echo(f"spent: {usage.requests:,} requests, {tokens}{cost}")
    echo(f"judgments: {judged.path}; score them with: medical-vqa score {judged.path} --protocol judge")


@click.command()
@click.argument("results", nargs=-1, required=True, type=NamedPath(path_type=Path))
@click.option("--out", type=NamedPath(path_type=Path), help="HTML page to write.  [default: leaderboard.html]")
def leaderboard(results: tuple[Path, ...], out: Path | None) -> None:
    """Put many models on many datasets into one page, from their results files.

    RESULTS are files that `score` wrote, or folders that are searched for results*.json and *-results.json. Only scores
    of the same rows under the same rule share a table. Models whose predictions lie next to their results are tested in
    pairs.
    """
    from medical_vqa import api

    tables = api.leaderboard(results, page=out or Path("leaderboard.html"))
    echo(tables)
    echo(f"page: {tables.page}")


@click.command()
@click.argument("files", nargs=-1, required=True, type=NamedPath(path_type=Path))
@split_option
@map_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per comparison.")
@row_options
def compare(files: tuple[Path, ...], split: str | None, columns: str | None, as_json: bool, rows: Rows) -> None:
    """Compare prediction files of the same rows, paired by question.

    Prints the difference of every two with its interval, McNemar's exact test, a permutation test over whole images,
    Holm's correction over all of them, and what difference these questions could show.
    """
    from medical_vqa import api
    from medical_vqa.evaluation.reporting.comparison_text import comparison_text

    comparisons = api.compare(files, split=split, columns=columns, **rows)
    for line in comparisons[0].notes:
        echo(line, err=True)
    if as_json:
        click.echo("\n".join(comparison.model_dump_json() for comparison in comparisons))
    else:
        echo(comparison_text(comparisons))


@click.command()
@click.argument("predictions", required=False, type=NamedPath(path_type=Path))
@risk_option
@click.option(
    "--refit",
    type=NamedPath(path_type=Path),
    help="Bundle of the same recipe trained on all rows; it receives the calibration too.",
)
def calibrate(predictions: Path | None, risk: float, refit: Path | None) -> None:
    """Fit the confidence's temperature on validation predictions, and keep it in the bundle.

    Also chooses the confidence below which the model abstains, so that of the answers that it does give at most the
    fraction --risk is wrong. `ask` and reports on other splits use both.
    """
    from medical_vqa import api
    from medical_vqa.evaluation.reporting.wording import percent
    from medical_vqa.pipelines.bundles import find_bundle

    calibration = api.calibrate(predictions, risk=risk, refit=refit)
    before, after = percent(calibration.ece), percent(calibration.scaled_ece)
    echo(f"temperature {calibration.temperature:.2f}, from {calibration.n:,} answers")
    echo(f"calibration error {before} before, {after} after (on other images)")
    if refit is not None:
        echo(f"{find_bundle(refit)} has this calibration too, and the scores of the model that was measured")
    if (threshold := calibration.abstention) is None:
        echo(f"no threshold keeps the fraction of wrong answers at {risk:.0%} or below")
        return
    echo(
        f"answer from a confidence of {threshold.threshold:.2f} (before the temperature): {threshold.coverage:.0%} of "
        f"these questions, on {threshold.groups:,} images. Chosen in a fixed sequence of thresholds with whole images "
        f"as units, so that with 95 % confidence at most {risk:.0%} of the answers about such images are wrong; "
        "`medical-vqa report` on another split states what it does there"
    )

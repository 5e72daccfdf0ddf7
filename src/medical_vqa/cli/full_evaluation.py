"""The evaluate command: predictions, baselines, the probe, all protocols and the report at once."""

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
    price_option,
    row_options,
)
from medical_vqa.cli.terminal import echo


@click.command()
@click.argument("model")
@click.option("--split", default="validation", show_default=True, help="train, validation or test.")
@click.option("--out", type=NamedPath(path_type=Path), help="Folder to write into.  [default: the run folder]")
@click.option(
    "--shuffle-images/--no-shuffle-images", default=True, help="Also ask about another row's image: a baseline."
)
@click.option("--probe/--no-probe", default=True, help="Also measure whether the answers depend on the picture.")
@click.option("--probe-images", type=int, metavar="N", help="Probe so many images, drawn at random.  [default: all]")
@device_option
@endpoint_options
@click.option("--concurrency", type=int, help="Requests at once, for a remote model.  [default: 8]")
@price_option
@row_options
def evaluate(
    model: str,
    split: str,
    out: Path | None,
    shuffle_images: bool,
    probe: bool,
    probe_images: int | None,
    device: str,
    endpoint: Endpoint,
    concurrency: int | None,
    price: tuple[float, float] | None,
    rows: Rows,
) -> None:
    """Answer a split, probe the model, score by every protocol with baselines, and write the report.

    MODEL is a run folder, a bundle, shipped, hub:USER/NAME, a remote model (openai:MODEL, vllm:MODEL ...) or a name in
    models.yaml. An interrupted evaluation resumes with the same command.
    """
    from medical_vqa import api
    from medical_vqa.evaluation.reporting.protocol_table import protocol_table

    check_price(price, model, endpoint["base_url"])
    loaded = api.load(
        model,
        device=device,
        concurrency=concurrency,
        **endpoint,
    )
    evaluation = api.evaluate(
        loaded,
        split=split,
        out=out,
        shuffle_images=shuffle_images,
        probe=probe,
        probe_images=probe_images,
        **rows,
    )
    echo(evaluation.scores)
    if evaluation.probe is not None:
        echo(evaluation.probe)
    echo(f"\n{protocol_table(evaluation.scores.results.protocols)}")
    if spent := evaluation.usage:
        counts = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in spent.items())
        total = evaluation.cost
        if price:
            total = (spent["prompt_tokens"] * price[0] + spent["completion_tokens"] * price[1]) / 1e6
        cost = f", cost {total:.4f}" if total is not None else ""
        echo(f"spent: {counts}{cost}")
    echo(f"predictions: {evaluation.predictions.path}\nresults: {evaluation.results}\nreport: {evaluation.page}")

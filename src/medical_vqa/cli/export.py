"""Commands that take a model elsewhere: export and deploy."""

from __future__ import annotations

from pathlib import Path

import click

from medical_vqa.cli.options import NamedPath, pairs
from medical_vqa.errors import ConfigError


@click.command()
@click.argument("model")
@click.argument("target", required=False, metavar="[REPOSITORY|DIR]")
@click.option(
    "--to",
    required=True,
    metavar="hub|onnx|merged|vllm|gguf|DIR",
    help="`hub`, with REPOSITORY; a format; or a new folder.",
)
@click.option("--public", is_flag=True, help="Make a new repository public.")
def export(model: str, target: str | None, to: str, public: bool) -> None:
    """Write a model with its model card for use elsewhere.

    MODEL is a run folder or a bundle; REPOSITORY is USER/NAME on the Hugging Face hub. `--to onnx` writes a bundle
    into DIR (by default next to MODEL) that predict, ask and serve run without torch, checked on the shipped sample.
    Of a fine-tuned chat model or BLIP-2, `--to merged` writes base and adapter merged in the hub's layout, `--to vllm`
    the adapter with the command that serves it, and `--to gguf` the files of llama.cpp, Ollama and LM Studio.
    """
    from medical_vqa import api

    exported = api.export(model, target, to=to, public=public)
    click.echo(f"exported: {exported.location}")
    if exported.command is not None:
        click.echo(f"serve it: {exported.command}")
    if exported.logit_difference is not None:
        click.echo(f"same answers on the shipped sample, logits within {exported.logit_difference:.1e}")


@click.command()
@click.argument("target", type=click.Choice(["cloud-run", "space", "compose", "kubernetes"]))
@click.option("--out", required=True, type=NamedPath(path_type=Path), help="Folder to write.")
@click.option("--model", help="A run folder, a bundle, shipped, or hub:USER/NAME.  [default: shipped]")
@click.option("--engine", metavar="vllm|sglang|ollama", help="Run this engine as a service, with --model-id.")
@click.option("--model-id", help="Model of the engine, e.g. google/medgemma-4b-it.")
@click.option("--set", "values", multiple=True, metavar="KEY=VALUE", help="Fill a name in, e.g. project=my-project.")
@click.option("--wheel", type=NamedPath(path_type=Path), help="This project's wheel.  [default: built, or the index]")
@click.option("--force", is_flag=True, help="Write over a folder that is not empty.")
def deploy(
    target: str,
    out: Path,
    model: str | None,
    engine: str | None,
    model_id: str | None,
    values: tuple[str, ...],
    wheel: Path | None,
    force: bool,
) -> None:
    """Write all that puts a model online: container, service, and the commands.

    A compact model is exported to ONNX on the way, and its container holds no torch. With `space --set backend=URL`
    the Space is the page alone. `compose` and `kubernetes` with --engine run page, server and an inference engine.
    """
    from medical_vqa.pipelines import deploy as deploy_stage
    from medical_vqa.pipelines.load import SHIPPED, bundle_folder

    filled = pairs(values, "--set")
    if engine is not None or model_id is not None:
        if engine is None or model_id is None or model is not None:
            raise ConfigError("--engine and --model-id belong together, in place of --model; give both, and no --model")
        paths = deploy_stage.deploy_engine(target, engine, model_id, out, values=filled, wheel=wheel, force=force)
    else:
        bundle = bundle_folder(SHIPPED if model is None else model)
        paths = deploy_stage.deploy(target, bundle, out, values=filled, wheel=wheel, force=force)
    for path in paths:
        click.echo(path)
    click.echo(f"next: the commands in {out / 'README.md'}")

"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypedDict

import click

from medical_vqa.errors import ConfigError
from medical_vqa.io import as_path


class NamedPath(click.Path):
    """A path with a name: click reads an empty text, as of a variable that is not set, as the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; raises `ConfigError` for an empty text."""
        as_path(value, param.opts[-1] if param and param.opts else "path")
        return super().convert(value, param, ctx)


map_option = click.option(
    "--map",
    "columns",
    metavar="NAME=COLUMN,...",
    help="Columns of another program's file: answer, and id, image and question, or position (# for the order of the "
    "rows), e.g. id=qid,answer=text.",
)


image_dependence_option = click.option(
    "--image-dependence/--no-image-dependence",
    default=None,
    help="Measure how much the picture moves answers.  [default: where that is cheap]",
)
_AMOUNT = click.FloatRange(min=0)
price_option = click.option(
    "--price", type=(_AMOUNT, _AMOUNT), metavar="IN OUT", help="Per million tokens: prints the cost."
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, mps or auto, for a local model."
)


def check_price(price: tuple[float, float] | None, model: str | None, base_url: str | None) -> None:
    """Raise `ConfigError` for a price of a local model."""
    from medical_vqa.pipelines.load import remote_named

    if price is not None and (model is None or remote_named(model, {"base_url": base_url}) is None):
        raise ConfigError(
            f"--price is what the tokens of a remote model cost, and {model or 'the newest run'} is a local one; leave "
            "it out"
        )


class Endpoint(TypedDict):
    """The endpoint of a remote model."""

    base_url: str | None
    api_key_env: str | None
    allow_http: bool


def endpoint_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --base-url, --api-key-env and --allow-http, which the command receives as one argument `endpoint`."""

    @click.option(
        "--base-url", help="Endpoint of a remote model, up to and with /v1.  [default: that of vllm:, ollama: ... here]"
    )
    @click.option("--api-key-env", help="Variable with the endpoint's key.  [default: OPENAI_API_KEY]")
    @click.option("--allow-http", is_flag=True, help="Send the key to another machine without encryption.")
    @functools.wraps(command)
    def with_endpoint(base_url: str | None, api_key_env: str | None, allow_http: bool, **options: Any) -> None:
        endpoint = Endpoint(base_url=base_url, api_key_env=api_key_env, allow_http=allow_http)
        command(endpoint=endpoint, **options)

    return with_endpoint


class Rows(TypedDict):
    """Which rows --dataset, --root and --where select."""

    dataset: str | None
    root: Path | None
    where: Mapping[str, str]


def row_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --dataset, --root and --where to a command, which receives them as one argument `rows`."""

    @click.option("--dataset", help="A prepared dataset, instead of the one the model was trained on.")
    @click.option(
        "--root",
        type=NamedPath(path_type=Path),
        help="Folder of prepared datasets.  [default: ~/.cache/medical-vqa/data]",
    )
    @click.option("--where", multiple=True, metavar="FACT=VALUE", help="Only rows with this fact, e.g. language=en.")
    @functools.wraps(command)
    def with_rows(dataset: str | None, root: Path | None, where: tuple[str, ...], **options: Any) -> None:
        command(rows=Rows(dataset=dataset, root=root, where=pairs(where, "--where")), **options)

    return with_rows


def pairs(values: tuple[str, ...], option: str) -> dict[str, str]:
    """``("a=1", "b=2")`` as a mapping.

    Raises:
        ConfigError: A value has no ``=``, or two differ for one key; the message names the option.
    """
    parted = [value.partition("=") for value in values]
    if bad := [key for key, sign, _ in parted if not sign]:
        raise ConfigError(f"{option} {bad[0]!r}: expected KEY=VALUE, for example {option} language=en")
    content: dict[str, str] = {}
    for key, _, value in parted:
        if content.setdefault(key, value) != value:
            raise ConfigError(f"{option} {key}: is {content[key]!r} and also {value!r}; give it one value")
    return content

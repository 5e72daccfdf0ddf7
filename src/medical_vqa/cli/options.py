"""Options that several commands share, and the defaults that stand for a missing argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medical_vqa.errors import ConfigError

if TYPE_CHECKING:
    from medical_vqa.schema.selection import Selection

map_option = click.option(
    "--map",
    "columns",
    metavar="NAME=COLUMN,...",
    help="Columns of another program's file: id (or image and question) and answer, e.g. id=qid,answer=text.",
)
dataset_options = [
    click.option("--dataset", help="A prepared dataset, instead of the one the model was trained on."),
    click.option(
        "--root", type=click.Path(path_type=Path), help="Where it was prepared.  [default: ~/.cache/medical-vqa/data]"
    ),
    click.option("--where", multiple=True, metavar="FACT=VALUE", help="Only rows with this fact, e.g. language=en."),
]


def with_options(options: list[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that adds these options to a command, in their order."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def pairs(values: tuple[str, ...], option: str) -> dict[str, str]:
    """``("a=1", "b=2")`` as a mapping; raises `ConfigError` that names the option for a value without ``=``."""
    parted = [value.partition("=") for value in values]
    if bad := [key for key, sign, _ in parted if not sign]:
        raise ConfigError(f"{option} {bad[0]!r}: expected KEY=VALUE, for example {option} language=en")
    return {key: value for key, _, value in parted}


def prepared_root(root: Path | None) -> Path:
    """The root of prepared datasets, absolute."""
    from medical_vqa.data.prepared.dataset import default_root

    return (root or default_root()).expanduser().resolve()


def selected_rows(dataset: str | None, root: Path | None, where: Mapping[str, str]) -> Selection | None:
    """The rows that --dataset, --root and --where select; None without --dataset."""
    if dataset is None:
        if where or root:
            raise ConfigError("--root and --where need --dataset, which names the rows they select from")
        return None
    from medical_vqa.schema.selection import Selection

    return Selection(dataset=dataset, root=prepared_root(root), where=dict(where))

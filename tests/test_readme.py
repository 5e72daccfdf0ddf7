"""The README's commands are the program's commands."""

import re
import shlex
from pathlib import Path

import click
import pytest

from medical_vqa.cli import cli
from medical_vqa.config import load_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.S)
    for line in block.splitlines()
]
COMMANDS = [line for line in LINES if line.startswith("medical-vqa ")]


def test_the_readme_shows_the_main_path():
    assert [shlex.split(line)[1] for line in COMMANDS[:5]] == ["prepare", "train", "predict", "report", "ask"]


GUIDE = re.findall(r"^medical-vqa .*", (ROOT / "docs/how-to/evaluate.md").read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("line", COMMANDS + GUIDE)
def test_every_command_of_the_readme_is_understood(line):
    name, *words = shlex.split(line)[1:]
    command = cli.commands[name]
    context = command.make_context(name, words)  # raises on an unknown option or a missing argument
    assert isinstance(context, click.Context)
    overrides = dict(pair.split("=", 1) for pair in context.params.get("overrides", ()))
    if name == "train":
        load_recipe(ROOT / context.params["recipe"], overrides)


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("make ")])
def test_every_make_target_of_the_readme_exists(line):
    target = line.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


def test_every_file_that_the_readme_names_exists():
    for path in re.findall(r"\]\(((?!http)[^)]+)\)", README) + re.findall(r"`((?:recipes|docs|src)/[\w./-]+)`", README):
        assert (ROOT / path).exists(), path


def test_the_annotated_tree_names_what_is_there():
    tree = re.search(r"## What is where\n\n```\n(.*?)```", README, re.S).group(1)
    for name in re.findall(r"([\w]+\.py)", tree):
        assert (ROOT / "src/medical_vqa" / name).is_file(), name

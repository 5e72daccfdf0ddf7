"""The README's commands are the program's commands, and what it refers to exists."""

import json
import re
import shlex
from pathlib import Path

import click
import pytest

from medical_vqa.cli import cli
from medical_vqa.config import load_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLE = re.findall(r"^\| [^|]+ \| `((?:medical-vqa|make) [^`]+)` \|$", README, re.M)


def test_the_table_of_tasks_covers_the_commands_of_the_main_path():
    commands = {shlex.split(line)[1] for line in TABLE if line.startswith("medical-vqa ")}
    assert commands >= {"ask", "prepare", "train", "score", "compare", "audit", "report", "serve", "deploy"}


@pytest.mark.parametrize("line", [line for line in TABLE if line.startswith("medical-vqa ")])
def test_every_command_of_the_table_is_understood(line):
    name, *words = shlex.split(line)[1:]
    command = cli.commands[name]
    context = command.make_context(name, words)  # raises on an unknown option or a missing argument
    assert isinstance(context, click.Context)
    overrides = dict(pair.split("=", 1) for pair in context.params.get("overrides", ()))
    if name == "train":
        load_recipe(ROOT / context.params["recipe"], overrides)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake (\w+)", README))))
def test_every_make_target_of_the_readme_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)


def test_every_file_that_the_readme_names_exists():
    for path in re.findall(r"\]\(((?!http)[^)]+)\)", README) + re.findall(r"`((?:recipes|docs|src)/[\w./-]+)`", README):
        assert (ROOT / path).exists(), path


def test_the_first_screen_shows_a_good_and_a_bad_number_with_their_baselines():
    first_screen = README[: README.index("## ")]
    assert "84.4** [82.0, 86.5]" in first_screen and "56.9" in first_screen
    folds = json.loads((ROOT / "benchmarks/results/vqa_rad_folds.json").read_text(encoding="utf-8"))["cross_validation"]
    (written,) = (comparison for name, comparison in folds.items() if name.startswith("as the recipe is written"))
    ours, floor = ({**score["interval"], "em": score["value"]} for score in written["scores"])
    em, low, high = (f"{100 * ours[key]:.1f}" for key in ("em", "low", "high"))
    assert f"**{em}** [{low}, {high}]" in first_screen and f"{100 * floor['em']:.1f}" in first_screen
    assert "0.46 to 0.74" in first_screen
    card = (ROOT / "docs/explanation/model-card.md").read_text(encoding="utf-8")
    ablation = (ROOT / "docs/explanation/ablation.md").read_text(encoding="utf-8")
    assert "**84.4** [82.0, 86.5]" in card and f"{em} [{low}, {high}]" in ablation

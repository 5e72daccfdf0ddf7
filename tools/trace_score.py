"""Follows one call of ``medical-vqa score FILE``: modules entered, functions, calls, and how often data is opened.

It prepares the shipped sample in a temporary folder, trains the question-only baseline, predicts the validation split,
and scores the predictions in this process under `sys.setprofile`, from the command's function to its return. It calls
the command line alone, so it runs at any commit whose ``src`` is on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import click
from click.testing import CliRunner

import medical_vqa
from medical_vqa.cli import cli

PACKAGE = Path(medical_vqa.__file__).parent
FAMILIES = ("question-only", "floor")
"""The baseline's name, now and in earlier commits."""


class Trace:
    """What was entered and opened while the traced function ran."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self.opened: Counter[str] = Counter()
        self._codes: dict[Any, tuple[str, str] | None] = {}
        self.active = False

    def profile(self, frame: FrameType, event: str, _argument: object) -> None:
        """Count the calls of the package's functions; module bodies and comprehensions are not calls."""
        if event != "call":
            return
        code = frame.f_code
        if code not in self._codes:
            path = Path(code.co_filename)
            in_package = path.is_relative_to(PACKAGE) and not code.co_name.startswith("<")
            self._codes[code] = (path.relative_to(PACKAGE).as_posix(), code.co_qualname) if in_package else None
        if key := self._codes[code]:
            self.calls[key] += 1

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Count the files that are opened for reading."""
        if self.active and event == "open" and isinstance(arguments[0], str | os.PathLike):
            self.opened[Path(arguments[0]).name] += 1

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, traced from its call to its return."""

        def traced(*arguments: Any, **keywords: Any) -> Any:
            self.active = True
            threading.setprofile(self.profile)
            sys.setprofile(self.profile)
            try:
                return function(*arguments, **keywords)
            finally:
                sys.setprofile(None)
                threading.setprofile(None)
                self.active = False

        return traced


def run(*words: str) -> None:
    """Run one command of the program, in this process."""
    result = CliRunner().invoke(cli, words, catch_exceptions=False)
    if result.exit_code != 0:
        sys.exit(f"medical-vqa {' '.join(words)} failed: {result.output}")


def predict_baseline(folder: Path) -> Path:
    """Predictions of the question-only baseline on the validation split of the shipped sample."""
    os.chdir(folder)
    run("prepare", "slake-mini")
    for family in FAMILIES:
        recipe = folder / "baseline.yaml"
        recipe.write_text(f"name: baseline\ndata:\n  name: slake-mini\nmodel:\n  family: {family}\n", encoding="utf-8")
        try:
            run("train", str(recipe))
        except Exception as error:
            if family == FAMILIES[-1]:
                raise
            print(f"{family}: {error}", file=sys.stderr)
        else:
            break
    run("predict", "runs/baseline", "--split", "validation")
    return folder / "runs/baseline/predictions-validation.jsonl"


def main() -> None:
    """Print the figures of one scored file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--functions", action="store_true", help="also list every function and its calls")
    arguments = parser.parse_args()
    trace = Trace()
    sys.addaudithook(trace.audit)
    with tempfile.TemporaryDirectory() as folder:
        predictions = predict_baseline(Path(folder))
        command = cli.commands["score"]
        assert isinstance(command, click.Command) and command.callback is not None
        run("score", str(predictions))  # imports what it imports, so that the traced run holds calls alone
        command.callback = trace.wrap(command.callback)
        run("score", str(predictions))
        os.chdir("/")
    modules = {module for module, _ in trace.calls}
    print(f"modules entered: {len(modules)}")
    print(f"distinct functions called: {len(trace.calls)}")
    print(f"calls: {trace.calls.total()}")
    print("files opened:")
    for name, count in trace.opened.most_common():
        print(f"  {count:4}  {name}")
    if arguments.functions:
        for (module, function), count in sorted(trace.calls.items()):
            print(f"  {count:6}  {module}  {function}")


if __name__ == "__main__":
    main()

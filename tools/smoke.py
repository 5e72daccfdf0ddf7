"""Runs the installed package as a user would: help, version, and a question, from the command line and from Python."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.resources import as_file, files

import medical_vqa as mv

QUESTION = "What modality is used to take this image?"


def run(*words: str) -> str:
    """The output of one command of the program; a failure ends this script."""
    program = shutil.which("medical-vqa")
    if program is None:
        sys.exit("medical-vqa is not on PATH; install the package first")
    return subprocess.run([program, *words], check=True, capture_output=True, encoding="utf-8").stdout


def main() -> None:
    """Run the commands and compare what they print."""
    if "ask" not in run("--help"):
        sys.exit("medical-vqa --help does not list the command `ask`")
    version = run("--version").strip()
    with as_file(files("medical_vqa") / "assets/slake-mini/imgs/xmlab112/source.jpg") as image:
        printed = run("ask", str(image), QUESTION, "--json")
        answer = mv.load("shipped").ask(image, QUESTION)
    if json.loads(printed)["answer"] != "CT" or answer.text != "CT":
        sys.exit(f"expected the answer CT, got {printed} and {answer}")
    if "torch" in sys.modules:
        sys.exit("answering imported torch, which the base installation does not have")
    print(f"{version}: the shipped model answers on {sys.platform}, Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()

"""Result files that no careful program writes: read as meant or refused in one sentence, and nothing half written."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medical_vqa import cli
from medical_vqa.pipelines.prepare import prepare_dataset

NUMBERS = range(6)
HOSTILE = "\x1b[2J\x1b]0;title\x07\u202ered\x9b31m"
"""Clears a terminal, changes its title, turns what follows around and colors it."""


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    status: int
    out: str
    error: str


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a dataset of six questions about three images."""
    folder = tmp_path_factory.mktemp("hostile") / "mine"
    folder.mkdir()
    lines = ["id,image,question,answer,split,answer_type"]
    for number in NUMBERS:
        Image.new("L", (32, 32), 30 * (number // 2)).save(folder / f"{number // 2}.png")
        closed = number % 2
        question, answer = (f"Is it normal ({number})?", "yes") if closed else (f"Where is it ({number})?", "left lung")
        lines.append(f"q{number},{number // 2}.png,{question},{answer},test,{'CLOSED' if closed else 'OPEN'}")
    (folder / "questions.csv").write_text("\n".join(lines))
    prepare_dataset("folder", source=folder, root=folder.parent / "root", name="mine")
    return folder.parent / "root"


@pytest.fixture
def run(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """Runs a command on the dataset in an empty folder, as a person does."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Outcome:
        rows = [] if arguments[0] == "leaderboard" else ["--dataset", "mine", "--root", root, "--split", "test"]
        monkeypatch.setattr(sys, "argv", ["medical-vqa", *map(str, [*arguments, *rows])])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        printed = capsys.readouterr()
        return Outcome(int(end.value.code or 0), printed.out, printed.err)

    return call


def answer_rows(**changes: Any) -> list[dict[str, Any]]:
    """A right answer to each question; `changes` are those of the first row."""
    rows = [{"id": f"q{number}", "answer": "yes" if number % 2 else "left lung"} for number in NUMBERS]
    rows[0] |= changes
    return rows


def write(rows: list[dict[str, Any]], name: str = "answers.jsonl") -> Path:
    path = Path(name)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


# --- what is shown ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["score", "report", "compare", "referee"])
def test_a_terminal_receives_no_control_characters_of_a_file(run: Callable[..., Outcome], command: str) -> None:
    path = write(answer_rows(id=HOSTILE))
    arguments = {"compare": [path, write(answer_rows(), "other.jsonl")], "referee": [path, "--claim", "50"]}
    outcome = run(command, *arguments.get(command, [path]))
    assert outcome.status == 0
    assert r"\x1b[2J\x1b]0;title\x07\u202ered\x9b31m" in outcome.error + outcome.out
    assert not set(HOSTILE) & set("\x1b\x07\u202e\x9b") & set(outcome.error + outcome.out)


def test_neither_do_messages_and_names_of_columns(run: Callable[..., Outcome]) -> None:
    path = Path("answers.csv")
    path.write_text(f"id,{HOSTILE}\nq1,yes\n")
    outcome = run("score", path)
    assert outcome.status == 2
    assert r"its columns are id, \x1b[2J" in outcome.error
    assert "\x1b" not in outcome.error


@pytest.mark.parametrize("command", ["report", "report of two"])
def test_pages_show_answers_as_text_without_control_characters(run: Callable[..., Outcome], command: str) -> None:
    markup = '<script>alert("a")</script>'
    path = write(answer_rows(answer=markup + HOSTILE, raw=markup))
    files = [path] if command == "report" else [path, write(answer_rows(), "other.jsonl")]
    assert run("report", *files, "--out", "page.html").status == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(&#34;a&#34;)&lt;/script&gt;\\x1b[2J" in page
    assert "<script>alert" not in page
    assert not set("\x1b\x07\u202e\x9b") & set(page)


@pytest.mark.parametrize("command", ["report", "report of two"])
def test_of_a_very_long_answer_a_page_shows_the_beginning(run: Callable[..., Outcome], command: str) -> None:
    path = write(answer_rows(answer="word-" * 100_000, alternatives=[["next " * 100_000, 0.1]]))
    files = [path] if command == "report" else [path, write(answer_rows(), "other.jsonl")]
    assert run("report", *files, "--out", "page.html").status == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert "word- … (500,000 characters)" in page
    assert len(page) < 200_000


def test_commands_that_reproduce_a_page_are_quoted(run: Callable[..., Outcome]) -> None:
    first, second = (write(answer_rows(), f"{name} $(touch x).jsonl") for name in "ab")
    assert run("report", first, second, "--out", "page.html").status == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert "medical-vqa report &#39;a $(touch x).jsonl&#39; &#39;b $(touch x).jsonl&#39;" in page

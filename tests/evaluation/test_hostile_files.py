"""Result files that no careful program writes: read as meant or refused in one sentence, and nothing half written."""

from __future__ import annotations

import errno
import gzip
import html
import json
import os
import re
import shlex
import stat
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from PIL import Image

import medical_vqa
from medical_vqa import cli
from medical_vqa.errors import ConfigError
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


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": 3}, "expected id and answer as text; quote them in the file"),
        ({"answer": None}, "expected id and answer as text; quote them in the file"),
        ({"confidence": True}, "confidence is True; give a number from 0 to 1 or null"),
        ({"confidence": float("nan")}, "confidence is nan; give a number from 0 to 1 or null"),
        ({"raw": 7}, "raw is 7; give a text, or leave it out"),
        ({"judged_right": "yes"}, "judged_right is 'yes'; give true, false or null"),
        ({"confidence_basis": "magic"}, "confidence_basis is 'magic'; give probability or agreement, or null"),
        ({"alternatives": [["lung"]]}, 'alternatives is [["lung"]]; give a list of pairs'),
        ({"alternatives": [["lung", "high"]]}, 'alternatives is [["lung", "high"]]; give a list of pairs'),
        ({"alternatives": [["lung", float("nan")]]}, 'alternatives is [["lung", NaN]]; give a list of pairs'),
        ({"alternatives": "lung"}, 'alternatives is "lung"; give a list of pairs'),
        ({"alternatives": 5}, "alternatives is 5; give a list of pairs"),
        ({"guards": {"withheld": True, "reason_code": 5}}, "reason_code of guards is 5; give a text or null"),
        ({"guards": {"withheld": True, "image_dependence": 2}}, "image_dependence of guards is 2; give a number in"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_line(
    run: Callable[..., Outcome], changes: dict[str, Any], message: str
) -> None:
    rows = answer_rows()
    rows[3] |= changes
    outcome = run("score", write(rows))
    assert outcome.status == 2
    assert outcome.error.startswith("medical-vqa: answers.jsonl:4: prediction 'q3': ")
    assert message in outcome.error
    assert sorted(path.name for path in Path().iterdir()) == ["answers.jsonl"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("answers.jsonl", '{"id": "q0", "answer": "lung", "answer": "liver"}'),
        ("answers.jsonl", '{"qid": "q0", "text": "lung", "text": "liver"}'),
        ("answers.json", '[{"id": "q0", "answer": "lung", "answer": "liver"}]'),
        ("answers.json", '{"q0": "lung", "q1": "no", "q0": "liver"}'),
    ],
)
def test_a_key_that_stands_twice_in_an_answer_is_refused(run: Callable[..., Outcome], name: str, text: str) -> None:
    Path(name).write_text(text + "\n")
    outcome = run("score", name)
    assert (outcome.status, outcome.out) == (2, "")
    assert re.search(r"the key '(answer|text|q0)' occurs twice in one object: keep one of them", outcome.error)


def test_a_key_that_stands_twice_in_results_is_refused(run: Callable[..., Outcome]) -> None:
    assert run("score", write(answer_rows()), "--out", "results.json").status == 0
    path = Path("results.json")
    path.write_text(path.read_text().replace('"value": 1.0', '"value": 0.5, "value": 1.0', 1))
    outcome = run("leaderboard", path)
    assert (outcome.status, outcome.out) == (2, "")
    assert "results.json: is not JSON (the key 'value' occurs twice in one object: keep one of them)" in outcome.error


def test_a_parquet_column_that_stands_twice_is_refused(run: Callable[..., Outcome]) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    ids = [row["id"] for row in answer_rows()]
    columns = [pa.array(ids), pa.array(["yes"] * len(ids)), pa.array(["no"] * len(ids))]
    parquet.write_table(pa.Table.from_arrays(columns, names=["id", "answer", "answer"]), "answers.parquet")
    outcome = run("score", "answers.parquet")
    assert (outcome.status, outcome.out) == (2, "")
    assert "answers.parquet: column 'answer' occurs twice; rename one of them" in outcome.error


def test_a_fact_that_has_two_values_is_refused(run: Callable[..., Outcome]) -> None:
    path = write(answer_rows())
    outcome = run("score", path, "--where", "answer_type=OPEN", "--where", "answer_type=CLOSED")
    assert outcome.status == 2
    assert "--where answer_type: is 'OPEN' and also 'CLOSED'; give it one value" in outcome.error
    assert run("score", path, "--where", "answer_type=OPEN", "--where", "answer_type=OPEN").status == 0


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_a_file_without_a_row_is_said_to_have_none(run: Callable[..., Outcome], content: bytes) -> None:
    Path("answers.jsonl").write_bytes(content)
    outcome = run("score", "answers.jsonl")
    assert (outcome.status, outcome.error) == (
        2,
        "medical-vqa: answers.jsonl: has no answers; write one row per question\n",
    )


@pytest.mark.parametrize(
    "encode",
    [gzip.compress, *(partial(str.encode, encoding=name) for name in ("utf-16", "utf-16-le", "utf-32"))],
    ids=["gzip", "utf-16", "utf-16-le", "utf-32"],
)
@pytest.mark.parametrize("name", ["answers.jsonl", "answers.csv"])
def test_other_encodings_and_compressed_files_are_read_whatever_they_are_called(
    run: Callable[..., Outcome], name: str, encode: Callable[[Any], bytes]
) -> None:
    rows = answer_rows()
    text = "id,answer\n" + "".join(f"{row['id']},{row['answer']}\n" for row in rows)
    if name.endswith("l"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
    Path(name).write_bytes(encode(text.encode() if encode is gzip.compress else text))  # type: ignore[arg-type]
    outcome = run("score", name)
    assert outcome.status == 0
    assert outcome.out.startswith("EM 100.0")


def test_a_table_with_commas_that_is_called_tsv_is_read(run: Callable[..., Outcome]) -> None:
    Path("answers.tsv").write_text("id,answer\n" + "".join(f"{row['id']},{row['answer']}\n" for row in answer_rows()))
    assert run("score", "answers.tsv").out.startswith("EM 100.0")


def test_an_answer_that_is_nested_too_deeply_is_refused(run: Callable[..., Outcome]) -> None:
    content = json.dumps([row | {"answer": "HERE"} for row in answer_rows()])
    Path("answers.json").write_text(content.replace('"HERE"', "[" * 500 + "1" + "]" * 500, 1))
    outcome = run("score", "answers.json")
    assert (outcome.status, outcome.error) == (
        2,
        "medical-vqa: answers.json: holds lists or objects nested too deeply; write answers as text\n",
    )


@pytest.mark.parametrize("part", ["xl/worksheets/sheet1.xml", "xl/workbook.xml"])
def test_an_excel_file_with_damaged_parts_is_refused(run: Callable[..., Outcome], part: str) -> None:
    workbook = openpyxl.Workbook()
    for row in [{"id": "id", "answer": "answer"}, *answer_rows()]:
        workbook.active.append([row["id"], row["answer"]])
    workbook.save("whole.xlsx")
    with zipfile.ZipFile("whole.xlsx") as whole, zipfile.ZipFile("answers.xlsx", "w") as damaged:
        for name in whole.namelist():
            damaged.writestr(name, b"<broken" if name == part else whole.read(name))
    outcome = run("score", "answers.xlsx")
    assert outcome.status == 2
    assert outcome.error.startswith("medical-vqa: answers.xlsx: is not a complete Excel file (")
    assert outcome.error.endswith("); save it again\n")


def test_an_image_that_is_called_like_a_question_is_not_joined_by_chance(run: Callable[..., Outcome]) -> None:
    """Rows that are joined to no question have a name for messages, which is no id, even where it is that of one."""
    Path("answers.csv").write_text("picture,text\n" + "".join(f"{row['id']},x\n" for row in answer_rows()))
    outcome = run("score", "answers.csv", "--map", "image=picture,answer=text")
    assert outcome.status == 2
    assert "none of 6 predictions answers one of 6 questions" in outcome.error
    assert "'row 1: q0'" in outcome.error


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("id=id,answer=answer,answer=text", "names 'answer' twice; name one column for it"),
        (
            "id=id,answer=answer,reference=answer",
            "the column 'answer' is named for answer and for reference; name another",
        ),
    ],
)
def test_a_map_that_names_something_twice_is_refused(run: Callable[..., Outcome], columns: str, message: str) -> None:
    outcome = run("score", write(answer_rows()), "--map", columns)
    assert outcome.status == 2
    assert message in outcome.error


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.csv", "answers.json", "answers.txt", "answers.parquet"])
def test_a_file_that_may_not_be_read_is_refused(
    run: Callable[..., Outcome], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(answer_rows(), name)
    opened = Path.open

    def refusing(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refusing)
    outcome = run("score", name)
    assert (outcome.status, outcome.error) == (
        2,
        f"medical-vqa: {name}: cannot be read (Permission denied); check its permissions\n",
    )


# --- what is written --------------------------------------------------------------------------------------------------

WRITING = ("score", "report", "report of two", "referee", "leaderboard")


@pytest.fixture
def write_to(run: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Runs a command that writes a file, on files that exist."""
    for name in ("answers.jsonl", "other.jsonl"):
        write(answer_rows(), name)
    assert run("score", "answers.jsonl", "--out", "results.json").status == 0

    def call(command: str, out: object) -> Outcome:
        arguments = {
            "score": ["score", "answers.jsonl"],
            "report": ["report", "answers.jsonl"],
            "report of two": ["report", "answers.jsonl", "other.jsonl"],
            "referee": ["referee", "answers.jsonl", "--claim", "50"],
            "leaderboard": ["leaderboard", "results.json"],
        }[command]
        return run(*arguments, "--out", out)

    return call


def contents() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}


@pytest.mark.parametrize("command", WRITING)
def test_an_input_is_not_overwritten(write_to: Callable[..., Outcome], command: str) -> None:
    before = contents()
    path = Path("results.json" if command == "leaderboard" else "answers.jsonl").resolve()
    outcome = write_to(command, path)
    assert outcome.status == 2
    assert outcome.error == (
        f"medical-vqa: {path} is a file that is read; name another file to write, or the input would be lost\n"
    )
    assert contents() == before


@pytest.mark.parametrize("command", WRITING)
def test_a_file_of_another_kind_is_not_overwritten(write_to: Callable[..., Outcome], command: str) -> None:
    """As where a second predictions file stands after --out."""
    write(answer_rows(), "valuable.jsonl")
    before = contents()
    outcome = write_to(command, "valuable.jsonl")
    assert outcome.status == 2
    kind = "results file" if command == "score" else "HTML page"
    assert f"valuable.jsonl exists, is no {kind} and would be lost; name another file to write" in outcome.error
    assert contents() == before


@pytest.mark.parametrize("command", WRITING)
def test_what_the_same_command_wrote_is_overwritten(write_to: Callable[..., Outcome], command: str) -> None:
    assert [write_to(command, "out").status, write_to(command, "out").status] == [0, 0]


@pytest.mark.parametrize("command", WRITING)
def test_a_pipe_or_a_device_is_not_replaced_by_a_file(write_to: Callable[..., Outcome], command: str) -> None:
    os.mkfifo("pipe")
    before = contents()
    outcome = write_to(command, "pipe")
    assert outcome.status == 2
    assert "pipe is a device or a pipe; expected the path of a file to write" in outcome.error
    assert stat.S_ISFIFO(Path("pipe").stat().st_mode)
    assert contents() == before


@pytest.mark.parametrize("out", [".", "", "folder", "x" * 300])
@pytest.mark.parametrize("command", WRITING)
def test_what_is_no_path_of_a_file_is_refused_in_one_sentence(
    write_to: Callable[..., Outcome], command: str, out: str
) -> None:
    Path("folder").mkdir()
    before = contents()
    outcome = write_to(command, out)
    assert outcome.status == 2
    assert outcome.error.startswith("medical-vqa: ")
    assert re.search("is a folder; |File name too long|--out: expected a path as text", outcome.error.splitlines()[-1])
    assert contents() == before


def test_a_wrong_breakdown_is_noticed_before_anything_is_written(run: Callable[..., Outcome]) -> None:
    path = write(answer_rows())
    for options in (["--by", "nothing"], ["--by", "answer_type", "--metric", "nothing"]):
        outcome = run("score", path, *options)
        assert (outcome.status, outcome.out) == (2, "")
    assert list(contents()) == ["answers.jsonl"]


def test_results_by_two_paths_are_one_row(run: Callable[..., Outcome]) -> None:
    assert run("score", write(answer_rows()), "--out", "results.json").status == 0
    Path("link.json").symlink_to("results.json")
    outcome = run("leaderboard", "results.json", Path("results.json").resolve(), "link.json")
    assert "One model: nothing to compare." in outcome.out


@pytest.mark.parametrize("claim", ["1e1", "8_4.9", "+84.9", "-0.0", "84.", "nan", "84,9", "84.9%"])
def test_a_claim_that_is_no_plain_number_is_refused(run: Callable[..., Outcome], claim: str) -> None:
    outcome = run("referee", write(answer_rows()), f"--claim={claim}")
    assert (outcome.status, outcome.out) == (2, "")
    assert f"--claim '{claim}': expected a score in per cent, such as 84.9" in outcome.error


@pytest.mark.parametrize(("claim", "per_cent"), [("0.849", "84.9"), ("0.4", "40"), ("0.5000", "50")])
def test_a_claim_that_is_a_fraction_is_refused(run: Callable[..., Outcome], claim: str, per_cent: str) -> None:
    outcome = run("referee", write(answer_rows()), f"--claim={claim}")
    assert (outcome.status, outcome.out) == (2, "")
    assert f"expected a score in per cent, got a fraction of 1; write {per_cent}\n" in outcome.error


def test_spaces_around_a_claim_are_no_decimals(run: Callable[..., Outcome]) -> None:
    assert "The claim of 100.0 is reproduced" in run("referee", write(answer_rows()), "--claim", " 100.0 ").out


# --- options that contradict each other -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metric", "f1"], "--metric 'f1': is the metric of --by; name a fact too, such as --by answer_type"),
        (["--by", "answer_type", "--json"], "--by prints a table, which --json leaves out; add --details"),
        (["--by", "answer_type,answer_type"], "by: 'answer_type,answer_type' names a fact twice"),
        (["--protocol", ""], "unknown protocol ''; known: helm"),
        (["--map", ""], "--map '': expected the columns of the answer and of the id"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(
    run: Callable[..., Outcome], options: list[str], message: str
) -> None:
    outcome = run("score", write(answer_rows()), *options)
    assert (outcome.status, outcome.out) == (2, "")
    assert message in outcome.error
    assert list(contents()) == ["answers.jsonl"]


@pytest.mark.parametrize("risk", ["0", "1", "2", "-0.1", "nan"])
def test_a_tolerated_risk_is_a_fraction_also_where_no_answer_has_a_confidence(
    run: Callable[..., Outcome], risk: str
) -> None:
    outcome = run("report", write(answer_rows()), f"--risk={risk}")
    assert (outcome.status, outcome.out) == (2, "")
    assert "risk: expected a fraction between 0 and 1, such as 0.05, got" in outcome.error


@pytest.mark.parametrize("options", [["--by", "answer_type"], ["--risk", "0.2"]])
def test_a_page_of_several_files_takes_no_option_of_one(run: Callable[..., Outcome], options: list[str]) -> None:
    outcome = run("report", write(answer_rows()), write(answer_rows(), "other.jsonl"), *options)
    assert (outcome.status, outcome.out) == (2, "")
    assert "by and risk belong to the report of one file" in outcome.error


@pytest.mark.parametrize("command", ["compare", "report"])
@pytest.mark.parametrize("other", ["answers.jsonl", "./answers.jsonl", "link.jsonl"])
def test_a_file_is_not_compared_with_itself(run: Callable[..., Outcome], command: str, other: str) -> None:
    path = write(answer_rows())
    Path("link.jsonl").symlink_to(path)
    outcome = run(command, path, other)
    assert (outcome.status, outcome.out) == (2, "")
    assert f"is the same file as {path}; name each file once" in outcome.error


@pytest.mark.parametrize("command", [command for command in WRITING if command != "leaderboard"])
@pytest.mark.parametrize("name", ["manifest.json", "test.jsonl", "new.html"])
def test_nothing_is_written_into_a_prepared_dataset(
    write_to: Callable[..., Outcome], root: Path, command: str, name: str
) -> None:
    before = {path: path.read_bytes() for path in (root / "mine").rglob("*") if path.is_file()}
    outcome = write_to(command, root / "mine" / name)
    assert outcome.status == 2
    assert f"{name} is in the folder of the prepared dataset, {root / 'mine'}; write elsewhere" in outcome.error
    assert {path: path.read_bytes() for path in (root / "mine").rglob("*") if path.is_file()} == before


def test_neither_are_an_audit_and_another_layout(root: Path) -> None:
    before = {path: path.read_bytes() for path in (root / "mine").rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"manifest.json is in the folder of the prepared dataset"):
        medical_vqa.audit("mine", root=root, page=root / "mine" / "manifest.json", progress=False)
    for folder in (root / "mine", root / "mine" / "messages"):
        with pytest.raises(ConfigError, match=r"is in the folder of the prepared dataset"):
            medical_vqa.convert("mine", "messages", folder, root=root)
    assert {path: path.read_bytes() for path in (root / "mine").rglob("*") if path.is_file()} == before


def test_a_column_of_confidences_that_is_not_there_is_refused(run: Callable[..., Outcome]) -> None:
    outcome = run("score", write(answer_rows()), "--map", "id=id,answer=answer,confidence=conf")
    assert (outcome.status, outcome.out) == (2, "")
    assert "answers.jsonl row 1: has no 'conf' for confidence; it has id, answer" in outcome.error


@pytest.mark.parametrize(
    ("confidences", "ignored"), [(("95", "80.5"), 2), (("95 %", "0.5"), 1), (("", "nan"), 0), (("0.5", "1"), 0)]
)
def test_a_confidence_that_cannot_be_used_is_named(
    run: Callable[..., Outcome], confidences: tuple[str, str], ignored: int
) -> None:
    lines = [f"q{number},yes,{confidence}\n" for number, confidence in enumerate(confidences)]
    Path("answers.csv").write_text("id,answer,confidence\n" + "".join(lines))
    outcome = run("score", "answers.csv")
    assert outcome.status == 0
    sentence = f"{ignored}: confidence that is no number from 0 to 1, such as one in per cent, and is ignored"
    assert (sentence in outcome.out + outcome.error) is (ignored > 0)


def test_the_commands_of_a_referee_s_page_examine_the_same_rows(
    run: Callable[..., Outcome], root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"q{number},yes,no\n" for number in NUMBERS]
    Path("two columns.csv").write_text("id,first,second\n" + "".join(lines))
    options = ["--map", "id=id,answer=first", "--where", "answer_type=CLOSED", "--out", "page.html"]
    first = run("referee", "two columns.csv", "--claim", "100", *options)
    assert first.status == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert "the claim of 100<" in page
    for line in html.unescape(page.partition("<pre>")[2].partition("</pre>")[0]).strip().splitlines():
        assert f"--root {root}" in line
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
    printed = capsys.readouterr().out
    assert printed.splitlines()[:-1] == [line for line in first.out.splitlines()[:-1] if "without leaks" not in line]

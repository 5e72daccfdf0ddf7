"""Result files that answer other rows than they should: every command refuses them, or says what it left out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medical_vqa import api
from medical_vqa.cli import cli
from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.errors import DataError
from medical_vqa.pipelines.prepare import prepare_dataset
from medical_vqa.schema.prediction_card import AnsweringModel, PredictionCard, write_prediction_card
from medical_vqa.schema.records import Prediction, write_jsonl
from medical_vqa.schema.selection import Selection

IMAGES = 4
QUESTIONS = ("Is it a CT?", "Which organ is it?")
Answers = list[dict[str, Any]]
COMMANDS = ("score", "report", "report of two", "compare", "referee")


def prepare(folder: Path, questions: tuple[str, ...] = QUESTIONS, extra: dict[str, list[str]] | None = None) -> None:
    """A dataset whose images have the same questions, half of them with the same answer, and further facts in turn."""
    facts = extra or {}
    folder.mkdir(exist_ok=True)
    with (folder / "questions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "question", "answer", "split", *facts])
        for number in range(IMAGES):
            data = io.BytesIO()
            Image.new("L", (32, 32), 40 * number).save(data, "PNG")
            (folder / f"{number}.png").write_bytes(data.getvalue())
            for place, question in enumerate(questions):
                answer = ("yes", "lung")[place] if number % 2 else ("no", "liver")[place]
                further = [values[number % len(values)] for values in facts.values()]
                writer.writerow([f"r{number}{place}", f"{number}.png", question, answer, "test", *further])
    prepare_dataset("folder", source=folder, root=folder.parent / "root", name="mine")


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path / "mine")
    write_jsonl(tmp_path / "own.jsonl", [Prediction(row["id"], "yes", "yes", None) for row in answers()])
    rows = ["--dataset", "mine", "--root", str(tmp_path / "root"), "--split", "test"]

    def call(command: str, file: Path, *options: str) -> str:
        arguments = {
            "score": ["score", str(file)],
            "report": ["report", str(file), "--out", "report.html"],
            "report of two": ["report", "own.jsonl", str(file), "--out", "report.html"],
            "compare": ["compare", "own.jsonl", str(file)],
            "referee": ["referee", str(file), "--claim", "40.0", "--out", "report.html"],
        }[command]
        capsys.readouterr()
        cli.main([*arguments, *rows, *options], standalone_mode=False)
        printed = capsys.readouterr()
        return printed.out + printed.err

    return call


def answers() -> Answers:
    return [{"id": f"r{number}{place}", "text": f"a{number}{place}"} for number in range(IMAGES) for place in range(2)]


def table(rows: Answers, name: str = "other.jsonl") -> Path:
    path = Path(name)
    text = "".join(json.dumps(row) + "\n" for row in rows) if name.endswith("l") else json.dumps(rows)
    path.write_text(text, encoding="utf-8")
    return path


def medevalkit(order: list[int]) -> Answers:
    """MedEvalKit's results, which have neither ids nor images, in an order of the images."""
    content = []
    for number in order:
        for place, question in enumerate(QUESTIONS):
            answer = ("yes", "lung")[place] if number % 2 else ("no", "liver")[place]
            content.append(
                {"question": question, "prompt": question, "answer": answer, "response": f"a{number}{place}"}
            )
    return content


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("rows", "note"),
    [
        (answers()[:3], "not scored, 5: no prediction (r11, r20, r21, …)"),
        (answers() + answers()[:2], "not scored, 2: predicted more than once (r00, r01)"),
        (
            [*answers(), {"id": "x1", "text": "a"}, {"id": "x2", "text": "a"}],
            "not scored, 2: prediction for a question that is not in this split (x1, x2)",
        ),
        (
            [*answers()[2:], {"id": "", "text": "a"}, {"id": None, "text": "a"}],
            "not scored, 2: prediction for a question that is not in this split (row 7 without an id, row 8 without",
        ),
        ([*answers()[:7], {"id": "r31"}], "1: row of the file without an answer, such as a failed request (r31)"),
        (answers(), "columns guessed from their names: --map id=id,answer=text"),
    ],
)
def test_every_command_says_what_of_a_file_it_left_out(
    command: str, rows: Answers, note: str, run: Callable[..., str]
) -> None:
    assert note in run(command, table(rows))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_the_filter_that_leaves_answers_of_the_split_out(
    command: str, run: Callable[..., str]
) -> None:
    prepare(Path("mine"), extra={"ward": ["a", "b"]})
    note = "not scored, 4: prediction for a question that is not in this split with ward=b (r00, r01, r20, …)"
    assert note in run(command, table(answers()), "--where", "ward=b")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": f"train/{n}", "text": "a"} for n in range(8)], "none of 8 predictions answers one of 8 questions"),
        ([], r"other\.jsonl: has no answers; write one row per question"),
        ([*answers(), None], r"other\.jsonl:9: expected an object, got null"),
        ([{"text": "a"}] * 8, "it is not clear which hold the answer and the id"),
    ],
)
def test_every_command_refuses_a_file_that_answers_other_rows(
    command: str, rows: Answers, message: str, run: Callable[..., str]
) -> None:
    with pytest.raises(DataError, match=message) as error:
        run(command, table(rows))
    assert "other.jsonl" in str(error.value)
    assert not Path("report.html").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_an_empty_answer_is_an_answer(command: str, run: Callable[..., str]) -> None:
    printed = run(command, table([{**answers()[0], "text": None}, *answers()[1:]]))
    assert "1: empty answer, scored as wrong (r00)" in printed


@pytest.mark.parametrize("command", ["score", "report", "referee"])
def test_answers_that_may_be_about_each_other_s_image_are_named(command: str, run: Callable[..., str]) -> None:
    printed = run(command, table(medevalkit([1, 0, 3, 2]), "results.json"))
    assert "8: joined by a question and reference that several images have" in printed
    in_order = run(command, table(medevalkit([0, 1, 2, 3]), "results.json"))
    assert "joined by a question and reference" not in in_order


def test_a_comparison_leaves_out_what_is_joined_to_one_of_several_images(run: Callable[..., str]) -> None:
    rows = medevalkit([1, 0, 3, 2])
    rows = [{**row, "response": "one"} if row["question"] == QUESTIONS[0] else row for row in rows]
    printed = run("compare", table(rows, "results.json"))
    assert "results: 4: joined by a question and reference that several images have" in printed
    assert "4 questions that all answered" in printed  # answers that are equal cannot be exchanged


def test_a_comparison_reads_the_final_answer_of_reasoning_as_the_score_does(run: Callable[..., str]) -> None:
    final = ["no", "liver", "yes", "lung"] * 2
    texts = [f"<think>It may be a cyst.</think><answer>{answer}</answer>" for answer in final]
    file = table([{**row, "text": text} for row, text in zip(answers(), texts, strict=True)])
    assert "EM 100.0" in run("score", file)
    assert "EM  own 25.0 [0.0, 50.0]  against  other 100.0" in run("compare", file)
    run("report of two", file)
    assert "other is ahead of own by 75.0 points EM" in Path("report.html").read_text(encoding="utf-8")
    (comparison, _) = api.compare(["own.jsonl", file], dataset="mine", root="root", split="test")
    assert "extract:final-answer" in comparison.signature


def test_half_of_a_character_in_an_answer_is_shown_as_unknown(run: Callable[..., str]) -> None:
    rows = [{**answers()[0], "text": "lung \ud83d"}, *answers()[1:]]
    run("report", table(rows))
    assert "lung \ufffd" in Path("report.html").read_text(encoding="utf-8")


def test_half_of_a_character_in_predictions_of_this_project_is_refused(run: Callable[..., str]) -> None:
    rows = [{"id": row["id"], "answer": "lung \ud83d"} for row in answers()]
    with pytest.raises(DataError, match=r"other\.jsonl:1: holds half of a character"):
        run("report", table(rows))


def test_the_page_of_a_comparison_and_the_leaderboard_say_what_is_left_out(
    tmp_path: Path, run: Callable[..., str]
) -> None:
    file = table(answers()[:3])
    run("report of two", file)
    assert "other: not scored, 5: no prediction" in Path("report.html").read_text(encoding="utf-8")
    run("score", file)
    run("score", tmp_path / "own.jsonl")
    board = api.leaderboard([tmp_path / "other-results.json", tmp_path / "own-results.json"], page="board.html")
    note = "other-results: not scored, 5: no prediction (r11, r20, r21, …)"
    assert note in str(board)
    assert note in Path("board.html").read_text(encoding="utf-8")


def test_answers_to_another_preparation_of_the_dataset_are_named(tmp_path: Path, run: Callable[..., str]) -> None:
    """Its ids may be those of other questions by now, as where the id is the number of the row."""
    predictions = tmp_path / "own.jsonl"
    selection = Selection(dataset="mine", root=tmp_path / "root")
    manifest = PreparedDataset.open("mine", tmp_path / "root").manifest.digest
    note = "8: asked of another preparation of mine, in which an id may be that of another question"
    for digest, stated in ((manifest, False), ("0" * 64, True)):
        model = AnsweringModel(name="m", family="openai")
        write_prediction_card(
            predictions, PredictionCard(model=model, selection=selection, split="test", manifest=digest)
        )
        for command in COMMANDS:
            second = command in ("report of two", "compare")  # of which the first is this file
            assert (note in run(command, table(answers()) if second else predictions)) == stated

"""The first calls that come to mind: they work, or say in one sentence what to write."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image

import medical_vqa as mv
from medical_vqa.pipelines.prepare import prepare_dataset

NUMBERS = range(4)


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Two files of answers to four questions, and the arguments that name the questions."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    with (tmp_path / "mine" / "questions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "question", "answer", "split"])
        for number in NUMBERS:
            Image.new("L", (32, 32), 30 * number).save(tmp_path / "mine" / f"{number}.png")
            writer.writerow([f"q{number}", f"{number}.png", "Where is it?", f"part {number}", "test"])
    prepare_dataset("folder", source=tmp_path / "mine", root=tmp_path / "root", name="mine")
    for name, right in (("a.jsonl", 4), ("b.jsonl", 2)):
        lines = [{"id": f"q{n}", "answer": f"part {n}" if n < right else "none"} for n in NUMBERS]
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"dataset": "mine", "root": tmp_path / "root", "split": "test"}


def test_files_to_compare_are_passed_one_by_one_as_a_list_or_as_what_glob_returns(rows, tmp_path):
    expected = mv.compare(["a.jsonl", "b.jsonl"], **rows)
    assert expected[0].difference.value == pytest.approx(0.5)
    for files in (("a.jsonl", "b.jsonl"), [sorted(tmp_path.glob("[ab].jsonl"))], [iter(["a.jsonl", "b.jsonl"])]):
        assert mv.compare(*files, **rows) == expected
    assert len(mv.report(iter(["a.jsonl", "b.jsonl"]), "page.html", **rows).scores) == 2


def test_results_are_passed_one_by_one_as_a_list_or_as_a_folder(rows, tmp_path):
    for name in ("a", "b"):
        mv.score(f"{name}.jsonl", **rows).write(tmp_path / f"results-{name}.json")
    for results in (["."], [tmp_path], [["."]], ["results-a.json", "results-b.json"], [tmp_path.glob("results-*")]):
        (table,) = mv.leaderboard(*results).tables
        assert [entry.headline.score.value for entry in table.entries] == [1.0, 0.5]


def test_a_second_file_of_predictions_is_not_taken_for_the_page_to_write(rows, tmp_path):
    before = (tmp_path / "b.jsonl").read_bytes()
    with pytest.raises(mv.MedicalVqaError, match=r"b.jsonl exists, is no HTML page .* in Python as one list"):
        mv.report("a.jsonl", "b.jsonl", **rows)
    assert (tmp_path / "b.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (mv.compare, "expected one predictions file or several, got none"),
        (mv.leaderboard, "expected results files or folders, got none"),
        (
            lambda: mv.score("a.jsonl", "slake"),
            r"score: expected at most 1 argument without a name \(predictions\), got 2",
        ),
        (
            lambda: mv.score(["yes"], references=["no"]),
            "score: has no argument 'references'; known: predictions, split",
        ),
        (lambda: mv.load("shipped", devise="cpu"), "load: has no argument 'devise'; did you mean 'device'"),
        (lambda: mv.load("shipped", model="demo"), "load: model is passed twice, by position and by name"),
        (lambda: mv.referee("a.jsonl"), "referee: the argument claim is missing; pass it as claim=..."),
        (lambda: mv.export("runs/demo"), "export: the argument to is missing"),
        (lambda: mv.predict("shipped", "slake"), "pass the others by name, such as split="),
        (lambda: mv.train("demo", "slake"), "pass the others by name, such as data="),
        (lambda: mv.Model.ask(None, "scan.png"), "ask: the argument question is missing"),
        (
            lambda: mv.Model.ask(None, "scan.png", "CT?", 3),
            r"at most 2 arguments without a name \(image, question\), got 3",
        ),
        (lambda: mv.score(["a.jsonl", "b.jsonl"]), "pass one of them; compare and report take several"),
        (lambda: mv.score([{"id": "q1", "answer": "yes"}]), "for each question to answers.jsonl, and pass"),
        (lambda: mv.score({"q1": "yes"}), "for each question to answers.jsonl, and pass"),
        (lambda: mv.score(pandas.DataFrame({"id": [1]})), "got an object of type DataFrame; write it with to_csv"),
        (lambda: mv.compare(pandas.DataFrame({"id": [1]})), "got an object of type DataFrame; write it with to_csv"),
        (lambda: mv.prepare(pandas.DataFrame({"id": [1]})), "such as slake-mini, got an object of type DataFrame"),
        (
            lambda: mv.train("demo", data=pandas.DataFrame({"id": [1]})),
            "DataFrame; write it to a file, prepare it with",
        ),
        (lambda: mv.load(np.zeros(3)), "got an object of type ndarray; pass a name or path such as"),
        (lambda: mv.Model(None).ask("scan.png", ["CT?", "MRI?"]), "ask several with ask_many"),
    ],
)
def test_a_call_that_cannot_work_says_what_to_write(call, words):
    with pytest.raises(mv.MedicalVqaError, match=words) as error:
        call()
    assert "\n" not in str(error.value)


def test_answers_of_another_program_cannot_calibrate_a_model(rows):
    with pytest.raises(
        mv.MedicalVqaError, match=r"a\.jsonl has no card .* which names the model to calibrate; predict"
    ):
        mv.calibrate("a.jsonl")


def test_scores_in_place_of_a_file_say_which_of_their_files_to_pass(rows):
    scores = mv.score("a.jsonl", **rows)
    with pytest.raises(mv.MedicalVqaError, match="got an object of type Scores; pass its file"):
        mv.compare([scores, scores])
    with pytest.raises(mv.MedicalVqaError, match=r"got an object of type Scores; pass what its write\(\) returns"):
        mv.leaderboard([scores])


def test_an_open_file_in_place_of_its_path_is_not_read(rows):
    with (
        Path("a.jsonl").open() as file,
        pytest.raises(mv.MedicalVqaError, match="TextIOWrapper; pass the path of the file"),
    ):
        mv.score(file, **rows)


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (("predictions-test.jsonl", "results-test.json"), "predictions-test.jsonl"),
        (("display_predictions.json", "instances.json"), "display_predictions.json"),
        ((), "predictions-validation.jsonl"),
    ],
)
def test_a_folder_in_place_of_a_file_says_which_of_its_files_to_pass(tmp_path, files, named):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(mv.MedicalVqaError, match=f"is a folder; expected a predictions file, such as {named} in it"):
        mv.score(tmp_path)

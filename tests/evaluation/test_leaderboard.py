"""Tables of many models, from results files."""

import json
import re
from pathlib import Path

import pytest

from medical_vqa.errors import DataError
from medical_vqa.evaluation.reporting.leaderboard import (
    Board,
    Entry,
    boards,
    leaderboard_text,
    overview,
    size_text,
    write_leaderboard,
)
from medical_vqa.pipelines.leaderboard import leaderboard, predictions_of, results_files
from medical_vqa.pipelines.runs import output_path
from medical_vqa.schema.bundle_card import ModelFacts
from medical_vqa.schema.prediction_card import AnsweringModel
from medical_vqa.schema.records import Prediction
from medical_vqa.schema.result_files import write_results
from medical_vqa.schema.results import Withheld


@pytest.fixture
def entry(examples, baseline, score):
    """An entry whose model answers the first rows right."""

    def made(name, right, parameters=None, dataset="slake"):
        answers = [
            Prediction(row.id, row.answers[0] if number < right else "spleen", confidence=0.9)
            for number, row in enumerate(examples)
        ]
        model = AnsweringModel(name=name, family="compact", facts=ModelFacts(parameters=parameters))
        results = score(examples, answers, baselines={"question-only": baseline}).model_copy(update={"model": model})
        data = results.dataset.model_copy(update={"name": dataset, "title": dataset})
        return Entry(name, results.model_copy(update={"dataset": data}), Path(f"{name}/results.json"))

    return made


def test_the_best_model_comes_first_and_other_datasets_have_a_table_of_their_own(entry):
    tables = boards([entry("low", 1), entry("high", 5), entry("high", 2, dataset="vqa-rad")])
    assert [[one.name for one in table] for table in tables] == [["high", "low"], ["high"]]


def test_scores_under_another_rule_do_not_share_a_table(entry):
    first, second = entry("a", 1), entry("b", 2)
    metric = second.headline.model_copy(update={"signature": "em|case:keep"})
    other = Entry("b", second.results.model_copy(update={"metrics": (metric,)}), second.file)
    assert len(boards([first, other])) == 2


def test_a_model_on_several_datasets_is_in_the_overview(entry):
    tables = [Board(group) for group in boards([entry("a", 6), entry("a", 3, dataset="vqa-rad"), entry("b", 1)])]
    assert overview(tables) == [("a", ["100.0", "50.0"])]


def test_a_larger_model_with_a_lower_score_is_not_on_the_front(entry):
    board = Board(
        boards([entry("small", 4, 2_600_000), entry("large", 3, 3_400_000_000), entry("best", 5, 7_000_000)])[0]
    )
    assert [one.name for one in board.entries if board.on_front(one)] == ["best", "small"]
    assert [size_text(one.parameters) for one in board.entries] == ["7.0 M", "2.6 M", "3.4 B"]


def test_the_page_says_why_models_were_not_tested_and_escapes_names(tmp_path, entry):
    board = Board(
        boards([entry("<b>a</b>", 4, 1000), entry("b", 3, 2000)])[0], untested="Not tested in pairs: no files."
    )
    write_leaderboard(tmp_path / "l.html", [board], title="Leaderboard", reproduce=["medical-vqa leaderboard runs"])
    page = (tmp_path / "l.html").read_text()
    assert "&lt;b&gt;a&lt;/b&gt;" in page
    assert "<b>a</b>" not in page
    assert "Not tested in pairs: no files." in page
    assert "http://" not in page.replace("http-equiv", "")
    assert "Not tested in pairs: no files." in leaderboard_text([board])


def test_the_part_of_the_answers_that_guards_show_stands_next_to_the_score(tmp_path, entry):
    one, other = entry("guarded", 4), entry("plain", 3)
    score = one.headline.score
    withheld = Withheld(checked=6, withheld=3, reasons={"quality": 3}, visible={"em": score}, hidden={"em": score})
    guarded = Entry("guarded", one.results.model_copy(update={"withheld": withheld}), one.file)
    text = leaderboard_text([Board([guarded, other])])
    assert re.search(r"n +shown +EM of the shown +baseline", text)
    assert re.search(r"guarded +66.7 .* 6 +50.0 +66.7 ", text)
    assert re.search(r"plain +50.0 .* 6 +– +– ", text)
    write_leaderboard(tmp_path / "l.html", [Board([guarded, other])], title="Leaderboard", reproduce=[])
    page = (tmp_path / "l.html").read_text()
    assert re.findall('data-label="shown">([^<]*)<', page) == ["50.0", "–"]
    assert re.findall('data-label="EM of the shown">([^<]*)<', page) == ["66.7", "–"]
    assert "shown" not in leaderboard_text([Board([other])])
    write_leaderboard(tmp_path / "l.html", [Board([other])], title="Leaderboard", reproduce=[])
    assert "guards" not in (tmp_path / "l.html").read_text()


def test_results_in_folders_are_collected_and_equal_names_told_apart(tmp_path, entry):
    for folder, right in (("first", 2), ("second", 4)):
        write_results(tmp_path / folder / "results-test.json", entry("model", right).results)
    (board,) = leaderboard([tmp_path])
    assert [one.name for one in board.entries] == ["model (second)", "model (first)"]
    assert board.untested.startswith("Not tested in pairs")
    assert predictions_of(board.entries[0].file) is None


def test_results_of_predictions_with_another_name_are_collected_with_their_predictions(tmp_path, entry):
    for name, right in (("mine-results.json", 2), ("results-test.json", 4)):
        write_results(tmp_path / name, entry(name, right).results)
    (board,) = leaderboard([tmp_path])
    assert [one.file.name for one in board.entries] == ["results-test.json", "mine-results.json"]
    assert predictions_of(tmp_path / "mine-results.json") is None
    for name in ("mine.jsonl", "mine.card.json"):
        (tmp_path / name).write_text("{}")
    assert predictions_of(tmp_path / "mine-results.json") == tmp_path / "mine.jsonl"


@pytest.mark.parametrize(
    "name",
    ["predictions-test.jsonl", "gpt_predictions.jsonl", "display_predictions.json", "gpt-predictions-test.jsonl"],
)
def test_what_score_writes_by_default_is_found_in_a_folder_whatever_the_predictions_are_called(
    tmp_path, monkeypatch, entry, name
):
    monkeypatch.chdir(tmp_path)
    path = output_path(Path(name), "results", ".json")
    write_results(path, entry("mine", 2).results)
    assert results_files([Path()]) == [path]


def test_results_without_a_metric_are_refused(tmp_path, entry):
    path = tmp_path / "results.json"
    write_results(path, entry("a", 3).results)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"metrics": []}))
    with pytest.raises(DataError, match=r"results\.json: metrics: .*score the predictions again"):
        leaderboard([path])


@pytest.fixture
def edited(tmp_path, entry):
    """A file of results in which the value under a dotted key is another one."""

    def write(key, value, name="results.json"):
        path = tmp_path / name
        write_results(path, entry("a", 3).results)
        content = json.loads(path.read_text())
        *parents, last = [int(part) if part.isdigit() else part for part in key.split(".")]
        inner = content
        for part in parents:
            inner = inner[part]
        assert last in inner or isinstance(last, int)
        inner[last] = value
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("metrics.0.score.value", 1.4, r"metrics\[0\]\.score\.value: expected a number from 0 to 1, got 1\.4"),
        ("metrics.0.score.value", 67.5, r"metrics\[0\]\.score\.value: expected a number from 0 to 1, got 67\.5"),
        ("metrics.0.score.value", -0.1, r"metrics\[0\]\.score\.value: expected a number from 0 to 1, got -0\.1"),
        ("metrics.0.score.value", float("nan"), "is not JSON .NaN is no number in JSON"),
        ("metrics.0.score.value", float("inf"), "is not JSON .Infinity is no number in JSON"),
        ("metrics.0.score.value", 0.1, r"metrics\[0\]\.score: expected a value inside its interval, got 0\.1 and"),
        ("metrics.0.score.interval.low", None, r"score\.interval: expected two bounds or none, got None and"),
        ("metrics.0.score.interval.high", 1.5, r"score\.interval\.high: expected a number from 0 to 1, got 1\.5"),
        (
            "metrics.0.baselines.question-only.value",
            2,
            r"baselines\.question-only\.value: expected a number from 0 to 1",
        ),
        ("metrics.0.differences.question-only.value", -1.5, "expected a number from -1 to 1, got -1.5"),
        ("metrics.0.score.n", 7, r"metrics\[0\]\.score\.n: expected at most the 6 questions that were counted, got 7"),
        ("metrics.0.score.n", -1, r"metrics\[0\]\.score\.n: expected a whole number of at least 0, got -1"),
        ("metrics.0.score.clusters", 7, r"score\.clusters: expected at most as many groups as questions .6., got 7"),
        ("counts.scored", 5000, r"counts\.scored: expected at most the 6 examples, got 5,000"),
        ("counts.predictions", 2, r"counts\.scored: expected at most the 2 predictions, got 6"),
        ("counts.groups", 60, r"counts\.groups: expected at most the 6 scored questions, got 60"),
        ("counts.examples", -6, r"counts\.examples: expected a whole number of at least 0, got -6"),
        ("calibration.ece", 1.2, r"calibration\.ece: expected a number from 0 to 1, got 1\.2"),
    ],
)
def test_numbers_that_no_scoring_gives_are_refused_by_their_key(edited, key, value, message):
    path = edited(key, value)
    with pytest.raises(DataError, match=rf"results\.json: .*{message}.*; score the predictions again$"):
        leaderboard([path])


def test_of_many_impossible_numbers_the_first_are_named(edited, entry):
    path = edited("metrics.0.score.value", 3)
    content = json.loads(path.read_text())
    for metric in content["metrics"]:
        metric["score"]["value"] = 3
        metric["baselines"]["question-only"]["value"] = 3
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"got 3; .* got 3 and 0.* got 3; and 5 more like these; score"):
        leaderboard([path])


def test_results_of_the_same_rows_that_differ_in_their_number_are_refused(edited):
    files = [edited("counts.examples", number, f"results-{number}.json") for number in (6, 9)]
    with pytest.raises(DataError, match=r"results-6\.json is of 6 questions and .*results-9\.json of 9, yet both name"):
        leaderboard(files)


def test_a_folder_without_results_is_refused_with_the_command_that_writes_them(tmp_path):
    with pytest.raises(DataError, match="run `medical-vqa score` first"):
        leaderboard([tmp_path])

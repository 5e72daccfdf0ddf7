"""Tables of many models, from results files."""

import json
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
from medical_vqa.pipelines.leaderboard import leaderboard, predictions_of
from medical_vqa.schema.bundle_card import ModelFacts
from medical_vqa.schema.prediction_card import AnsweringModel
from medical_vqa.schema.records import Prediction
from medical_vqa.schema.results import write_results


@pytest.fixture
def entry(examples, baseline, score):
    """An entry whose model answers the first rows right."""

    def made(name, right, parameters=None, dataset="slake"):
        answers = [
            Prediction(row.id, row.answers[0] if number < right else "spleen") for number, row in enumerate(examples)
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


def test_results_in_folders_are_collected_and_equal_names_told_apart(tmp_path, entry):
    for folder, right in (("first", 2), ("second", 4)):
        write_results(tmp_path / folder / "results-test.json", entry("model", right).results)
    (board,) = leaderboard([tmp_path])
    assert [one.name for one in board.entries] == ["model (second)", "model (first)"]
    assert board.untested.startswith("Not tested in pairs")
    assert predictions_of(board.entries[0].file) is None


def test_results_without_a_metric_are_refused(tmp_path, entry):
    path = tmp_path / "results.json"
    write_results(path, entry("a", 3).results)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"metrics": []}))
    with pytest.raises(DataError, match=r"results\.json: metrics: .*score the predictions again"):
        leaderboard([path])


def test_a_folder_without_results_is_refused_with_the_command_that_writes_them(tmp_path):
    with pytest.raises(DataError, match="run `medical-vqa score` first"):
        leaderboard([tmp_path])

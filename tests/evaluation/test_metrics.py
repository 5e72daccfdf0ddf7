import importlib.util
import json
import math
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medical_vqa.errors import ConfigError
from medical_vqa.evaluation.metrics.base import Mean, comparable_answers
from medical_vqa.evaluation.metrics.exact_match import closed_accuracy, exact_match, exact_match_score
from medical_vqa.evaluation.metrics.laterality import laterality_errors, sides
from medical_vqa.evaluation.metrics.lists import list_match
from medical_vqa.evaluation.metrics.token_overlap import open_recall, token_f1, token_f1_score
from medical_vqa.evaluation.statistics.tally import tally
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.schema.results import Bootstrap

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = json.loads((GOLDEN / "squad_v2.json").read_text(encoding="utf-8"))
ANSWERS = st.text(alphabet="abtheln lung.,-é肺\u0301") | st.text()
METRICS = [exact_match(), token_f1(), closed_accuracy(), open_recall(), list_match(), laterality_errors()]


def example(*answers):
    return Example("1", "scan", "What is it?", answers, "scan")


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case["prediction"]))
def test_both_metrics_equal_the_official_rule(case):
    prediction, gold = Prediction("1", case["prediction"]), example(*case["gold"])
    assert exact_match().counts(prediction, gold) == (case["em"], 1.0)
    assert token_f1().counts(prediction, gold) == (pytest.approx(case["f1"], abs=1e-12), 1.0)


def test_the_golden_file_is_what_its_script_writes():
    spec = importlib.util.spec_from_file_location("make_squad_v2", GOLDEN / "make_squad_v2.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert (GOLDEN / "squad_v2.json").read_text(encoding="utf-8") == script.golden_text()


@given(ANSWERS, ANSWERS)
def test_f1_lies_between_exact_match_and_one_and_is_symmetric(ours, theirs):
    assert exact_match_score(ours, theirs) <= token_f1_score(ours, theirs) <= 1.0
    assert token_f1_score(ours, theirs) == token_f1_score(theirs, ours)


@given(ANSWERS)
def test_an_answer_matches_itself(answer):
    assert exact_match_score(answer, answer) == token_f1_score(answer, answer) == 1.0


@given(st.lists(st.sampled_from(["Lung", "liver", "the", "2", "肺"]), max_size=5), st.sampled_from(string.punctuation))
def test_case_punctuation_and_articles_move_neither_metric(words, mark):
    plain, dressed = " ".join(words), f"The {mark}" + f" an {mark} ".join(word.upper() for word in words)
    assert exact_match_score(dressed, plain) == token_f1_score(dressed, plain) == 1.0


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_question_without_accepted_answers_is_not_scored(metric):
    assert metric.counts(Prediction("1", "lung"), example()) is None


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_the_value_is_the_mean_and_nan_for_nothing(metric):
    assert metric.value((3.0, 4.0)) == 0.75
    assert math.isnan(metric.value((0.0, 0.0)))


def test_accepted_answers_without_words_count_only_where_there_are_no_others():
    assert comparable_answers(("the", "lung")) == ("lung",)
    assert comparable_answers(("the",)) == ("",)


def test_signatures_differ_between_metrics_and_name_the_rule():
    first, second, *_ = (metric.signature() for metric in METRICS)
    assert first == "em|case:lower|punct:strip|articles:strip|answers:max|v:1"
    assert second.startswith("f1|") and second != first


def typed(kind, *answers):
    return Example("1", "scan", "What is it?", answers, "scan", {"answer_type": kind})


def test_closed_accuracy_counts_closed_questions_only():
    assert closed_accuracy().counts(Prediction("1", "Yes."), typed("CLOSED", "yes")) == (1.0, 1.0)
    assert closed_accuracy().counts(Prediction("1", "Yes."), typed("OPEN", "yes")) is None
    assert closed_accuracy().counts(Prediction("1", "Yes."), example("yes")) is None


def test_open_recall_is_the_share_of_the_references_words():
    assert open_recall().counts(Prediction("1", "the left lung is dark"), typed("OPEN", "left upper lung")) == (
        pytest.approx(2 / 3),
        1.0,
    )
    assert open_recall().counts(Prediction("1", "lung"), typed("CLOSED", "lung")) is None


@pytest.mark.parametrize(
    ("predicted", "right"),
    [
        ("Liver, Heart", 1.0),
        ("liver and heart", 1.0),
        ("heart，liver", 1.0),
        ("heart", 0.0),
        ("heart, liver, lung", 0.0),
    ],
)
def test_a_list_is_right_in_any_order_and_only_whole(predicted, right):
    assert list_match().counts(Prediction("1", predicted), example("Heart, Liver")) == (right, 1.0)
    assert list_match().counts(Prediction("1", predicted), example("Heart")) is None


@pytest.mark.parametrize(
    ("predicted", "wrong"),
    [
        ("right lung", 1.0),
        ("Left lung", 0.0),
        ("both left and right", 0.0),
        ("lung", 0.0),
        ("右肺", 1.0),
        ("左肺", 0.0),
    ],
)
def test_only_the_other_side_alone_is_a_laterality_error(predicted, wrong):
    assert laterality_errors().counts(Prediction("1", predicted), example("Left Lung")) == (wrong, 1.0)
    assert laterality_errors().counts(Prediction("1", predicted), example("Lung")) is None
    assert laterality_errors().counts(Prediction("1", predicted), example("left and right")) is None


def test_a_bright_spot_names_no_side():
    assert sides("a bright spot, upright") == frozenset()


def test_a_metric_that_gives_no_number_for_one_answer_is_refused_by_its_name():
    """As one that divides by the length of an empty answer: the score of all others would be lost."""
    rows = [Example(id_, "scan", "What is it?", ("lung",), "scan") for id_ in ("1", "2")]
    answers = {"1": Prediction("1", "lung"), "2": Prediction("2", "")}
    for by_text in (False, True):
        metric = Mean("of_ours", "ours", "v:1", lambda answer, _: 1.0 if answer.answer else math.nan, by_text=by_text)
        with pytest.raises(ConfigError, match=r"the metric of_ours gives \[nan, 1.0\] for the answer to 2; expected"):
            tally(metric, rows, answers)


@pytest.mark.parametrize("counts", [(1.0,), ("right", 1.0)])
def test_a_metric_whose_counts_do_not_add_up_is_refused_by_its_name(counts):
    class Ours:
        name, label = "of_ours", "ours"

        def counts(self, prediction, example):
            return counts if prediction.id == "2" else (1.0, 1.0)

    rows = [Example(id_, "scan", "What is it?", ("lung",), "scan") for id_ in ("1", "2")]
    with pytest.raises(ConfigError, match="the metric of_ours gives what are not always 2 numbers"):
        tally(Ours(), rows, {row.id: Prediction(row.id, "lung") for row in rows})


@pytest.mark.parametrize("value", [37.2, -0.5, math.inf])
def test_a_metric_that_gives_no_score_is_refused_by_its_name(value):
    """As a metric of another package that counts in per cent."""
    metric = Mean("of_ours", "ours", "v:1", lambda prediction, example: value)
    counted = tally(metric, [example("lung")], {"1": Prediction("1", "lung")})
    with pytest.raises(ConfigError, match=r"the metric of_ours gives .*; expected a number from 0 to 1: correct its"):
        counted.score(Bootstrap())

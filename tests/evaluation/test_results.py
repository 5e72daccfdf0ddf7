import importlib.util
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest

from medical_vqa.errors import ConfigError, DataError
from medical_vqa.evaluation.results import Results, evaluate, headline
from medical_vqa.records import Example, Prediction

SCHEMA = files("medical_vqa.evaluation") / "results.schema.json"


@pytest.fixture
def results(examples, predictions, floor, dataset):
    return evaluate(
        examples,
        predictions,
        floors={"question-only": floor},
        dataset=dataset,
        model={"name": "compact"},
        resamples=200,
    )


def scored(examples, predictions, dataset, **settings):
    return evaluate(examples, predictions, floors={}, dataset=dataset, resamples=20, **settings)


def test_a_score_travels_with_interval_n_groups_signature_and_floor(results):
    em = results.metrics[0]
    assert (em.name, em.score.value, em.score.n, em.score.clusters) == ("em", 0.5, 6, 3)
    assert em.score.interval.low <= 0.5 <= em.score.interval.high
    assert em.signature.startswith("em|")
    assert em.floors["question-only"].value == pytest.approx(2 / 6)
    assert em.differences["question-only"].value == pytest.approx(1 / 6)


def test_the_headline_holds_everything_a_number_needs(results):
    low, high = results.metrics[0].score.interval.low, results.metrics[0].score.interval.high
    assert headline(results).startswith(f"EM 50.0 [{100 * low:.1f}, {100 * high:.1f}] · F1 ")
    assert headline(results).endswith("· n=6 questions on 3 images · question-only floor 33.3 · squad_v2")


def test_questions_without_a_prediction_are_set_aside_and_named_not_scored_as_wrong(examples, predictions, dataset):
    results = scored(examples, predictions[:-1], dataset)
    assert [(part.reason, part.n, part.ids) for part in results.set_aside] == [("no prediction", 1, ["6"])]
    assert results.metrics[0].score.value == pytest.approx(3 / 5)
    assert "n=5 of 6 questions" in headline(results)


def test_unanswered_questions_extra_and_double_predictions_are_set_aside_each_with_its_reason(
    examples, predictions, dataset
):
    unanswered = Example("7", "scan-1", "Anything else?", (), "scan-1")
    given = [*predictions, Prediction("7", "no"), Prediction("1", "liver"), Prediction("other", "lung")]
    results = scored([*examples, unanswered], given, dataset)
    assert {part.reason: part.ids for part in results.set_aside} == {
        "no accepted answer in the dataset": ["7"],
        "predicted more than once": ["1"],
        "prediction for a question that is not in this split": ["other"],
    }
    assert (results.counts.examples, results.counts.predictions, results.counts.scored) == (7, 9, 5)


def test_the_first_hundred_ids_are_named_and_all_are_counted(examples, predictions, dataset):
    given = predictions + [Prediction(f"extra-{n:03}", "lung") for n in range(150)]
    (extra,) = scored(examples, given, dataset).set_aside
    assert (extra.n, len(extra.ids), extra.ids[0]) == (150, 100, "extra-000")


def test_predictions_of_another_dataset_are_refused(examples, dataset):
    with pytest.raises(DataError, match="none of 1 predictions answers one of 6 questions"):
        scored(examples, [Prediction("other", "lung")], dataset)


def test_examples_with_equal_ids_are_refused(examples, predictions, dataset):
    with pytest.raises(DataError, match="two examples have the id '1'"):
        scored([*examples, examples[0]], predictions, dataset)


def test_a_floor_that_lacks_a_question_is_refused(examples, predictions, floor, dataset):
    with pytest.raises(DataError, match="the question-only floor has no prediction for '6'"):
        evaluate(examples, predictions, floors={"question-only": floor[:-1]}, dataset=dataset)


def test_an_unknown_protocol_is_refused_with_the_nearest(examples, predictions, dataset):
    with pytest.raises(ConfigError, match="did you mean 'squad_v2'"):
        scored(examples, predictions, dataset, protocol="squad")


def test_breakdowns_are_made_for_the_facts_asked_for(examples, predictions, dataset):
    results = scored(examples, predictions, dataset, facts=["modality", ("modality", "answer_type")])
    assert [breakdown.facts for breakdown in results.breakdowns] == [("modality",), ("modality", "answer_type")]


def test_results_read_back_equal_and_satisfy_the_published_schema(results):
    assert Results.from_json(results.to_json()) == results
    jsonschema.validate(json.loads(results.to_json()), json.loads(SCHEMA.read_text(encoding="utf-8")))


def test_equal_input_gives_an_equal_file(results, examples, predictions, floor, dataset):
    again = evaluate(
        examples,
        predictions,
        floors={"question-only": floor},
        dataset=dataset,
        model={"name": "compact"},
        resamples=200,
    )
    assert again.to_json() == results.to_json()


def test_the_published_schema_is_the_one_of_the_types():
    path = Path(__file__).parents[1] / "golden" / "make_results_schema.py"
    spec = importlib.util.spec_from_file_location("make_results_schema", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert SCHEMA.read_text(encoding="utf-8") == script.schema_text()


@pytest.mark.parametrize("text", ["{}", "not json", '{"format": 2}'])
def test_a_file_that_is_not_a_results_json_is_refused(text):
    with pytest.raises(DataError, match=r"not a results.json of format 1: .*; score again"):
        Results.from_json(text)


def test_scoring_imports_no_torch():
    code = "import sys, medical_vqa.evaluation.results; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"

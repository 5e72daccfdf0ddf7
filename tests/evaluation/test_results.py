import json
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files

import jsonschema
import pytest

from medical_vqa.errors import ConfigError, DataError
from medical_vqa.evaluation.protocols.base import Context
from medical_vqa.evaluation.reporting.summary import headline, plain_words, row_lines, withheld_line, without_leaks_line
from medical_vqa.evaluation.scoring import LeakedRows, find_metric
from medical_vqa.schema.prediction_card import AnsweringModel
from medical_vqa.schema.records import Example, GuardRecord, Prediction
from medical_vqa.schema.result_files import read_results, write_results

MODEL = AnsweringModel(name="compact", family="compact")
SCHEMA = files("medical_vqa.schema") / "json" / "results.schema.json"


@pytest.fixture
def results(examples, predictions, baseline, score):
    baselines = {"question-only": baseline}
    return score(examples, predictions, baselines=baselines, model=MODEL, resamples=200)


def test_a_score_travels_with_interval_n_groups_signature_and_baseline(results):
    em = results.metrics[0]
    assert (em.name, em.score.value, em.score.n, em.score.clusters) == ("em", 0.5, 6, 3)
    assert em.score.interval.low <= 0.5 <= em.score.interval.high
    assert em.signature.startswith("em|")
    assert em.baselines["question-only"].value == pytest.approx(2 / 6)
    assert em.differences["question-only"].value == pytest.approx(1 / 6)


def test_the_headline_holds_everything_a_number_needs(results):
    low, high = results.metrics[0].score.interval.low, results.metrics[0].score.interval.high
    assert headline(results).startswith(f"EM 50.0 [{100 * low:.1f}, {100 * high:.1f}] · F1 ")
    assert headline(results).endswith("· n=6 questions on 3 images · question-only baseline 33.3 · squad_v2")


def test_questions_without_a_prediction_are_excluded_and_named_not_scored_as_wrong(examples, predictions, score):
    results = score(examples, predictions[:-1])
    assert [(part.reason, part.n, part.ids) for part in results.excluded] == [("no prediction", 1, ("6",))]
    assert results.metrics[0].score.value == pytest.approx(3 / 5)
    assert "n=5 of 6 questions" in headline(results)


def test_unanswered_questions_extra_and_double_predictions_are_excluded_each_with_its_reason(
    examples, predictions, score
):
    unanswered = Example("7", "scan-1", "Anything else?", (), "scan-1")
    given = [*predictions, Prediction("7", "no"), Prediction("1", "liver"), Prediction("other", "lung")]
    results = score([*examples, unanswered], given)
    assert {part.reason: part.ids for part in results.excluded} == {
        "no accepted answer in the dataset": ("7",),
        "predicted more than once": ("1",),
        "prediction for a question that is not in this split": ("other",),
    }
    assert (results.counts.examples, results.counts.predictions, results.counts.scored) == (7, 9, 5)


def test_the_first_hundred_ids_are_named_and_all_are_counted(examples, predictions, score):
    given = predictions + [Prediction(f"extra-{n:03}", "lung") for n in range(150)]
    (extra,) = score(examples, given).excluded
    assert (extra.n, len(extra.ids), extra.ids[0]) == (150, 100, "extra-000")


def test_predictions_of_another_dataset_are_refused(examples, score):
    with pytest.raises(DataError, match="none of 1 predictions answers one of 6 questions"):
        score(examples, [Prediction("other", "lung")])


def test_examples_with_equal_ids_are_refused(examples, predictions, score):
    with pytest.raises(DataError, match="two examples have the id '1'"):
        score([*examples, examples[0]], predictions)


def test_a_baseline_that_lacks_a_question_is_refused(examples, predictions, baseline, score):
    with pytest.raises(DataError, match="the question-only baseline has no prediction for '6'"):
        score(examples, predictions, baselines={"question-only": baseline[:-1]})


def test_an_unknown_protocol_is_refused_with_the_nearest(examples, predictions, score):
    with pytest.raises(ConfigError, match="did you mean 'squad_v2'"):
        score(examples, predictions, published_protocols=["squad"])


def test_breakdowns_are_made_for_the_requested_facts(examples, predictions, score):
    results = score(examples, predictions, breakdowns=[("modality",), ("modality", "answer_type")])
    assert [breakdown.facts for breakdown in results.breakdowns] == [("modality",), ("modality", "answer_type")]


def test_details_hold_sensitivity_and_specificity_per_finding(score, tmp_path):
    asked = [(f"{n}", "yes" if n < 4 else "no") for n in range(6)]
    rows = [Example(id_, id_, "Is there a pneumothorax?", (reference,), id_) for id_, reference in asked]
    scored = score(rows, [Prediction(id_, "yes") for id_, _ in asked])
    write_results(tmp_path / "results.json", scored)
    (finding,) = read_results(tmp_path / "results.json").findings
    assert (finding.name, finding.sensitivity.value, finding.specificity.value) == ("pneumothorax", 1.0, 0.0)
    assert (finding.sensitivity.n, finding.specificity.n, finding.small) == (4, 2, True)
    assert score(rows, [Prediction("0", "yes")], details=False).findings == ()


def test_details_are_computed_only_on_request(examples, predictions, score):
    headline_only = score(examples, predictions, details=False)
    detailed = score(examples, predictions)
    assert headline_only.metrics == detailed.metrics
    assert (headline_only.additional_metrics, headline_only.calibration, headline_only.consistency) == ((), None, None)
    assert detailed.calibration.n == 5
    assert {metric.name for metric in detailed.additional_metrics} == {
        "closed", "open_recall", "laterality", "rouge_l", "bleu1", "bleu4", "synonyms", "sensitivity", "specificity",
    }  # fmt: skip


def test_results_read_back_equal_and_satisfy_the_published_schema(results, tmp_path):
    path = tmp_path / "results.json"
    write_results(path, results)
    assert read_results(path) == results
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.validate(json.loads(path.read_text(encoding="utf-8")), schema)


def test_equal_input_gives_an_equal_file(results, examples, predictions, baseline, score):
    baselines = {"question-only": baseline}
    again = score(examples, predictions, baselines=baselines, model=MODEL, resamples=200)
    assert again.model_dump_json() == results.model_dump_json()


@pytest.mark.parametrize(
    ("text", "problem"),
    [("{}", "no format"), ("not json", "not JSON"), ('{"format": 2}', "format 2"), ('{"format": 1}', "'dataset'")],
)
def test_a_file_that_is_not_a_results_json_is_refused(text, problem, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"{path}: .*{problem}.*; score the predictions again"):
        read_results(path)


def test_missing_results_are_refused_with_the_command_that_writes_them(tmp_path):
    with pytest.raises(DataError, match=r"no results at .*; write them with `medical-vqa score`"):
        read_results(tmp_path / "results.json")


def test_scoring_imports_no_torch():
    code = "import sys, medical_vqa.evaluation.scoring; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


@pytest.mark.parametrize(
    "answer",
    ["Lung\u200b", "\uff2cung", "Lung\u200d", "\u202eLung\u202c", "L\u00adung"],
    ids=["zero-width", "full-width", "joiner", "right-to-left mark", "soft hyphen"],
)
def test_an_answer_that_only_looks_like_the_reference_is_scored_as_the_rule_says_and_named(
    examples, predictions, score, answer
):
    given = [replace(predictions[0], answer=answer), *predictions[1:]]
    found = score(examples, given)
    assert found.metrics[0].score.value == pytest.approx(2 / 6)
    assert [(part.n, part.ids) for part in found.warnings] == [(1, ("1",))]
    assert "looks like the reference" in row_lines(found.warnings)[0]


def test_cyrillic_letters_are_named_and_another_word_or_another_script_is_not(examples, predictions, score):
    answers = ["\u0410orta", "肺", "רֵאָה", "Aorta"]
    rows = [replace(examples[n], answers=(gold,)) for n, gold in enumerate(["Aorta", "肝", "כבד", "Lung"])]
    given = [replace(predictions[n], answer=answer) for n, answer in enumerate(answers)]
    assert [part.ids for part in score(rows, given).warnings] == [("1",)]


def test_chinese_and_right_to_left_answers_are_right_when_they_are_equal(examples, predictions, score):
    rows = [replace(examples[0], answers=("左肺",)), replace(examples[1], answers=("רֵאָה",))]
    given = [replace(predictions[0], answer="左肺"), replace(predictions[1], answer="רֵאָה")]
    found = score(rows, given)
    assert (found.metrics[0].score.value, found.warnings) == (1.0, ())


def test_empty_answers_are_scored_as_wrong_and_counted(examples, predictions, score):
    given = [replace(predictions[0], answer=""), replace(predictions[1], answer=" \n"), *predictions[2:]]
    found = score(examples, given)
    assert found.counts.scored == 6
    assert row_lines(found.warnings) == ["2: empty answer, scored as wrong (1, 2)"]


def test_leaked_rows_are_left_out_next_to_the_full_score_and_whether_the_model_was_trained_on_them_is_stated(
    examples, predictions, baseline, score
):
    def without(trained_on):
        leaks = LeakedRows(frozenset({"1", "2"}), frozenset({"3"}), near_duplicates_checked=True, trained_on=trained_on)
        return score(examples, predictions, baselines={"question-only": baseline}, leaks=leaks)

    results = without(frozenset({"1"}))
    clean = results.without_leaks
    assert (clean.exact_duplicates, clean.near_duplicates, clean.trained_on) == (2, 1, 1)
    assert (clean.scores["em"].n, results.metrics[0].score.n) == (3, 6)
    line = without_leaks_line(results)
    assert "n=3 · without 2 questions whose image is in a training part, 1 more whose image has a near-dup" in line
    assert line.endswith("by its card the model was trained on the image of 1")
    assert without_leaks_line(without(frozenset())).endswith("the image of 0")
    assert "it is unknown which" in without_leaks_line(without(None))
    assert without_leaks_line(score(examples, predictions)) == ""


def test_a_score_on_images_that_the_model_has_learned_says_so_first(examples, predictions, score):
    nothing: frozenset[str] = frozenset()
    leaks = LeakedRows(nothing, nothing, near_duplicates_checked=True, trained_on=frozenset({"1", "2"}))
    results = score(examples, predictions, leaks=leaks)
    assert without_leaks_line(results).endswith("n=4 · by its card the model was trained on the image of 2")
    (sentence,) = [words for words in plain_words(results) if "By its card" in words]
    assert "trained on the images of 2 of these 6 questions: about those the score is what it remembers" in sentence
    assert "On the 4 questions about other images it is" in sentence
    unchecked = LeakedRows(nothing, nothing, near_duplicates_checked=False, trained_on=frozenset({"1"}))
    line = without_leaks_line(score(examples, predictions, leaks=unchecked))
    assert "n=5 · near-duplicates not checked; by its card" in line


def test_images_of_a_training_part_that_the_model_was_not_trained_on_are_not_called_seen(examples, predictions, score):
    def sentences(near=frozenset(), trained_on=frozenset()):
        leaks = LeakedRows(frozenset({"1", "2"}), near, near_duplicates_checked=True, trained_on=trained_on)
        return " ".join(plain_words(score(examples, predictions, leaks=leaks)))

    assert (
        "The images of 2 of these 6 questions are also in a training part of the dataset, but by its card"
        in sentences()
    )
    assert "On other images sampled like these" in sentences() and "may have seen" not in sentences()
    for learned in (sentences(near=frozenset({"3"})), sentences(trained_on=None)):
        assert "may have seen" in learned and "sampled like these" not in learned


def test_rows_of_a_patient_in_training_are_left_out_too(examples, predictions, score):
    nothing: frozenset[str] = frozenset()
    leaks = LeakedRows(nothing, nothing, near_duplicates_checked=True, same_group=frozenset({"1", "2"}))
    results = score(examples, predictions, leaks=leaks)
    assert (results.without_leaks.same_group, results.without_leaks.scores["em"].n) == (2, 4)
    line = without_leaks_line(results)
    assert "without 2 questions of whose patient or study another image is in a training part;" in line
    leaks = LeakedRows(nothing, frozenset({"3"}), near_duplicates_checked=True)
    line = without_leaks_line(score(examples, predictions, leaks=leaks))
    assert "without 1 question whose image has a near-duplicate in a training part;" in line


@pytest.mark.parametrize(("name", "label"), [("em", "EM"), ("laterality", "wrong side"), ("helm.bleu4", "BLEU-4")])
def test_a_metric_is_found_by_name(name, label):
    assert find_metric(name, Context()).label == label


@pytest.mark.parametrize(
    ("name", "words"), [("emm", "did you mean 'em'"), ("helm.nope", "known: exact"), ("hel.f1", "unknown protocol")]
)
def test_an_unknown_metric_is_refused_with_the_known(name, words):
    with pytest.raises(ConfigError, match=words):
        find_metric(name, Context())


@pytest.mark.slow
def test_a_hundred_thousand_predictions_are_joined_and_scored(score):
    n = 100_000  # a million take as long as ten of these: benchmarks/evaluation.py
    rows = [Example(str(i), f"scan-{i // 10}", "What?", ("lung",), f"scan-{i // 10}") for i in range(n)]
    given = [Prediction(str(i), "lung" if i % 4 else "liver") for i in range(n - 1)]
    found = score(rows, given)
    assert (found.counts.scored, found.excluded[0].n) == (n - 1, 1)
    assert found.metrics[0].score.value == pytest.approx(0.75, abs=1e-4)


def test_answers_that_were_cut_off_are_named(examples, predictions, score):
    cut = [replace(one, cut_off=one.id in ("2", "5")) for one in predictions]
    (warning,) = score(examples, cut).warnings
    assert (warning.n, warning.ids) == (2, ("2", "5"))
    assert warning.reason.startswith("answer that ended at the limit of tokens (max_tokens)")


def guarded(predictions, withheld):
    """The predictions, each with a decision of the guards; `withheld` are id -> reason code."""
    return [replace(one, guards=GuardRecord(one.id in withheld, withheld.get(one.id))) for one in predictions]


def test_what_the_guards_withhold_is_scored_apart_and_changes_no_other_score(examples, predictions, score):
    codes = {"3": "contradiction", "5": "low_confidence", "6": "low_confidence", "1": "contradiction"}
    plain, results = score(examples, predictions), score(examples, guarded(predictions, codes))
    assert results.model_copy(update={"withheld": None}) == plain
    guards = results.withheld
    assert (guards.checked, guards.withheld) == (6, 4)
    assert dict(guards.reasons) == {"contradiction": 2, "low_confidence": 2}
    assert (guards.visible["em"].value, guards.visible["em"].n, guards.visible["em"].clusters) == (1.0, 2, 2)
    assert (guards.hidden["em"].value, guards.hidden["em"].n) == (0.25, 4)
    assert plain.withheld is None
    assert withheld_line(plain) == ""
    assert withheld_line(results).startswith(
        "guards withhold 4 of 6 answers (contradiction 2, low confidence 2) · EM 100.0 ["
    )
    assert " on the 2 shown · EM 25.0 " in withheld_line(results)
    sentence = next(line for line in plain_words(results) if "guards" in line)
    assert (
        "withhold 4 of 6 (contradiction 2, low confidence 2); of the 2 that are shown, 100 in 100 are right" in sentence
    )
    assert sentence.endswith("of the withheld ones 25 in 100.")


@pytest.mark.parametrize(
    ("withheld", "line", "sentence"),
    [
        ((), "guards withhold 0 of 6 answers · EM 50.0 [", "The guards withhold none of 6 answers."),
        ("123456", "guards withhold 6 of 6 answers (quality 6) · EM – [no interval]", "; nothing is shown, of the"),
    ],
)
def test_guards_that_withhold_nothing_or_everything(examples, predictions, score, withheld, line, sentence):
    results = score(examples, guarded(predictions, dict.fromkeys(withheld, "quality")))
    assert withheld_line(results).startswith(line)
    assert any(sentence in words for words in plain_words(results))


def test_only_scored_answers_count_as_withheld(examples, predictions, score):
    given = guarded(
        [*predictions, Prediction("other", "lung"), Prediction("1", "lung")], {"other": "quality", "1": "quality"}
    )
    assert (score(examples, given).withheld.checked, score(examples, given).withheld.withheld) == (5, 0)

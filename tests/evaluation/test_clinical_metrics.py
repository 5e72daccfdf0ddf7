"""Synonyms, sensitivity and specificity, numbers, and the soft accuracy of several annotators."""

import pytest

from medical_vqa.evaluation.metrics.clinical import sensitivity, specificity, synonym_match
from medical_vqa.evaluation.metrics.numeric import numeric_match
from medical_vqa.evaluation.protocols.soft_accuracy import soft_accuracy
from medical_vqa.schema.records import Example, Prediction


def counts(metric, predicted, *answers):
    return metric.counts(Prediction("1", predicted), Example("1", "scan", "What is it?", answers, "scan"))


@pytest.mark.parametrize(
    ("predicted", "gold"),
    [
        ("CXR", "Chest X-ray"),
        ("magnetic resonance imaging", "MRI"),
        ("enlarged heart", "Cardiomegaly"),
        ("胸片", "胸部X光"),
    ],
)
def test_the_same_finding_in_other_words_is_right(predicted, gold):
    assert counts(synonym_match(), predicted, gold) == (1.0, 1.0)


def test_a_related_finding_is_not_a_synonym():
    assert counts(synonym_match(), "Mass", "Tumor") == (0.0, 1.0)
    assert counts(synonym_match(), "left lung", "right lung") == (0.0, 1.0)


@pytest.mark.parametrize(
    ("predicted", "gold", "sensitive", "specific"),
    [
        ("Yes, there is.", "Yes", (1.0, 1.0), None),
        ("No", "yes", (0.0, 1.0), None),
        ("no", "No", None, (1.0, 1.0)),
        ("maybe", "No", None, (0.0, 1.0)),
        ("没有", "不是", None, (1.0, 1.0)),
        ("有", "是", (1.0, 1.0), None),
        ("yes", "No evidence of a stone", None, None),
        ("Lung", "Lung", None, None),
    ],
)
def test_yes_counts_for_sensitivity_and_no_for_specificity(predicted, gold, sensitive, specific):
    assert counts(sensitivity(), predicted, gold) == sensitive
    assert counts(specificity(), predicted, gold) == specific


@pytest.mark.parametrize(
    ("predicted", "gold", "expected"),
    [
        ("two", "2", 1.0),
        ("There are 3 lesions", "3", 1.0),
        ("4", "3", 0.0),
        ("2.1 cm", "21 mm", 1.0),
        ("about 20 mm", "2.05 cm", 1.0),
        ("2.1 mm", "2.1 cm", 0.0),
        ("1,200 HU", "1200", 1.0),
        ("several", "2", 0.0),
        ("100", "96 %", 1.0),
        ("T2", "2", 0.0),
    ],
)
def test_numbers_are_compared_with_their_unit_and_a_tolerance(predicted, gold, expected):
    assert counts(numeric_match(), predicted, gold) == (expected, 1.0)


@pytest.mark.parametrize("gold", ["-5 HU", "\u22125 HU", "(-5)", "- -5"])
def test_a_negative_reference_is_negative(gold):
    assert counts(numeric_match(), "-5", gold) == (1.0, 1.0)
    assert counts(numeric_match(), "\u22125 HU", gold) == (1.0, 1.0)
    assert counts(numeric_match(), "5 HU", gold) == (0.0, 1.0)


def test_a_dash_before_a_number_is_no_sign():
    assert counts(numeric_match(), "5", "- 5") == (1.0, 1.0)


def test_an_answer_that_is_no_number_is_not_scored_as_one():
    assert counts(numeric_match(), "2", "T2 weighted") is None
    assert counts(numeric_match(), "2", "2 lungs and a heart") is None


def test_soft_accuracy_leaves_out_each_annotator_in_turn():
    answers = ["yes"] * 3 + ["no"] * 7
    # Three said yes: leaving out one of them leaves 2, leaving out another leaves 3: (3 * 2/3 + 7 * 1) / 10.
    assert counts(soft_accuracy(), "Yes", *answers) == (pytest.approx(0.9), 1.0)
    assert counts(soft_accuracy(), "no", *answers) == (1.0, 1.0)
    assert counts(soft_accuracy(), "maybe", *answers) == (0.0, 1.0)


def test_soft_accuracy_compares_equal_answers_as_they_are():
    assert counts(soft_accuracy(), "X-Ray.", *["x-ray"] * 10) == (0.0, 1.0)
    assert counts(soft_accuracy(), "yes", "yes", "no") is None

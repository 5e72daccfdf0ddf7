import math

from medical_vqa.evaluation.answers import Answered, Confusion, confidence_bins, confusions, judge
from medical_vqa.evaluation.metrics.exact_match import exact_match
from medical_vqa.schema.records import Example, Prediction


def answered(gold, said, confidence=None):
    example, prediction = Example("1", "scan", "What?", (gold,), "scan"), Prediction("1", said, said, confidence)
    return Answered(example, prediction, right=gold.lower() == said.lower())


def test_each_scored_answer_gets_a_verdict(examples, predictions):
    verdicts = judge(exact_match(), examples, predictions)
    assert [one.right for one in verdicts] == [True, True, False, True, False, False]


def test_questions_without_a_single_prediction_get_no_verdict(examples, predictions):
    given = [*predictions[1:], predictions[1]]
    assert [one.example.id for one in judge(exact_match(), examples, given)] == ["3", "4", "5", "6"]


def test_confusions_are_counted_after_normalisation_and_the_commonest_comes_first():
    pairs = [answered("Lung", "liver"), answered("No", "yes"), answered("no.", "Yes"), answered("Yes", "yes")]
    assert confusions(pairs, most=5) == [Confusion("No", "yes", 2), Confusion("Lung", "liver", 1)]
    assert confusions(pairs, most=1) == [Confusion("No", "yes", 2)]


def test_confidences_are_binned_with_both_ends_inside():
    bins = confidence_bins([answered("a b", "a b", 1.0), answered("b", "c", 0.05), answered("b", "b", None)])
    assert (bins[0].right, bins[0].wrong) == (0, 1)
    assert (bins[9].right, bins[9].wrong) == (1, 0)
    assert sum(one.right + one.wrong for one in bins) == 2


def test_without_any_finite_confidence_there_are_no_bins():
    assert confidence_bins([answered("b", "b", None), answered("b", "b", math.nan)]) == []

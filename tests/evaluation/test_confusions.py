from medical_vqa.evaluation.statistics.confusions import Confusion, confusion_table, confusions
from medical_vqa.evaluation.statistics.correctness import JudgedAnswer
from medical_vqa.schema.records import Example, Prediction


def judged(gold, answer):
    example, prediction = Example("1", "scan", "What?", (gold,), "scan"), Prediction("1", answer, answer)
    return JudgedAnswer(example, prediction, correct=gold.lower() == answer.lower())


def test_confusions_are_counted_after_normalization_and_the_most_frequent_comes_first():
    answers = [judged("Lung", "liver"), judged("No", "yes"), judged("no.", "Yes"), judged("Yes", "yes")]
    assert confusions(answers, limit=5) == [Confusion("No", "yes", 2), Confusion("Lung", "liver", 1)]
    assert confusions(answers, limit=1) == [Confusion("No", "yes", 2)]


def test_the_table_crosses_the_most_frequent_references_with_their_predictions_and_the_rest():
    answers = [judged("No", "yes"), judged("no.", "No"), judged("Yes", "yes"), judged("Yes", "lung"), judged("CT", "x")]
    table = confusion_table(answers, limit=2)
    assert table.answers == ("No", "Yes")
    assert table.counts == ((1, 1, 0), (0, 1, 1))
    assert confusion_table([judged("No", "yes")], limit=2) is None

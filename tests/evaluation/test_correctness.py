from medical_vqa.evaluation.joining import join
from medical_vqa.evaluation.metrics.exact_match import exact_match
from medical_vqa.evaluation.statistics.correctness import judge


def test_each_scored_answer_is_judged(examples, predictions):
    judged = judge(exact_match(), join(examples, predictions))
    assert [answer.correct for answer in judged] == [True, True, False, True, False, False]


def test_questions_without_exactly_one_prediction_are_not_judged(examples, predictions):
    answered = join(examples, [*predictions[1:], predictions[1]])
    assert [answer.example.id for answer in judge(exact_match(), answered)] == ["3", "4", "5", "6"]

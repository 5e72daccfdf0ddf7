import pytest

from medical_vqa.errors import DataError
from medical_vqa.evaluation.metrics.exact_match import exact_match
from medical_vqa.evaluation.metrics.token_overlap import token_f1
from medical_vqa.evaluation.statistics.breakdown import break_down, check_facts, default_facts, is_small
from medical_vqa.evaluation.statistics.tally import tally
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.schema.results import Bootstrap

BOOTSTRAP = Bootstrap(resamples=50)


def tallies(examples, predictions):
    given = {prediction.id: prediction for prediction in predictions}
    return [tally(metric, examples, given) for metric in (exact_match(), token_f1())]


def test_each_value_of_a_fact_gets_its_scores_with_the_baseline(examples, predictions, baseline):
    breakdown = break_down(
        ("modality",), tallies(examples, predictions), {"question-only": tallies(examples, baseline)}, BOOTSTRAP
    )
    mri, ct = breakdown.rows
    assert (mri.levels, mri.n, mri.clusters, mri.scores["em"].value) == (("MRI",), 4, 2, 0.25)
    assert (ct.levels, ct.n, ct.clusters, ct.scores["em"].value) == (("CT",), 2, 1, 1.0)
    assert mri.scores["f1"].value == pytest.approx((0 + 1 + 0.5 + 0) / 4)
    assert mri.baselines == {"question-only": {"em": 0.0, "f1": pytest.approx((0 + 0 + 2 / 3 + 0) / 4)}}


def test_two_facts_can_be_crossed(examples, predictions):
    breakdown = break_down(("modality", "answer_type"), tallies(examples, predictions), {}, BOOTSTRAP)
    assert [(row.levels, row.n) for row in breakdown.rows] == [
        (("MRI", "CLOSED"), 2),
        (("MRI", "OPEN"), 2),
        (("CT", "CLOSED"), 1),
        (("CT", "OPEN"), 1),
    ]


def test_an_example_without_the_fact_is_shown_as_not_stated():
    bare = [Example("1", "scan", "What?", ("lung",), "scan")]
    breakdown = break_down(("organ",), tallies(bare, [Prediction("1", "lung")]), {}, BOOTSTRAP)
    assert [row.levels for row in breakdown.rows] == [("not stated",)]


@pytest.mark.parametrize(("n", "clusters", "small"), [(19, 19, True), (20, 4, True), (20, 5, False)])
def test_a_group_is_small_below_twenty_examples_or_five_groups(n, clusters, small):
    assert is_small(n, clusters) is small


def test_facts_with_one_value_are_not_broken_down_by_default(examples):
    same = [Example(e.id, e.image_id, e.question, e.answers, e.group, {**e.facts, "language": "en"}) for e in examples]
    assert default_facts(same) == [("answer_type",), ("modality",)]


def test_an_unknown_fact_is_refused_with_the_known_ones(examples):
    with pytest.raises(DataError, match="no example has a fact 'organ'; choose among answer_type, modality"):
        check_facts([("modality",), ("answer_type", "organ")], examples)

"""A metric by facts, as a table for a terminal."""

import pytest

from medical_vqa.errors import DataError
from medical_vqa.evaluation.joining import join
from medical_vqa.evaluation.metrics.exact_match import exact_match
from medical_vqa.evaluation.metrics.laterality import laterality_errors
from medical_vqa.evaluation.metrics.lists import list_match
from medical_vqa.evaluation.reporting.breakdown_table import breakdown_tables
from medical_vqa.schema.results import Bootstrap

BOOTSTRAP = Bootstrap(resamples=50)


def test_one_fact_and_two_crossed_each_make_a_table(examples, predictions, baseline):
    facts = [("modality",), ("modality", "answer_type")]
    modality, crossed = breakdown_tables(
        exact_match(), facts, join(examples, predictions), {"question-only": baseline}, BOOTSTRAP
    )
    head, first, _ = modality.splitlines()
    assert head.split() == ["EM", "by", "Modality", "baseline", "n", "groups"]
    assert first.split()[:2] == ["MRI", "25.0"]
    assert crossed.splitlines()[0].startswith("EM by Modality and Answer type")
    assert "CT / CLOSED" in crossed


def test_small_groups_are_marked_and_a_group_of_one_has_no_interval(examples, predictions):
    (text,) = breakdown_tables(laterality_errors(), [("modality",)], join(examples, predictions), {}, BOOTSTRAP)
    assert text.splitlines()[1].split() == [
        "MRI", "100.0", "\N{EN DASH}", "1", "1", "too", "few", "to", "conclude", "from",
    ]  # fmt: skip


def test_a_metric_that_applies_to_nothing_and_an_unknown_fact_are_refused(examples, predictions):
    with pytest.raises(DataError, match="applies to none"):
        breakdown_tables(list_match(), [("modality",)], join(examples, predictions), {}, BOOTSTRAP)
    with pytest.raises(DataError, match="no example has a fact 'scanner'"):
        breakdown_tables(exact_match(), [("scanner",)], join(examples, predictions), {}, BOOTSTRAP)

from medical_vqa.evaluation.reporting.published import caveat, published
from medical_vqa.evaluation.reporting.wording import bounds, count, percent, title
from medical_vqa.schema.results import Interval


def test_shares_are_written_as_per_cent_with_one_decimal():
    assert (percent(0.8234), percent(0.05, signed=True), percent(None)) == ("82.3", "+5.0", "\N{EN DASH}")


def test_an_interval_is_written_in_brackets_or_said_to_be_missing():
    assert bounds(Interval(low=0.801, high=0.844, level=0.95, method="bootstrap")) == "[80.1, 84.4]"
    assert (
        bounds(Interval(low=None, high=None, level=0.95, method="bootstrap", reason="fewer than two groups"))
        == "[no interval]"
    )


def test_counts_agree_with_their_noun():
    assert (count(1, "image"), count(1053, "question")) == ("1 image", "1,053 questions")


def test_keys_become_titles():
    assert (title("answer_type"), title("question-only"), title("")) == ("Answer type", "Question-only", "")


def test_published_rows_are_those_of_the_dataset_and_a_sample_has_none():
    assert {row.system for row in published("slake")} >= {"MEVF+BAN", "M2I2", "MUMC"}
    assert published("slake-mini") == []


def test_the_caveat_says_when_the_splits_differ():
    assert "This model was scored on validation" in caveat("validation")
    assert "All scores are on the test split" in caveat("test")

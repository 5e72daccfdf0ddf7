"""Answers about one image that cannot both be true."""

import pytest

from medical_vqa.evaluation.metrics.consistency import claims, consistency
from medical_vqa.schema.records import Example


def row(id_, question, gold, **facts):
    return Example(id_, "scan", question, (gold,), "scan", facts)


def checked(*answers):
    """The consistency of (question, reference, answer), all about one image."""
    rows = [row(str(n), question, gold) for n, (question, gold, _) in enumerate(answers)]
    return consistency(rows, {str(n): answer for n, (*_, answer) in enumerate(answers)})


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        (("What diseases are included in the picture?", "Lung Cancer"), ("Is the lung healthy?", "Yes"), True),
        (("What diseases are included in the picture?", "Lung Cancer"), ("Is the lung healthy?", "No"), False),
        (
            ("What diseases are included in the picture?", "None"),
            ("Are there abnormalities in this image?", "Yes"),
            True,
        ),
        (("Does the lung look abnormal?", "Yes"), ("Is the lung healthy?", "Yes"), True),
        (("Is this image normal?", "Yes"), ("Is the lung healthy?", "No"), True),
        (("Does the picture contain liver?", "No"), ("Where is the liver?", "Left"), True),
        (("Does the picture contain liver?", "No"), ("Where is the liver?", "Not seen"), False),
        (("What modality is used to take this image?", "CT"), ("Is this an MRI scan?", "Yes"), True),
        (("What modality is used to take this image?", "X-Ray"), ("Is this image taken via X-Ray?", "Yes"), False),
    ],
)
def test_two_answers(first, second, clash):
    about = checked((*first, first[1]), (*second, second[1]))
    assert (about.comparable, about.contradictory) == (1, int(clash))


def test_a_contradiction_is_shown_where_the_references_have_none():
    about = checked(("Is the lung healthy?", "No", "Yes"), ("Does the lung look abnormal?", "Yes", "Yes"))
    assert (about.contradictory, about.reference_contradictory) == (1, 0)
    assert about.contradictions[0].first == "Is the lung healthy? Yes"
    assert about.contradictions[0].ids == ("0", "1")


def test_what_no_pattern_fits_claims_nothing():
    assert claims("How many kidneys?", "2") == frozenset()
    assert claims("图中有什么?", "肺") == frozenset()
    assert claims("", "") == frozenset()


def test_paraphrases_are_those_that_the_dataset_calls_the_same():
    rows = [
        row("1", "Is there a mass?", "Yes", pair="a", relation="strict agreement"),
        row("2", "Can a mass be seen?", "Yes", pair="a", relation="strict agreement"),
        row("3", "Is it large?", "Yes", pair="b", relation="not similar"),
        row("4", "Is it a mass?", "Yes", pair="b", relation="not similar"),
    ]
    about = consistency(rows, {"1": "yes", "2": "No", "3": "yes", "4": "no"})
    assert (about.paraphrased, about.paraphrases_disagreeing) == (1, 1)


def test_rows_without_an_answer_are_left_out():
    assert consistency([row("1", "Is the lung healthy?", "Yes")], {}).comparable == 0


def test_paraphrases_with_two_answers_are_shown_unless_the_references_differ_too():
    linked = {"relation": "strict agreement"}
    rows = [
        row("1", "Is there a mass?", "Yes", pair="a", **linked),
        row("2", "Can a mass be seen?", "Yes", pair="a", **linked),
        row("3", "Is it large?", "Yes", pair="b", **linked),
        row("4", "Would you call it large?", "No", pair="b", **linked),
    ]
    about = consistency(rows, {"1": "yes", "2": "no", "3": "yes", "4": "no"})
    assert (about.paraphrased, about.paraphrases_disagreeing, about.reference_paraphrases_disagreeing) == (2, 2, 1)
    assert [pair.ids for pair in about.paraphrase_disagreements] == [("1", "2")]
    assert about.paraphrase_disagreements[0].second == "Can a mass be seen? no"


def test_pairs_are_not_compared_with_all_the_others(monkeypatch):
    linked = {"relation": "strict agreement"}
    rows = [
        row(f"{pair}-{n}", f"Is it large ({pair}, {n})?", answer, pair=str(pair), **linked)
        for pair in range(40)
        for n, answer in enumerate(("Yes", "No"))
    ]
    compared = []
    monkeypatch.setattr(Example, "__eq__", lambda one, other: compared.append(one) or one is other)
    about = consistency(rows, {example.id: example.answers[0] for example in rows})
    assert (about.reference_paraphrases_disagreeing, about.paraphrase_disagreements) == (40, ())
    assert len(compared) <= 2 * 40

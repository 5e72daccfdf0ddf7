"""Sensitivity and specificity per finding."""

from __future__ import annotations

from medical_vqa.evaluation.statistics.findings import finding_scores
from medical_vqa.schema.records import Example, Prediction


def rows(*questions: tuple[str, str, str]) -> tuple[list[Example], dict[str, Prediction]]:
    examples = [
        Example(str(number), f"image {number // 2}", question, (reference,), f"image {number // 2}")
        for number, (question, reference, _) in enumerate(questions)
    ]
    return examples, {str(number): Prediction(str(number), answer) for number, (*_, answer) in enumerate(questions)}


def test_findings_are_counted_where_they_are_there_and_where_they_are_not() -> None:
    is_there = "Is there a pleural effusion?"
    examples, predictions = rows(
        (is_there, "yes", "yes"),
        (is_there, "yes", "Yes, on the left."),
        (is_there, "Yes.", "no"),
        (is_there, "yes", "a mass"),
        (is_there, "no", "no"),
        (is_there, "no", "yes"),
        ("Where is the effusion?", "left", "left"),
    )
    (effusion,) = finding_scores(examples, predictions)
    assert effusion.name == "pleural effusion"
    assert (effusion.sensitivity.value, effusion.sensitivity.n) == (0.5, 4)
    assert (effusion.specificity.value, effusion.specificity.n) == (0.5, 2)
    assert effusion.sensitivity.clusters == 2
    assert effusion.small


def test_a_question_for_the_opposite_is_turned_round() -> None:
    examples, predictions = rows(
        *[("Is the lung healthy?", "no", "no")] * 3,  # abnormal, and recognized
        *[("Does the lung look abnormal?", "yes", "no")] * 1,  # abnormal, and missed
        *[("Is the lung normal?", "yes", "yes")] * 2,
    )
    (lung,) = finding_scores(examples, predictions)
    assert lung.name == "lung: state"
    assert (lung.sensitivity.value, lung.sensitivity.n) == (0.75, 4)
    assert (lung.specificity.value, lung.specificity.n) == (1.0, 2)


def test_few_questions_and_rows_without_a_prediction_or_reference_make_no_row() -> None:
    examples, predictions = rows(*[("Is there a fracture?", "no", "no")] * 5)
    assert len(finding_scores(examples, predictions)) == 1
    assert finding_scores(examples[:4], predictions) == []
    assert finding_scores(examples, {"0": predictions["0"]}) == []
    assert finding_scores([Example(e.id, "i", e.question, (), "g") for e in examples], predictions) == []

from medical_vqa.evaluation.joining import join
from medical_vqa.evaluation.reporting.summary import limits, plain_words, row_lines
from medical_vqa.evaluation.scoring import ScoringSettings, score_answers
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.schema.results import Bootstrap, DatasetRef


def scored(answers, baseline, *, split="test", images=60):
    """Sixty questions on as many images, each to be answered with yes."""
    examples = [Example(str(n), f"scan-{n % images}", "Ill?", ("yes",), f"scan-{n % images}") for n in range(60)]
    return score_answers(
        join(examples, [Prediction(str(n), answer) for n, answer in enumerate(answers)]),
        baselines={"question-only": [Prediction(str(n), answer) for n, answer in enumerate(baseline)]},
        dataset=DatasetRef(name="slake", split=split),
        settings=ScoringSettings(bootstrap=Bootstrap(resamples=200)),
    )


def test_the_summary_states_accuracy_certainty_and_the_gain_over_the_baseline():
    often, sure, baseline = plain_words(scored(["yes"] * 48 + ["no"] * 12, ["no"] * 50 + ["yes"] * 10))
    assert often == "The model answered 48 of 60 questions exactly as the reference does: 80 in 100."
    assert sure.startswith("On other images sampled like these 60, expect between 7")
    assert baseline.startswith(
        "Without any image, the question-only baseline reaches 17 in 100. The model is clearly above"
    )


def test_a_model_below_its_baseline_is_called_worse():
    words = plain_words(scored(["no"] * 48 + ["yes"] * 12, ["yes"] * 50 + ["no"] * 10))
    assert "is worse than this baseline without images" in words[-1]


def test_a_difference_that_the_data_do_not_show_is_called_unknown():
    words = plain_words(scored(["yes"] * 31 + ["no"] * 29, ["no"] * 30 + ["yes"] * 30))
    assert "do not show whether using the image helps" in words[-1]


def test_a_missing_interval_is_given_with_its_reason():
    _, sure, baseline = plain_words(scored(["yes"] * 30 + ["no"] * 30, ["no"] * 60, images=1))
    assert sure == "No interval can be given: fewer than two groups."
    assert baseline.endswith("The difference of the model to it is +50.0 points [no interval].")


def test_the_weakest_group_that_is_large_enough_is_named(score):
    modalities = ["CT"] * 25 + ["MRI"] * 25 + ["X-Ray"] * 3
    examples = [
        Example(str(n), f"scan-{n}", "Ill?", ("yes",), f"scan-{n}", {"modality": k}) for n, k in enumerate(modalities)
    ]
    given = [Prediction(str(n), "yes" if k == "CT" or n % 2 else "no") for n, k in enumerate(modalities)]
    words = plain_words(score(examples, given, breakdowns=[("modality",)], resamples=50))
    assert words[-1].startswith("Among the groups large enough to judge it is weakest on modality MRI: EM 52.0 [")


def test_scores_on_the_validation_and_training_splits_are_qualified():
    answers = ["yes"] * 30 + ["no"] * 30
    assert any("a little too good" in line for line in limits(scored(answers, answers, split="validation")))
    assert any("nothing about new ones" in line for line in limits(scored(answers, answers, split="train")))


def test_what_was_not_scored_is_listed_with_its_first_ids():
    lines = row_lines(scored(["yes"] * 30 + ["no"] * 26, ["yes"] * 60).excluded)
    assert lines == ["4: no prediction (56, 57, 58, …)"]

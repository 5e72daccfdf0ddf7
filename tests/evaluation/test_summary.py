from medical_vqa.evaluation.reporting.summary import limits, not_scored, plain_words
from medical_vqa.evaluation.results import DatasetRef, evaluate
from medical_vqa.schema.records import Example, Prediction


def scored(answers, baseline, *, split="test", images=60):
    """Sixty questions on as many images, each to be answered with yes."""
    examples = [Example(str(n), f"scan-{n % images}", "Ill?", ("yes",), f"scan-{n % images}") for n in range(60)]
    return evaluate(
        examples,
        [Prediction(str(n), answer) for n, answer in enumerate(answers)],
        baselines={"question-only": [Prediction(str(n), answer) for n, answer in enumerate(baseline)]},
        dataset=DatasetRef(name="slake", split=split),
        resamples=200,
    )


def test_the_summary_says_how_often_how_sure_and_what_looking_is_worth():
    often, sure, baseline = plain_words(scored(["yes"] * 48 + ["no"] * 12, ["no"] * 50 + ["yes"] * 10))
    assert often == "The model answered 48 of 60 questions exactly as the reference does: 80 in 100."
    assert sure.startswith("On other images drawn like these 60, between 7")
    assert baseline.startswith(
        "Without any image, the question-only baseline reaches 17 in 100. The model, which looks at"
    )


def test_a_model_below_its_baseline_is_said_to_be_below():
    words = plain_words(scored(["no"] * 48 + ["yes"] * 12, ["yes"] * 50 + ["no"] * 10))
    assert "does worse than not looking at all" in words[-1]


def test_a_difference_that_the_data_do_not_show_is_said_to_be_open():
    words = plain_words(scored(["yes"] * 31 + ["no"] * 29, ["no"] * 30 + ["yes"] * 30))
    assert "cannot tell whether looking at the image helps" in words[-1]


def test_a_missing_interval_is_given_with_its_reason():
    _, sure, baseline = plain_words(scored(["yes"] * 30 + ["no"] * 30, ["no"] * 60, images=1))
    assert sure == "No interval can be given: fewer than two groups."
    assert baseline.endswith("The model is +50.0 points [no interval] away from it.")


def test_the_weakest_group_that_is_large_enough_is_named():
    kinds = ["CT"] * 25 + ["MRI"] * 25 + ["X-Ray"] * 3
    examples = [
        Example(str(n), f"scan-{n}", "Ill?", ("yes",), f"scan-{n}", {"modality": k}) for n, k in enumerate(kinds)
    ]
    given = [Prediction(str(n), "yes" if k == "CT" or n % 2 else "no") for n, k in enumerate(kinds)]
    dataset = DatasetRef(name="slake", split="test")
    words = plain_words(evaluate(examples, given, baselines={}, dataset=dataset, resamples=50))
    assert words[-1].startswith("Among the groups large enough to judge it is weakest on modality MRI: EM 52.0 [")


def test_scores_on_the_validation_and_training_splits_are_qualified():
    answers = ["yes"] * 30 + ["no"] * 30
    assert any("a little too good" in line for line in limits(scored(answers, answers, split="validation")))
    assert any("nothing about new ones" in line for line in limits(scored(answers, answers, split="train")))


def test_what_was_not_scored_is_listed_with_its_first_ids():
    lines = not_scored(scored(["yes"] * 30 + ["no"] * 26, ["yes"] * 60))
    assert lines == ["4: no prediction (56, 57, 58, …)"]

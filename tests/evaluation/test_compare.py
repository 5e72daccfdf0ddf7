"""Two models on the same questions: differences, tests and their corrections, against SciPy where it has them."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from medical_vqa.errors import DataError
from medical_vqa.evaluation.joining import join
from medical_vqa.evaluation.metrics.exact_match import exact_match
from medical_vqa.evaluation.metrics.token_overlap import token_f1
from medical_vqa.evaluation.reporting.compare_report import write_comparison
from medical_vqa.evaluation.reporting.comparison_text import comparison_text, conclusion, p_value
from medical_vqa.evaluation.statistics.comparison import compare, holm, mcnemar_exact, permutation_tests, shared_rows
from medical_vqa.evaluation.statistics.tally import tally
from medical_vqa.schema.records import Example, GuardRecord, Prediction
from medical_vqa.schema.results import Bootstrap

BOOTSTRAP = Bootstrap(resamples=400)
MODELS = {"good": 0.8, "middle": 0.6, "bad": 0.3}
"""Probability of a right answer."""


def rows(images=30, per_image=4):
    return [
        Example(f"{i}-{q}", f"scan-{i}", f"Question {q}?", ("yes",), f"scan-{i}")
        for i in range(images)
        for q in range(per_image)
    ]


def answers(examples, right):
    """`right(image, question)` says which are answered correctly."""
    return join(examples, predictions(examples, right))


def predictions(examples, right):
    return [Prediction(e.id, "yes" if right(*map(int, e.id.split("-"))) else "no") for e in examples]


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (1, 0), (5, 5), (3, 12), (40, 71), (700, 500), (49_700, 50_300)])
def test_mcnemar_equals_the_binomial_test(won, lost):
    from scipy.stats import binomtest

    expected = binomtest(won, won + lost, 0.5).pvalue if won + lost else 1.0
    assert mcnemar_exact(won, lost) == pytest.approx(expected)


def test_holm_multiplies_the_smallest_most_and_never_falls():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_clear_difference_is_found_and_said():
    examples = rows()
    models = {"a": answers(examples, lambda i, q: q < 3), "b": answers(examples, lambda i, q: q < 1 or i % 5 == 0)}
    (pair,) = compare(exact_match(), models, BOOTSTRAP)
    assert pair.difference.value == pytest.approx(0.75 - 0.4)
    assert pair.difference.interval.low > 0
    assert (pair.only_first_correct, pair.only_second_correct) == (48, 6)
    assert max(pair.permutation_p, pair.mcnemar_p, pair.holm_p) < 0.01
    assert conclusion(pair) == "a is better than b by 35.0 points EM."


def test_a_model_against_itself_differs_in_nothing():
    examples = rows()
    (pair,) = compare(exact_match(), {"a": answers(examples, min), "b": answers(examples, min)}, BOOTSTRAP)
    assert (pair.difference.value, pair.permutation_p, pair.mcnemar_p, pair.detectable_difference) == (
        0.0,
        1.0,
        1.0,
        None,
    )
    assert conclusion(pair) == "a and b have the same EM."


def test_images_decide_where_single_questions_would_be_too_sure():
    examples = rows(images=6, per_image=20)
    models = {"a": answers(examples, lambda i, q: i < 4), "b": answers(examples, lambda i, q: i >= 4)}
    (pair,) = compare(exact_match(), models, BOOTSTRAP)
    assert pair.mcnemar_p < 0.001
    assert pair.permutation_p > 0.3


def test_under_the_null_the_permutation_test_errs_as_often_as_it_says():
    rng, examples, found = np.random.default_rng(1), rows(images=20), []
    for _ in range(120):
        models = {name: answers(examples, lambda i, q: rng.random() < 0.5) for name in "ab"}
        found.append(compare(exact_match(), models, Bootstrap(resamples=99))[0].permutation_p)
    assert 0.0 <= np.mean(np.array(found) <= 0.1) <= 0.2


def test_very_many_groups_are_swapped_in_bundles():
    """Ten bundles of four groups can be swapped in 1,024 ways, of which two keep the largest difference."""
    examples = rows(images=40, per_image=1)
    first, second = (
        tally(exact_match(), examples, {row.id: Prediction(row.id, text) for row in examples}) for text in ("yes", "no")
    )
    (found,) = permutation_tests([(first, second)], resamples=20_000, seed=0, most_groups=10)
    assert found == pytest.approx(2 / 1024, rel=0.5)


def test_all_pairs_are_tested_under_the_same_permutations_as_exactly_as_each(monkeypatch):
    """Of models on nine images the 512 ways to swap are counted out; of ten models as many permutations are drawn."""
    examples, rng = rows(images=9), np.random.default_rng(7)
    models = {name: answers(examples, lambda *_, best=best: rng.random() < best) for name, best in MODELS.items()}
    image_of = np.array([int(row.id.split("-")[0]) for row in examples])
    signs = np.array(list(itertools.product((-1, 1), repeat=9)))
    for pair in compare(exact_match(), models, Bootstrap(resamples=20_000)):
        first, second = (tally(exact_match(), examples, models[name].answers) for name in (pair.first, pair.second))
        by_image = np.bincount(image_of, first.counts[:, 0] - second.counts[:, 0])
        exact = np.mean(np.abs(signs @ by_image) >= abs(by_image.sum()) - 1e-9)
        assert pair.permutation_p == pytest.approx(exact, abs=0.015)
    drawn, generator = [], np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: drawn.append(seed) or generator(seed))
    ten = {f"{name} {copy}": one for copy in range(4) for name, one in models.items() if copy < 3 or name == "good"}
    assert len(compare(exact_match(), ten, Bootstrap(resamples=7))) == 45
    assert len(drawn) == 2  # for the intervals, and for the permutations


def test_rows_that_only_some_models_answered_are_compared_like_the_others():
    examples = rows(images=6)
    models = {
        "a": join(examples, predictions(examples, lambda i, q: q < 3)[2:]),
        "b": join(examples, predictions(examples, lambda i, q: q < 1)[::-1][2:]),
    }
    same = {name: join(examples[2:-2], answered.predictions) for name, answered in models.items()}
    assert compare(exact_match(), models, BOOTSTRAP) == compare(exact_match(), same, BOOTSTRAP)
    assert [p.id for p in models["b"].answers.of_rows(shared_rows(models)).predictions] == shared_rows(models).ids


def test_the_detectable_difference_shrinks_with_the_number_of_images():
    sizes = []
    for images in (20, 80):
        examples = rows(images)
        models = {"a": answers(examples, lambda i, q: (i + q) % 3), "b": answers(examples, lambda i, q: (i * q) % 2)}
        sizes.append(compare(exact_match(), models, BOOTSTRAP)[0].detectable_difference)
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.3)


def test_a_difference_that_chance_can_give_is_said_with_what_could_be_shown():
    examples = rows()
    models = {"a": answers(examples, lambda i, q: (i + q) % 2), "b": answers(examples, lambda i, q: (i * q) % 2)}
    (pair,) = compare(exact_match(), models, Bootstrap(resamples=200))
    chance = pair.model_copy(update={"holm_p": 0.4})
    assert "which chance alone can explain; these questions would show a difference of" in conclusion(chance)


def test_three_models_make_three_pairs_and_a_text():
    examples = rows()
    models = {name: answers(examples, lambda i, q, n=n: (i + n * q) % 2) for n, name in enumerate("abc")}
    pairs = compare(token_f1(), models, BOOTSTRAP)
    assert [(p.first, p.second) for p in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert comparison_text(pairs).count("McNemar exact") == 3
    assert (p_value(0.0004), p_value(0.0316)) == ("<0.001", "0.032")


def test_only_questions_that_all_answered_once_count():
    examples = rows(images=2)
    some, twice = predictions(examples, min)[1:], [*predictions(examples, min), Prediction("1-3", "yes")]
    models = {"a": join(examples, some), "b": join(examples, twice)}
    assert [e.id for e in shared_rows(models)] == [e.id for e in examples[1:-1]]


def test_files_without_a_common_question_and_a_single_file_are_refused():
    examples = rows(images=1)
    with pytest.raises(DataError, match="answered by all of a, b"):
        compare(exact_match(), {"a": answers(examples, min), "b": join(examples, [Prediction("x", "yes")])})
    with pytest.raises(DataError, match="at least two"):
        compare(exact_match(), {"a": answers(examples, min)})


def test_groups_of_one_can_be_compared():
    examples = rows(images=2, per_image=1)
    (pair,) = compare(exact_match(), {"a": answers(examples, max), "b": answers(examples, min)}, BOOTSTRAP)
    assert 0 < pair.permutation_p <= 1.0


@pytest.mark.slow
def test_a_clear_lead_is_significant_among_many_models(examples):
    rows = [replace(examples[0], id=str(n), image_id=f"scan-{n}", group=f"scan-{n}") for n in range(100)]
    best = [Prediction(row.id, "lung") for row in rows]
    models = {"best": join(rows, best)}
    for other in range(15):
        answers = [
            Prediction(row.id, "lung" if (n + other) % 5 < 2 else f"organ {other}") for n, row in enumerate(rows)
        ]
        models[f"model {other}"] = join(rows, answers)
    against_best = [pair for pair in compare(exact_match(), models, Bootstrap(resamples=50)) if pair.first == "best"]
    assert len(against_best) == 15
    assert all(pair.holm_p < 0.01 for pair in against_best)


def guarded(examples, withheld):
    """Right answers, of which the guards withhold those in `withheld`."""
    return join(
        examples,
        [
            Prediction(e.id, "yes", guards=GuardRecord(e.id in withheld, "quality" if e.id in withheld else None))
            for e in examples
        ],
    )


def test_what_the_guards_withhold_stands_next_to_the_scores(tmp_path):
    examples = rows(4, 2)
    models = {
        "careful": guarded(examples, {"0-0", "0-1"}),
        "plain": answers(examples, lambda i, q: q == 0),
        "bold": guarded(examples, set()),
    }
    pairs = compare(exact_match(), models, BOOTSTRAP)
    first, second = pairs[0].withheld
    assert (first.checked, first.withheld, first.visible["em"].n, second) == (8, 2, 6, None)
    lines = comparison_text(pairs).splitlines()
    assert lines[1].startswith("careful: guards withhold 2 of 8 answers (quality 2) · EM 100.0 [")
    assert lines[2].startswith("bold: guards withhold 0 of 8 answers · EM 100.0 [")
    assert lines[3] == ""
    write_comparison(
        tmp_path / "c.html", models=models, baselines={}, protocols={}, title="A", files=["a"], bootstrap=BOOTSTRAP
    )
    page = (tmp_path / "c.html").read_text()
    assert page.startswith("<!doctype html>")
    assert cells(page, "shown") == ["75.0", "–", "100.0"]
    assert cells(page, "EM of the shown") == ["100.0", "–", "100.0"]
    assert "of all answers" in page


def test_only_answers_to_the_compared_questions_count_as_withheld():
    examples = rows(4, 2)
    models = {
        "a": guarded(examples, {"0-0", "3-1"}),
        "b": join(examples[:2], predictions(examples[:2], lambda *_: True)),
    }
    first, _ = compare(exact_match(), {**models, "b": join(examples, models["b"].answers.predictions)}, BOOTSTRAP)[
        0
    ].withheld
    assert (first.checked, first.withheld) == (2, 1)


def test_a_page_of_models_without_guards_says_nothing_of_them(tmp_path):
    models = {name: answers(rows(4, 2), lambda i, q: q == 0) for name in "ab"}
    write_comparison(
        tmp_path / "c.html", models=models, baselines={}, protocols={}, title="A", files=["a"], bootstrap=BOOTSTRAP
    )
    assert "guards" not in (tmp_path / "c.html").read_text()
    assert "guards" not in comparison_text(compare(exact_match(), models, BOOTSTRAP))


def cells(page, label):
    return re.findall(f'data-label="{label}">([^<]*)</td>', page)

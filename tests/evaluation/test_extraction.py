"""Answers of reasoning models: the final answer is scored, named in the signature, and the complete text as well."""

from dataclasses import replace

import pytest

from medical_vqa.evaluation.extraction import final_answer
from medical_vqa.evaluation.protocols.medevalkit import tagged_content
from medical_vqa.evaluation.reporting.summary import plain_words
from medical_vqa.schema.records import Prediction


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a CT?</think><answer>CT</answer>", "CT"),
        ("<think>is it <answer>MRI</answer>?</think>\n<answer> CT </answer>", "CT"),
        ("<think>hm</think>\n\nThe final answer is: CT", "CT"),
        ("<think>hm</think>\nCT", "CT"),
        ("Some steps. \\boxed{CT}", "CT"),
        ("\\boxed{\\text{left lung}}", "left lung"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("<answer>\\boxed{B}</answer>", "B"),
        ("<think>never ends", ""),
        ("<think>is it <answer>MRI</answer> or", ""),
        ("<think>so <answer>MRI</answer></think>", "MRI"),
        ("<think>so</think>", ""),
        ("<think>one <think>two</think> three</think>CT", "CT"),
        ("<Thinking>hm</Thinking>CT", "CT"),
        ("◁think▷hm◁/think▷CT", "CT"),
        ("<unused94>thought\nhm<unused95>CT", "CT"),
        ("<answer>CT", "CT"),
        ("CT", "CT"),
        ("x < y and y > 3", "x < y and y > 3"),
    ],
)
def test_the_final_answer_of_a_text(text, answer):
    assert final_answer(text) == answer


def reasoned(predictions):
    return [replace(p, answer=f"<think>well</think><answer>{p.answer}</answer>") for p in predictions]


def test_reasoning_costs_nothing_and_is_reported(examples, predictions, score):
    plain, results = score(examples, predictions), score(examples, reasoned(predictions))
    assert results.metrics[0].score.value == plain.metrics[0].score.value
    assert results.metrics[0].signature.startswith("em|extract:final-answer|v:2|")
    assert (results.reasoning.rows.n, results.reasoning.complete_texts["em"]) == (6, 0.0)
    assert plain.reasoning is None
    assert any("6 answers hold reasoning" in sentence for sentence in plain_words(results))


def test_a_published_rule_receives_the_text_as_it_is_and_a_repaired_one_the_answer(examples, predictions, score):
    results = score(examples, reasoned(predictions), published_protocols=["vila_m3", "medevalkit"])
    by_name = {(one.protocol, one.metric): one for one in results.protocols}
    vila = by_name["vila_m3", "overall"]
    assert (vila.published.value, vila.repaired.value) == (0.0, pytest.approx(3 / 6))
    assert "extract:final-answer" in vila.repaired_signature
    assert by_name["medevalkit", "overall"].published.value > 0  # it extracts by itself


def test_reasoning_that_never_ends_is_wrong_and_named(examples, score):
    results = score(examples, [Prediction(e.id, "<think>and then") for e in examples])
    assert (results.reasoning.unfinished.n, results.metrics[0].score.value) == (6, 0.0)


def test_what_was_not_answered_counts_as_wrong_in_a_second_number(examples, predictions, score):
    results = score(examples, predictions[:2])
    metric = results.metrics[0]
    assert (metric.score.value, metric.score.n) == (1.0, 2)
    assert (metric.unanswered_as_wrong.value, metric.unanswered_as_wrong.n) == (pytest.approx(2 / 6), 6)
    assert "4 of 6 questions have no answer to score" in plain_words(results)[1]
    assert score(examples, predictions).metrics[0].unanswered_as_wrong is None


def test_leaks_are_in_the_first_sentences(examples, predictions, score):
    from medical_vqa.evaluation.scoring import LeakedRows

    leaks = LeakedRows(exact=frozenset({"1", "2", "3", "4"}), near=frozenset(), near_duplicates_checked=True)
    sentences = plain_words(score(examples, predictions, leaks=leaks))
    assert "images of 4 of these 6 questions are also in a training part" in sentences[1]
    assert "2 questions about other images" in sentences[1]
    assert "other images sampled like these" not in " ".join(sentences)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>" * 100_000, "<answer>" * 99_999),
        ("<answer>CT</answer>" + "<answer>" * 100_000, "CT"),
        ("<answer>" + " " * 300_000 + "CT", "CT"),
        ("<answer>" + "\n" * 300_000, ""),
        ("<think>hm</think>" + "\n \n" * 100_000 + "Answer: CT", "CT"),
        ("<think>hm</think>Answer: CT" + " " * 300_000 + "lung", "CT" + " " * 300_000 + "lung"),
    ],
)
def test_texts_of_many_tags_or_spaces_take_time_in_proportion_to_their_length(text, answer):
    """Such texts, of a model that repeats itself, take hours where each tag or space is compared with all others."""
    assert final_answer(text) == answer
    assert tagged_content(text).strip() == (answer if "</answer>" in text else text.strip())

"""Published scorers on literal answers: each defect shows, and its repair removes it."""

import difflib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medical_vqa.evaluation.protocols import (
    helm,
    llava_med,
    lmms_eval,
    medevalkit,
    multimedeval,
    squad_v2,
    vila_m3,
    vqa_normalizer,
)
from medical_vqa.evaluation.protocols.nearest_label import NearestLabel

CASES = [
    # (scorer, predicted, gold, score)
    ("squad_or_list", "liver, heart", "Heart, Liver", 1.0),
    ("squad_or_list", "liver", "Heart, Liver", 0.0),
    ("llava_recall", "lung lung lung", "left lung", 0.75),
    ("clipped_recall", "lung lung lung", "left lung", 0.5),
    ("llava_exact", "the left lung is dark", "left lung", 0.5),
    ("vqa_equal", "the left lung is dark", "left lung", 0.0),
    ("llava_closed", "Lung", "Lung", 0.0),
    ("llava_closed_batch", "Lung", "Lung", 1.0),
    ("llava_closed", "it is normal", "No", 1.0),
    ("contains_phrase", "it is normal", "No", 0.0),
    ("llava_closed", "yes no", "Yes", 1.0),
    ("contains_phrase", "yes no", "Yes", 0.0),
    ("contains_phrase", "yes no Lung", "Lung", 1.0),
    ("contains_phrase", "Yes, it is.", "Yes", 1.0),
    ("contains_phrase", "", "Yes", 0.0),
    ("llava_closed_unless_wrong", "no", "Yes", None),
    ("llava_closed_unless_wrong", "lung", "Yes", 0.0),
    ("medevalkit_open", "The answer is Lung", "Lung", 0.0),
    ("medevalkit_repaired", "The answer is Lung.", "Lung", 1.0),
    ("medevalkit_open", "Lung.", "Lung", 0.0),
    ("medevalkit_closed", "Yes.", "Yes", 1.0),
    ("medevalkit_closed", "The answer is yes.", "Yes", 0.0),
    ("medevalkit_closed", "The answer is yes.", "yes", 1.0),
    ("medevalkit_closed", "yes no", "yes", 0.0),
    ("medevalkit_closed", "<answer>Yes</answer>", "Yes", 1.0),
    ("medevalkit_closed", "\\boxed{Yes}", "Yes", 1.0),
    ("medevalkit_recall", "a dark left lung", "left lung", 1.0),
    ("medevalkit_f1", "a dark left lung", "left lung", pytest.approx(2 / 3)),
    ("lmms_equal", "正常", "是", 1.0),
    ("lmms_repaired", "正常", "是", 0.0),
    ("lmms_equal", "X-Ray (chest)", "xray", 1.0),
    ("lmms_equal", "没有。", "no", 1.0),
    ("multimed_closed", "not at all", "No", 1.0),
    ("multimed_closed", "yes and no", "Yes", 1.0),
    ("multimed_closed", "perhaps", "Yes", 0.0),
    ("multimed_open", "it is the left upper lung I think", "left upper lung lobe", 1.0),
    ("multimed_equal", "left lung lobe", "left upper lung lobe", 0.0),
    ("multimed_bleu", "left lung", "left lung", 1.0),
    ("helm_exact", "lung", "Lung", 0.0),
    ("helm_quasi_exact", "The lung.", "Lung", 1.0),
    ("helm_quasi_exact", "", "the", 0.0),
    ("helm_f1", "lung lung", "lung", 1.0),
    ("helm_exact", "a " * 30 + "b", " ".join(["a"] * 20), 1.0),
    ("helm_rouge_l", "肺", "肺", 0.0),
    ("vila_equal", " lung ", "Lung", 1.0),
    ("vila_equal", "Lung.", "Lung", 0.0),
]


MODULES = (helm, llava_med, lmms_eval, medevalkit, multimedeval, squad_v2, vila_m3, vqa_normalizer)


def scorer(name):
    return next(getattr(module, name) for module in MODULES if hasattr(module, name))


@pytest.mark.parametrize(("name", "predicted", "gold", "score"), CASES)
def test_one_answer(name, predicted, gold, score):
    assert scorer(name)(predicted, gold) == score


def test_bleu_4_of_a_short_right_answer_is_nothing():
    assert helm.helm_bleu_4("left lung", "left lung") == 0.0
    assert helm.helm_bleu_1("left lung", "left lung") == 1.0


def test_a_wrong_word_becomes_right_when_its_nearest_label_is():
    labels = NearestLabel(["pneumonia", "lung cancer", "no"])
    assert labels.is_nearest("pneumonia", "pneumonitis")
    assert not labels.is_nearest("no", "###")


WORDS = st.text(alphabet="abcde lung", max_size=8)


@settings(deadline=None)
@given(st.lists(WORDS.filter(bool), min_size=1, max_size=6), WORDS)
def test_the_nearest_label_is_that_of_comparing_them_all(labels, text):
    labels = list(dict.fromkeys(labels))
    ratios = [difflib.SequenceMatcher(None, label, text).ratio() for label in labels]
    expected = labels[ratios.index(max(ratios))] if max(ratios) > 0 else None
    nearest = NearestLabel(labels)
    assert [label for label in labels if nearest.is_nearest(label, text)] == ([expected] if expected else [])


@pytest.mark.parametrize("name", [name for name, *_ in CASES])
@given(predicted=st.text(max_size=12), gold=st.text(max_size=12))
@settings(max_examples=20, deadline=None)
def test_no_text_breaks_a_scorer(name, predicted, gold):
    score = scorer(name)(predicted, gold)
    assert score is None or 0.0 <= score <= 1.0

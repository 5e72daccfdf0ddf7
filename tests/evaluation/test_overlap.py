"""BLEU and ROUGE-L against the packages that people quote: sacrebleu, torchmetrics, rouge-score, nltk."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import sentence_bleu as nltk_bleu
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from medical_vqa.evaluation.metrics.bleu import Bleu, sentence_bleu
from medical_vqa.evaluation.metrics.rouge import lcs_f_measure, rouge_l
from medical_vqa.schema.records import Example, Prediction

WORDS = st.lists(st.sampled_from(["lung", "left", "upper", "lobe", "liver", "mass"]), min_size=1, max_size=7)
PAIRS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=6)
ROUGE = RougeScorer(["rougeL"], use_stemmer=False)


def corpus(metric, pairs):
    rows = [metric.counts(Prediction("1", " ".join(a)), gold(" ".join(b))) for a, b in pairs]
    return metric.value(np.sum(rows, axis=0).tolist())


def gold(*answers):
    return Example("1", "scan", "What is it?", answers, "scan")


@pytest.mark.parametrize("order", [1, 4])
@settings(max_examples=60, deadline=None)
@given(pairs=PAIRS)
def test_corpus_bleu_equals_sacrebleu(order, pairs):
    oracle = BLEU(tokenize="none", smooth_method="none", max_ngram_order=order, force=True)
    answers, references = [" ".join(a) for a, _ in pairs], [[" ".join(b) for _, b in pairs]]
    assert corpus(Bleu(order), pairs) == pytest.approx(oracle.corpus_score(answers, references).score / 100)


def test_corpus_bleu_equals_torchmetrics_with_several_references():
    from torchmetrics.text import BLEUScore

    answers = ["left upper lobe mass", "liver and left lung"]
    references = [["upper left lobe mass", "mass in left upper lobe"], ["liver and the left lung", "liver"]]
    rows = [Bleu(2).counts(Prediction("1", a), gold(*r)) for a, r in zip(answers, references, strict=True)]
    bare = [[one.replace("the ", "") for one in group] for group in references]
    expected = BLEUScore(n_gram=2)(answers, bare).item()
    assert Bleu(2).value(np.sum(rows, axis=0).tolist()) == pytest.approx(expected, rel=1e-5)


@settings(max_examples=80, deadline=None)
@given(WORDS, WORDS)
def test_rouge_l_equals_rouge_score(ours, theirs):
    expected = ROUGE.score(" ".join(theirs), " ".join(ours))["rougeL"].fmeasure
    assert lcs_f_measure(ours, theirs) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:\\nThe hypothesis contains 0 counts:UserWarning")
@pytest.mark.parametrize("order", [1, 4])
@settings(max_examples=60, deadline=None)
@given(ours=WORDS, theirs=WORDS)
def test_sentence_bleu_equals_nltk(order, ours, theirs):
    weights = [float(n == order) for n in range(1, 5)]
    assert sentence_bleu(ours, theirs, order) == pytest.approx(nltk_bleu([theirs], ours, weights=weights), abs=1e-12)


def test_the_best_of_several_references_counts_and_an_empty_answer_scores_nothing():
    assert rouge_l().counts(Prediction("1", "left lung"), gold("liver", "left lung")) == (1.0, 1.0)
    assert rouge_l().counts(Prediction("1", ""), gold("liver")) == (0.0, 1.0)
    assert Bleu(1).value(Bleu(1).counts(Prediction("1", ""), gold("liver"))) == 0.0
    assert Bleu(1).counts(Prediction("1", "liver"), gold()) is None
    assert math.isnan(Bleu(1).value([0.0] * 4))
    assert Bleu(4).signature().startswith("bleu4|corpus|")

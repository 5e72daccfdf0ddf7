"""Prompts longer than a model's positions: one sentence before anything is computed, and nothing cut off silently."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from medical_vqa.errors import ContextLengthError, ModelError
from medical_vqa.models.guards.abstention import abstention_decision
from medical_vqa.schema.bundle_card import BundleCard, Decoding

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
from cases import build, queries

LIMITS = {"qwen2.5-vl": 512, "blip2-opt-2.7b": 256}


@pytest.fixture(scope="module", params=list(LIMITS))
def model(request, written):
    model = build(request.param, written(request.param))
    assert model.context == LIMITS[request.param]
    return model


@pytest.mark.parametrize("method", ["greedy", "rank"])
def test_a_question_beyond_the_positions_is_refused_with_the_numbers(model, method):
    long = replace(queries(model)[0], question="Is it white? " * (model.context // 13))
    with pytest.raises(
        ContextLengthError, match=rf"'Is it white\? .*' takes \d+ tokens .* reads {model.context} in all: shorten"
    ) as error:
        model.answer([queries(model)[1], long], Decoding(max_tokens=4, method=method))
    assert "white" not in error.value.for_client and "max_tokens" not in error.value.for_client
    assert f"the model reads {model.context} in all: shorten it, or leave" in error.value.for_client


def test_prompt_and_answer_are_counted_together(model):
    """The prompt alone fits, and its longest answer does not."""
    query = queries(model)[0]
    model.answer([query], Decoding(max_tokens=4))
    with pytest.raises(ModelError, match=rf"its answer up to {model.context - 8};"):
        model.answer([query], Decoding(max_tokens=model.context - 8))


def test_a_training_row_beyond_the_positions_is_refused(model):
    row = queries(model, learn=True)[0]
    model.collate([row])
    with pytest.raises(ModelError, match=rf"reads {model.context} in all"):
        model.collate([replace(row, target="a b " * (model.context // 4))])


def test_relative_positions_have_no_limit(written):
    model = build("blip2-flan-t5-xl", written("blip2-flan-t5-xl"))
    assert model.context is None
    model.answer([replace(queries(model)[0], question="lung " * 190)], Decoding(max_tokens=2))


def test_a_question_that_vilt_cuts_off_is_an_abstention(written):
    model = build("vilt-b32-mlm", written("vilt-b32-mlm"))
    short, long = (replace(queries(model)[0], question="Is the lung " * times) for times in (3, 20))
    decisions = []
    for query in (short, long):
        (prediction,) = model.answer([query], Decoding())
        decisions.append(abstention_decision(model, BundleCard(family="vilt", name="v"), query, prediction))
    assert [decision.abstained for decision in decisions] == [False, True]
    assert decisions[1].reason == "The question has 62 tokens, of which this model reads the first 40. Shorten it."
    assert model.question_reason(short.question) is None and model.question_reason(long.question)

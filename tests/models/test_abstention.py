"""When a model abstains, and with which words."""

from __future__ import annotations

import numpy as np
import pytest

from medical_vqa.models.base import Query
from medical_vqa.models.baselines import Majority
from medical_vqa.models.guards.abstention import AbstentionDecision, abstention_decision
from medical_vqa.schema.bundle_card import BundleCard
from medical_vqa.schema.records import Example, Prediction

QUERY = Query("q", "Is the liver healthy?", "i", np.zeros((1, 1, 1), np.uint8))
MODEL = Majority.fit([Example("a", "i", "q", ("Yes",), "i", {})])
CARD = BundleCard(
    family="majority",
    name="m",
    calibration={"fitted_on": "mine validation, 9 answers", "threshold": 0.6, "risk": 0.1, "temperature": 1.0},
)


@pytest.mark.parametrize(("confidence", "abstains"), [(0.59, True), (0.6, False), (0.9, False), (None, False)])
def test_it_abstains_below_the_threshold_only(confidence, abstains):
    found = abstention_decision(MODEL, CARD, QUERY, Prediction("q", "Yes", "Yes", confidence, ()))
    assert found.abstained is abstains
    assert (found.reason is not None) is abstains


def test_the_reason_names_confidence_threshold_and_risk():
    found = abstention_decision(MODEL, CARD, QUERY, Prediction("q", "Yes", "Yes", 0.5, ()))
    assert found.reason is not None
    assert all(word in found.reason for word in ("50%", "60%", "10%"))


def test_without_a_threshold_it_answers():
    assert abstention_decision(
        MODEL, BundleCard(family="majority", name="m"), QUERY, Prediction("q", "Yes", "Yes", 0.01, ())
    ) == AbstentionDecision(False)


def test_a_doubt_speaks_before_the_threshold():
    class Doubtful(Majority):
        def abstention_reason(self, query, prediction):
            return "I do not know the word liver."

    model = Doubtful.fit([Example("a", "i", "q", ("Yes",), "i", {})])
    found = abstention_decision(model, CARD, QUERY, Prediction("q", "Yes", "Yes", 0.99, ()))
    assert found == AbstentionDecision(True, "I do not know the word liver.", "question_scope")

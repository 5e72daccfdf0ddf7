"""What a card says of an answer apart from its text."""

import pytest

from medical_vqa.app.components import cards, overlay
from medical_vqa.app.i18n.texts import Texts
from medical_vqa.schema.evidence import Evidence, MultiPolygon
from medical_vqa.serving.schema.answers import Answer, ModelRef, Timings

ENGLISH, CHINESE = Texts("en"), Texts("zh")
RING = ((1.0, 2.0), (5.0, 2.0), (5.0, 8.5), (1.0, 2.0))


def evidence(**changes):
    values = {
        "name": "Left Lung", "box": (1, 2, 5, 8.5), "polygon": MultiPolygon(coordinates=((RING, RING),)), "area": 13,
        "area_mm2": 1906.4, "side": "patient", "position": "right", "learned_from": "mask", "score": 0.9,
    }  # fmt: skip
    return Evidence(**(values | changes))


def answer(**changes):
    return Answer(
        question="Which lung is larger?",
        answer="Left Lung",
        confidence=0.9,
        model=ModelRef(name="m", family="f", id="0"),
        timings=Timings(queue_ms=0, model_ms=1, total_ms=1, batch_size=1),
        **changes,
    )


@pytest.mark.parametrize("texts", [ENGLISH, CHINESE], ids=["en", "zh"])
@pytest.mark.parametrize("source", ["picture", "usual", "knowledge"])
@pytest.mark.parametrize("side", ["patient", "picture", "both"])
def test_an_answer_says_where_it_comes_from_and_whose_sides_it_names(texts, source, side):
    html = cards.answer(texts, answer(source=source, side=side))
    assert texts(f"source_{source}").replace("'", "&#x27;") in html
    assert texts(f"side_{side}").replace("'", "&#x27;") in html


@pytest.mark.parametrize("texts", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_an_answer_at_the_limit_of_tokens_says_that_its_end_is_missing(texts):
    assert texts("cut_off") in cards.answer(texts, answer(cut_off=True))
    assert texts("cut_off") not in cards.answer(texts, answer())


def test_what_was_not_measured_is_not_mentioned():
    assert "mv-notes" not in cards.answer(ENGLISH, answer())


def test_evidence_is_named_in_the_language_of_the_page_with_its_area_unless_it_is_only_a_box():
    items = [evidence(), evidence(name="Heart", learned_from="box"), evidence(name="Liver", area_mm2=None)]
    html = cards.answer(ENGLISH, answer(evidence=items))
    assert "Outlined in the picture: Left Lung, 19.1 cm²; Heart (roughly); Liver" in html
    assert "左肺，19.1 平方厘米; 心脏（大致范围）; 肝脏" in cards.answer(CHINESE, answer(evidence=items))


def test_an_abstention_is_worded_by_its_code_in_the_language_of_the_page():
    abstained = answer(
        abstained=True,
        reason="The file says SEG.",
        reason_code="modality_not_trained",
        reason_arguments={"modality": "SEG", "trained": "CT, MRI"},
    )
    assert "模型只用 CT, MRI 训练过" in cards.answer(CHINESE, abstained)
    assert "The file says that it is of modality SEG; the model was trained on" in cards.answer(ENGLISH, abstained)


def test_a_polygon_with_a_hole_is_one_path():
    assert overlay.outline_path(evidence()) == "M1 2L5 2L5 8.5Z M1 2L5 2L5 8.5Z"

"""What the commands print of an answer."""

from pathlib import Path

import pytest

from medical_vqa.cli.terminal import answer_lines, answer_table
from medical_vqa.pipelines.ask import Answer, ImageView
from medical_vqa.schema.evidence import Evidence, MultiPolygon

VIEW = ImageView(Path("scan.png"), "PNG", (512, 512), 0, 1, None, {})
SQUARE = ((312.0, 80.0), (470.0, 80.0), (470.0, 402.0), (312.0, 402.0), (312.0, 80.0))


def answer(text="Left Lung", **changes):
    return Answer("Which lung is larger?", text, 0.93, (), changes.pop("abstained", False), None, VIEW, "m", **changes)


def evidence(**changes):
    values = {
        "name": "Left Lung",
        "box": (312, 80, 470, 402),
        "polygon": MultiPolygon(coordinates=((SQUARE,),)),
        "area": 50876,
        "area_mm2": 24929.2,
        "side": "patient",
        "position": "right",
        "learned_from": "mask",
        "score": 0.97,
    }
    return Evidence(**(values | changes))


@pytest.mark.parametrize(
    ("side", "words"),
    [
        ("patient", "the patient's left is at the right of the picture"),
        ("picture", "as you look at it"),
        ("both", "of an organ"),
    ],
)
def test_an_answer_with_a_side_says_whose_it_is(side, words):
    assert any(line.startswith("left and right: ") and words in line for line in answer_lines(answer(side=side)))


def test_an_answer_without_a_side_says_nothing_of_sides():
    assert not any("left and right" in line for line in answer_lines(answer("Heart")))


@pytest.mark.parametrize(
    ("source", "words"),
    [("picture", "from this picture"), ("usual", "what is usual"), ("knowledge", "general knowledge")],
)
def test_an_answer_says_what_it_rests_on(source, words):
    assert any(words in line for line in answer_lines(answer(source=source)))
    assert not any(words in line for line in answer_lines(answer(source=source, abstained=True)))


@pytest.mark.parametrize("cut_off", [True, False])
def test_an_answer_without_its_end_is_called_so(cut_off):
    said = answer(cut_off=cut_off)
    assert any("ended at the limit of tokens" in line for line in answer_lines(said)) is cut_off
    assert ("ended at the limit" in answer_table({"m": [said]})) is cut_off
    assert said.to_dict()["cut_off"] is cut_off


def test_all_evidence_is_one_line():
    other = evidence(name="Heart", area_mm2=None, area=812.4, side=None, position="middle", score=0.5)
    (line,) = [line for line in answer_lines(answer(evidence=(evidence(), other))) if line.startswith("localized")]
    assert line == (
        "localized: Left Lung at 312,80 to 470,402 (right side of the picture, 249.3 cm², 97%); "
        "Heart at 312,80 to 470,402 (middle of the picture, 812 pixels, 50%)"
    )

import pytest

from medical_vqa.evaluation.protocols.vqa_normalizer import vqa_normalize


@pytest.mark.parametrize(
    ("given_text", "normalized"),
    [
        ("X-Ray", "x ray"),
        ("Heart, Liver", "heart liver"),
        ("Heart,Liver", "heart liver"),
        ("None", "0"),
        ("two kidneys", "2 kidneys"),
        ("The left lung.", "left lung"),
        ("3.5 cm", "3.5 cm"),
        ("1,000 - 2", "1000 2"),
        ("it isnt", "it isn't"),
        ("theyd've", "they'd've"),
        ("肺", "肺"),
        ("", ""),
    ],
)
def test_the_vqa_rule(given_text, normalized):
    assert vqa_normalize(given_text) == normalized

"""Answers of chat models that are no answers: empty ones, and those that decline the question in words."""

import pytest

from medical_vqa.models import declined
from medical_vqa.models.base import ModelFamily, Query
from medical_vqa.models.declined import declined_reason
from medical_vqa.schema.records import Prediction

DECLINED = (
    "I'm sorry, but I can't assist with that request.",
    "I\N{RIGHT SINGLE QUOTATION MARK}m sorry, I can\N{RIGHT SINGLE QUOTATION MARK}t help with that.",
    "I cannot provide a medical diagnosis. Please consult a qualified healthcare professional.",
    "I am not able to interpret medical images.",
    "I'm unable to analyze this image.",
    "I'm not qualified to interpret X-rays, but I can help you with other questions.",
    "As an AI language model, I cannot diagnose diseases from images.",
    "I'm an AI assistant and I am unable to view images directly.",
    "Unfortunately, I cannot determine this from the image.",
    "Sorry, I can't tell.",
    "Apologies for the confusion, but I cannot see the image you attached.",
    "I don't see an image attached to your message.",
    "I don't have access to any images. Please upload the image.",
    "There is no image in your message, please attach one.",
    "Please provide the chest X-ray so that I can look at it.",
    "I do not have the ability to evaluate medical scans.",
    "I won't answer questions about patients.",
    "I can't make a diagnosis from an image. However, I recommend that you see a doctor.",
    "抱歉，我无法回答这个问题。",
    "对不起,作为一个AI语言模型,我不能提供医疗诊断。",
    "很抱歉，我无法查看图像，但我可以解释一般的概念。",
)
ANSWERS = (
    "No",
    "Yes, I am sorry to say that there is a mass.",
    "I cannot see any fracture.",
    "I can't identify a pneumothorax.",
    "I cannot rule out pneumonia.",
    "I cannot exclude a small effusion; the right angle is blunted.",
    "I don't see any abnormality.",
    "I do not see a fracture in this image.",
    "There is no evidence of disease.",
    "There is no pneumothorax in the picture.",
    "Unfortunately, the tumor has grown.",
    "Sorry, the answer is the left lung.",
    "I cannot diagnose from one picture, but the heart is enlarged.",
    "I'm not able to give a diagnosis. However, the image shows a fracture of the left clavicle.",
    "I see an enlarged heart.",
    "X-Ray",
    "无",
    "不能排除肺炎",
    "我无法做出诊断，但图像显示心脏增大。",
    "左肺",
)


@pytest.mark.parametrize("text", DECLINED)
def test_a_text_that_declines_is_no_answer(text):
    reason = declined_reason(text)
    assert reason is not None
    assert (reason.code, dict(reason.arguments)) == ("model_declined", {})


@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_stands(text):
    assert declined_reason(text) is None


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_text_is_no_answer(text):
    assert declined_reason(text).code == "empty_answer"


def test_a_family_that_says_nothing_else_withholds_both():
    query = Query("0", "What is shown?", "image", {})
    family = ModelFamily.abstention_reason
    assert family(None, query, Prediction("0", DECLINED[0], DECLINED[0], None)).code == "model_declined"
    assert family(None, query, Prediction("0", "", "", None)).code == "empty_answer"
    assert family(None, query, Prediction("0", "No", "No", None)) is None


@pytest.mark.parametrize("filler", ["!", " , ", "...\t", "抱歉", "\N{FULLWIDTH COMMA}"])
def test_a_long_answer_takes_time_in_proportion_to_its_length(filler):
    """In characters that are matched, not in seconds: the expressions take time with the square of them."""
    matched = []

    class Counted:
        def __init__(self, pattern):
            self.pattern = pattern

        def match(self, text):
            matched.append(len(text))
            return self.pattern.match(text)

    text = "x" + filler * 100_000
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_DECLINES", "_DECLINES_ZH"):
            patch.setattr(declined, name, Counted(getattr(declined, name)))
        assert declined.declined_reason(text) is None
    assert max(matched) <= 400


def test_an_answer_that_begins_with_punctuation_declines_as_one_without():
    assert declined_reason("  --- " * 500 + "I'm sorry, but I can't interpret medical images.") is not None

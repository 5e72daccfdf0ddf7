"""Questions of datasets are offered without the errors of their templates and their typing."""

from __future__ import annotations

import pytest

from medical_vqa.models.questions.bank import QuestionBank, TrainingQuestion
from medical_vqa.models.questions.wording import misspellings, well_worded


@pytest.mark.parametrize(
    ("published", "offered"),
    [
        ("Where is/are the abnormality located?", "Where is the abnormality located?"),
        ("Where is/are the atelectasis located?", "Where is the atelectasis located?"),
        ("Is/Are there abnormalities in the left lung?", "Are there abnormalities in the left lung?"),
        ("Are/Is there kidneys in the picture?", "Are there kidneys in the picture?"),
        ("What disease is/are shown on the heart?", "What disease is shown on the heart?"),
        ("Which organs/organ in the picture belong to a system?", "Which organs in the picture belong to a system?"),
        ("Which organs/organ is part of the system?", "Which organ is part of the system?"),
        ("Which is bigger in this image,lung,liver or heart ?", "Which is bigger in this image, lung, liver or heart?"),
        ("Does the picture contain brian? Brian!", "Does the picture contain brain? Brain!"),
        ("Is the mass larger than 1,000 mm?", "Is the mass larger than 1,000 mm?"),
        ("Is this an AP/PA view, or a CT/MRI?", "Is this an AP/PA view, or a CT/MRI?"),
    ],
)  # fmt: skip
def test_errors_of_templates_and_typing_are_corrected(published, offered):
    assert well_worded(published, {"brian": "brain"}) == offered


def test_a_misspelling_swaps_two_letters_of_a_much_commoner_word():
    rows = {"brain": 50, "brian": 10, "form": 9, "from": 10, "an": 90, "na": 1, "lung": 80, "lungs": 2, "brains": 1}
    assert misspellings(rows) == {"brian": "brain"}


def test_suggestions_are_corrected_and_remain_known():
    texts = {
        "Is the brain healthy?": 60,
        "Does the picture contain brian?": 5,
        "Where is/are the brain tumor located?": 9,
        "Where is the brain tumor located?": 3,
        "图中是否有肝脏?": 4,
    }
    bank = QuestionBank([TrainingQuestion(text, "", rows, ("yes",)) for text, rows in texts.items()])
    nearest = bank.nearest("Does it contain brian?", 9)
    assert "Does the picture contain brain?" in nearest
    assert not [text for text in nearest if "brian" in text or "/" in text]
    common = bank.commonest(9, chinese=False)
    assert common == ["Is the brain healthy?", "Where is the brain tumor located?"]  # two of a type
    assert bank.offers("Does the picture contain brain?")
    assert "Does the picture contain brain?" not in bank
    assert bank.commonest(9, chinese=True) == ["图中是否有肝脏?"]

import pytest

from medical_vqa.errors import ModelError
from medical_vqa.models.base import Query
from medical_vqa.models.baselines import Majority, QuestionLookup
from medical_vqa.models.queries import NO_PICTURE
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Example

ROWS = [
    Example(str(i), "image", question, answers, "image")
    for i, (question, answers) in enumerate(
        [
            ("Where is the liver?", ("Left",)),
            ("Where is the liver?", ("Right",)),
            ("where is THE liver?", ("Right",)),
            ("Where is the lung?", ("Chest",)),
            ("Is it healthy?", ("No",)),
            ("Is it healthy?", ()),
        ]
    )
]


def answer(model, question):
    return model.answer([Query("q", question, "image", NO_PICTURE)], Decoding(alternatives=2))[0]


def test_a_known_question_gets_its_most_frequent_answer_with_its_frequency():
    prediction = answer(QuestionLookup.fit(ROWS), "WHERE is the liver ?")
    assert (prediction.answer, prediction.alternatives) == ("Right", (("Left", pytest.approx(1 / 3)),))
    assert prediction.confidence == pytest.approx(2 / 3)


def test_an_unknown_question_gets_the_answer_of_its_first_words_then_of_all():
    model = QuestionLookup.fit(ROWS)
    assert answer(model, "Where is the spleen?").answer == "Right"
    assert answer(model, "Count the kidneys").answer == "Right"


def test_the_majority_does_not_read_the_question():
    model = Majority.fit(ROWS)
    assert {answer(model, q).answer for q in ("Is it healthy?", "Where is the lung?")} == {"Right"}


def test_rows_without_an_answer_do_not_count_and_alone_are_refused():
    assert "None" not in QuestionLookup.fit(ROWS).overall
    with pytest.raises(ModelError, match="rows with answers"):
        QuestionLookup.fit(ROWS[-1:])

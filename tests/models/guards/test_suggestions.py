"""What is offered in place of a question that is not answered, and which alternatives are listed."""

import dataclasses

import numpy as np
from PIL import Image

from medical_vqa.models.base import Query
from medical_vqa.models.guards.alternatives import listed_alternatives
from medical_vqa.models.guards.guard import Guards
from medical_vqa.models.guards.suggestions import suggested_questions
from medical_vqa.models.questions.bank import QuestionBank
from medical_vqa.schema.bundle_card import BundleCard, ConfidenceCalibration
from medical_vqa.schema.records import Example, Prediction


def row(number, question, answer, content_type):
    return Example(str(number), f"image{number}", question, (answer,), "", {"content_type": content_type})


ROWS = [
    row(1, "Are there abnormalities in this image?", "Yes", "Abnormality"),
    row(2, "Are there abnormalities in this image?", "No", "Abnormality"),
    row(3, "Where is the abnormality located?", "Left Lung", "Abnormality"),
    row(4, "What color is the liver?", "Gray", "Color"),
    row(5, "What color is the lung?", "Black", "Color"),
    row(6, "How many lungs are there?", "2", "Quantity"),
    row(7, "What is the scanning plane of this image?", "Transverse Plane", "Plane"),
    row(8, "In what plane is this image scanned?", "Coronal Plane", "Plane"),
    row(9, "Where is the liver?", "Left", "Position"),
    row(10, "肺是异常的吗?", "是的", "Abnormality"),
]
BANK = QuestionBank.from_examples(ROWS)
QUERY = Query("1", "Is there a fracture?", "image", np.zeros((1, 1, 1), np.uint8))


def everything(queries):
    return [True] * len(queries)


def test_the_questions_nearest_in_meaning_come_first():
    assert BANK.nearest("Is there a fracture?", 1) == ["Are there abnormalities in this image?"]
    assert BANK.nearest("Is this a PA film?", 2) == [
        "In what plane is this image scanned?",
        "What is the scanning plane of this image?",
    ]
    assert BANK.nearest("What is the shade of hepatic tissue?", 1) == ["What color is the liver?"]


def test_questions_are_offered_in_the_language_of_the_question():
    assert BANK.nearest("有骨折吗", 3) == ["肺是异常的吗?"]


def test_nothing_is_offered_where_no_word_of_content_is_shared():
    assert BANK.nearest("Tell me a joke", 3) == []


def test_only_questions_that_are_answered_are_offered_and_at_most_three():
    def refuse_where(queries):
        return [not query.question.startswith("Are") for query in queries]

    assert suggested_questions(BANK, QUERY, everything)[0] == "Are there abnormalities in this image?"
    assert "Are there abnormalities in this image?" not in suggested_questions(BANK, QUERY, refuse_where)
    long = dataclasses.replace(QUERY, question="color plane liver lung abnormality fracture gallbladder")
    assert len(suggested_questions(BANK, long, everything)) == 3


def test_the_parts_of_two_questions_are_offered():
    query = dataclasses.replace(QUERY, question="What plane is this? Where is the liver?")
    assert suggested_questions(BANK, query, everything) == ("What plane is this?", "Where is the liver?")
    assert suggested_questions(None, query, everything) == ("What plane is this?", "Where is the liver?")


def test_where_nothing_is_near_the_commonest_questions_that_are_answered_are_offered():
    joke = dataclasses.replace(QUERY, question="Tell me a joke")
    offered = suggested_questions(BANK, joke, everything)
    assert len(offered) == 3
    assert offered[0] == "Are there abnormalities in this image?"
    assert suggested_questions(BANK, joke, lambda queries: [False] * len(queries)) == ()


def test_questions_that_are_known_to_be_withheld_are_not_tried():
    tried = []

    def answered(queries):
        tried.extend(query.question for query in queries)
        return [True] * len(queries)

    suggested_questions(BANK, QUERY, answered, lambda text: "abnormal" not in text)
    assert tried
    assert not any("abnormal" in text for text in tried)


def test_the_question_itself_is_not_offered():
    question = dataclasses.replace(QUERY, question="Where is the liver?")
    assert "Where is the liver?" not in suggested_questions(BANK, question, everything)


def test_a_model_without_training_questions_offers_none():
    assert suggested_questions(None, QUERY, everything) == ()


def test_the_bank_is_the_same_after_reading():
    assert QuestionBank.from_json(BANK.to_json()).questions == BANK.questions
    assert set(BANK.questions[0].answers) == {"yes", "no"}
    assert BANK.questions[0].rows == 2


def listed(question, alternatives, bank=BANK, answer="Yes"):
    prediction = Prediction("1", answer, answer, 0.5, tuple(alternatives))
    return [text for text, _ in listed_alternatives(question, prediction, bank).alternatives]


def test_a_question_for_yes_or_no_lists_no_other_answers():
    alternatives = [("No", 0.2), ("1", 0.1), ("Light grey", 0.1), ("Gray", 0.05)]
    assert listed("Is there a tumor?", alternatives) == ["No"]
    assert listed("Is there a tumor?", alternatives, bank=None) == ["No"]


def test_an_open_question_lists_answers_to_questions_of_its_type_and_form():
    assert listed("What color is the spleen?", [("Black", 0.2), ("2", 0.1), ("Yes", 0.1)], answer="Gray") == ["Black"]
    assert listed("Where is the abnormality?", [("Left Lung", 0.2), ("No", 0.1), ("Left", 0.1)]) == ["Left Lung"]


def test_a_question_like_no_other_lists_answers_of_the_types_of_its_answer():
    assert listed("Blah?", [("Black", 0.2), ("2", 0.1)], answer="Gray") == ["Black"]


def test_improbable_alternatives_are_not_listed():
    assert listed("Is there a tumor?", [("No", 0.019)]) == []
    assert listed("Is there a tumor?", [("No", 0.02)]) == ["No"]


class Model:
    """Knows the questions of the bank, with doubts about two of them."""

    question_bank = BANK
    picture = vision = usage = None
    has_closed_answers = True
    doubtful = ("Where is the abnormality located?",)

    def answer(self, queries, decoding):
        return [
            Prediction(q.id, "Yes", "Yes", 0.1 if q.question in self.doubtful else 0.9, (("No", 0.1), ("2", 0.05)))
            for q in queries
        ]

    def question_as_read(self, question):
        return question

    def question_reason(self, question):
        return None

    def abstention_reason(self, query, prediction):
        return None if any(query.question == known.text for known in BANK.questions) else "I do not know that."


def card():
    calibration = ConfidenceCalibration(temperature=1.0, fitted_on="nothing", risk=0.1, threshold=0.5, coverage=0.8)
    return BundleCard(family="compact", name="m", calibration=calibration)


def decide(question):
    model, query = Model(), dataclasses.replace(QUERY, question=question)
    (guarded,) = Guards(model, card()).answer([query])
    return guarded.prediction, guarded.abstention


def test_an_abstention_carries_questions_that_are_answered_without_abstaining():
    answer, decision = decide("Is there a fracture?")
    assert decision.abstained
    assert decision.suggestions[0] == "Are there abnormalities in this image?"
    assert answer.alternatives == (("No", 0.1),)


def test_an_answer_carries_none():
    assert decide("Are there abnormalities in this image?")[1].suggestions == ()


def test_the_commonest_questions_of_a_language_are_at_most_two_of_each_type():
    assert BANK.commonest(4, chinese=False) == [
        "Are there abnormalities in this image?",
        "How many lungs are there?",
        "In what plane is this image scanned?",
        "What color is the liver?",
    ]
    assert len(BANK.commonest(20, chinese=False)) == 8  # all of them: no type has three
    assert BANK.commonest(4, chinese=True) == ["肺是异常的吗?"]


def test_a_training_question_is_tried_once_about_a_picture_and_a_persons_words_are_not_kept(monkeypatch):
    from medical_vqa.data.imaging.preprocessing import prepare_picture
    from medical_vqa.pipelines.load import load

    loaded = load("shipped")
    guards, tried = loaded.guards, []
    monkeypatch.setattr(
        guards, "are_answered", lambda queries, _: tried.extend(q.question for q in queries) or [True] * len(queries)
    )
    spec = loaded.model.picture
    noise = np.random.default_rng(0).integers(0, 255, (2, 64, 64), np.uint8)
    first, second = (prepare_picture(Image.fromarray(pixels), spec) for pixels in noise)

    def offer(visual, question="What modality is used to take this image?", image="a"):
        return guards.can_be_offered([Query("1", question, image, visual)], None)

    assert offer(first) == offer(first) == [True]
    assert len(tried) == 1
    offer(second)  # another picture under the same name
    offer(first, image="b")  # the same picture of somebody else
    assert len(tried) == 3
    guards.forget("a")
    offer(first)
    assert len(tried) == 4
    offer(first, "What about my scan of Tuesday?")
    offer(first, "What about my scan of Tuesday?")
    assert len(tried) == 6

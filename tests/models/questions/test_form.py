"""Forms of questions: yes or no, several in one, follow-ups, reasons."""

import pytest

from medical_vqa.models.questions.form import (
    asks_openly,
    asks_why,
    asks_yes_or_no,
    completed_follow_up,
    follow_up_topic,
    form_reason,
    questions_in,
)


@pytest.mark.parametrize(
    ("question", "closed"),
    [
        ("Is there a tumor?", True),
        ("Does the picture contain liver?", True),
        ("Is/Are there abnormalities in the patient's left lung?", True),
        ("Is it normal or not?", True),
        ("Is this a T1 weighted or T2 weighted MRI image?", False),
        ("Where is the liver?", False),
        ("肺是健康的吗?", True),
        ("图中有什么器官?", False),
        ("这张图片的成像方式是什么?", False),  # ends in 么, as questions for yes or no do
        ("这是CT么?", True),
        ("Please tell me whether this is a CT.", True),
        ("Can you tell me which organ is shown?", False),
        ("Does the picture contain the organ which digests food?", True),
    ],
)
def test_which_questions_are_answered_by_yes_or_no(question, closed):
    assert asks_yes_or_no(question) is closed


@pytest.mark.parametrize(
    ("text", "questions"),
    [
        ("What modality is this? Which organ?", ["What modality is this?", "Which organ?"]),
        ("What modality is this?", ["What modality is this?"]),
        ("What is this??", ["What is this??"]),
        ("Really? Where is the liver?", ["Really? Where is the liver?"]),
        ("这是什么？有异常吗？", ["这是什么？", "有异常吗？"]),
    ],
)
def test_a_text_with_two_whole_questions_is_two(text, questions):
    assert questions_in(text) == questions


@pytest.mark.parametrize(
    ("question", "topic"),
    [
        ("and the spleen?", "spleen"),
        ("What about the left lung?", "left lung"),
        ("And is the spleen healthy?", None),
        ("Is the spleen healthy?", None),
        ("那脾脏呢？", "脾脏"),
    ],
)
def test_a_follow_up_without_a_verb_names_its_topic(question, topic):
    assert follow_up_topic(question) == topic


def test_a_follow_up_repeats_the_question_before_it():
    def entity_in(text):
        return next((name for name in ("liver", "spleen", "lung") if name in text), None)

    assert completed_follow_up("and the spleen?", "Is the liver healthy?", entity_in) == "Is the spleen healthy?"
    assert completed_follow_up("and the lung?", "Where is the liver?", entity_in) == "Where is the lung?"
    assert completed_follow_up("and the zebra?", "Is the liver healthy?", entity_in) == "and the zebra?"
    assert completed_follow_up("and the spleen?", "What plane is this?", entity_in) == "and the spleen?"
    assert completed_follow_up("Where is it?", "Is the liver healthy?", entity_in) == "Where is it?"


@pytest.mark.parametrize(
    ("question", "openly"),
    [
        ("Which organ is shown?", True),
        ("Name the modality.", True),
        ("Please identify the plane", True),
        ("Is this a CT or an MRI?", True),
        ("Can you tell me what modality this is?", True),
        ("这是CT还是核磁共振?", True),
        ("图片中最大的器官是什么?", True),
        ("Is this a CT?", False),
        ("Is it a CT or not?", False),
        ("This is a CT.", False),
        ("图中有什么异常吗?", False),
    ],
)
def test_which_questions_are_not_answered_by_yes_or_no(question, openly):
    assert asks_openly(question) is openly


@pytest.mark.parametrize("question", ["Why?", "why is that", "And why?", "How do you know?", "为什么？"])
def test_questions_for_a_reason(question):
    assert asks_why(question)
    assert "cannot say why" in form_reason(question)


@pytest.mark.parametrize(
    "question",
    ["Describe the image", "Please describe this chest x-ray.", "What does this image show?", "What do you see?",
     "Write a report", "Give me a short impression", "Summarise the findings", "What can you see in this scan?",
     "请描述这张图片", "写一份报告"],
)  # fmt: skip
def test_descriptions_are_declined_as_such(question):
    assert form_reason(question).code == "asks_description"


@pytest.mark.parametrize(
    "question",
    ["What organ does this image show?", "Does this image show the liver?", "What does the report say?",
     "Which part of the body do you see?", "What do the kidneys look like?"],
)  # fmt: skip
def test_questions_about_one_thing_are_no_descriptions(question):
    assert form_reason(question) is None


@pytest.mark.parametrize(
    ("question", "negation"),
    [("Is there no pneumothorax?", "no"), ("Isn't there an effusion?", "n't"), ("Doesn’t it show the liver?", "n’t"),
     ("Is this not a CT?", "not"), ("Is the lung without a mass?", "without"), ("This is not an MRI, is it?", "not"),
     ("Is this anything but an MRI?", "anything but"), ("Which organ is not visible?", "not"),
     ("Is the modality other than CT?", "other than"), ("Is the liver absent?", "absent"), ("No tumor?", "no"),
     ("图中没有肝脏吗?", "没有"), ("这不是CT吗?", "不")],
)  # fmt: skip
def test_a_negated_question_is_declined_with_its_negation(question, negation):
    reason = form_reason(question)
    assert reason.code == "negated_question"
    assert reason.arguments == {"negation": repr(negation)}


@pytest.mark.parametrize(
    "question",
    ["Is the liver not healthy?", "Is the lung normal or not?", "Is it a CT or not a CT?", "What is not normal?",
     "This is a CT, isn't it?", "这是不是CT?", "图中有没有肝脏?", "肝脏大不大?", "肺看起来不正常吗?",
     "图中肺不张位于肺的哪个部位?"],
)  # fmt: skip
def test_other_negations_are_left_to_the_claims(question):
    assert form_reason(question) is None


def test_forms_that_a_closed_list_cannot_answer():
    assert form_reason("What modality is this? Which organ?") == "These are 2 questions; ask one at a time."
    assert "'spleen'; ask a whole question" in form_reason("and the spleen?")
    assert form_reason("Where is the spleen?") is None


@pytest.mark.parametrize(
    ("question", "several"),
    [
        ("Is there a lung in this image and is it black?", True),
        ("Where is the liver, and how big is it?", True),
        ("Is the liver or the spleen larger?", False),
        ("Does the picture contain lung and heart?", False),
        ("Which is bigger in this image, kidney or liver?", False),
    ],
)
def test_questions_that_a_word_joins_are_several(question, several):
    reason = form_reason(question)
    assert (reason is not None and reason.code == "several_questions") is several

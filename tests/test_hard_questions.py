"""Pictures and questions at the edge, with the shipped model: an answer or one sentence, in Python and the command."""

import json

import numpy as np
import pytest
from PIL import Image

import medical_vqa as mv
from medical_vqa.pipelines.bundles import shipped_bundle

SAMPLE = shipped_bundle().parent / "slake-mini/imgs"
LIVER = SAMPLE / "xmlab22/source.jpg"
HEAD = SAMPLE / "xmlab438/source.jpg"
KNOWN = "Does the picture contain liver? "
TOO_MANY_WORDS = ("Does the picture contain liver and lung and heart " * 20)[:999] + "?"
QUESTIONS = {
    "known words": KNOWN * 20,
    "one word": "a" * 1000,
    "a thousand characters": TOO_MANY_WORDS,
    "Chinese organ": "Does the picture contain 肝脏?",
    "Chinese sentence": "这张图片 contains liver吗?",
    "Chinese verb": "Is the liver 健康吗?",
    "Cyrillic": "где liver?",
}
YES_NO = {"yes", "no", "是", "否", "是的", "不是", "包含", "不包含", "有", "没有", "健康", "不健康", "正常", "不正常"}


@pytest.fixture(scope="module")
def model():
    with mv.load("shipped") as model:
        yield model


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS.keys())
def test_a_hard_question_gets_an_answer_or_one_short_sentence(model, question):
    answer = model.ask(LIVER, question)
    assert answer.text
    if answer.abstained:
        assert 20 < len(answer.reason) < 300
        assert "\n" not in answer.reason
        assert answer.reason_code


def test_words_beyond_those_that_the_model_reads_are_not_passed_over(model):
    answer = model.ask(LIVER, TOO_MANY_WORDS)
    assert (answer.abstained, answer.reason_code) == (True, "question_too_long")
    assert answer.reason_arguments["limit"] == "32"


def test_an_organ_in_the_other_language_is_understood(model):
    answer = model.ask(LIVER, QUESTIONS["Chinese organ"])
    assert (answer.abstained, answer.text) == (False, "Yes")
    assert [item.name for item in answer.evidence] == ["Liver"]


def test_a_question_of_more_than_a_thousand_characters_is_one_sentence(model):
    with pytest.raises(mv.MedicalVqaError, match="1,001 characters; at most 1,000"):
        model.ask(LIVER, "a" * 1001)


def channels(blue):
    gray = np.asarray(Image.open(LIVER).convert("L"))
    return np.stack([gray, gray, gray if blue is None else np.full_like(gray, blue)], -1)


@pytest.mark.parametrize("value", [0, 255])
def test_a_picture_with_one_constant_channel_is_no_radiology_picture(model, tmp_path, value):
    Image.fromarray(channels(value)).save(tmp_path / "channel.png")
    answer = model.ask(tmp_path / "channel.png", KNOWN)
    assert (answer.abstained, answer.reason_code) == (True, "not_radiology_colors")


def test_a_constant_transparency_is_no_reason(model, tmp_path):
    gray = channels(None)
    Image.fromarray(np.concatenate([gray, np.full_like(gray[..., :1], 255)], -1)).save(tmp_path / "opaque.png")
    assert not model.ask(tmp_path / "opaque.png", KNOWN).abstained


@pytest.mark.parametrize("question", ["Is there a tumor?", "Is the liver healthy?", "这张图片 contains liver吗?"])
def test_alternatives_to_a_yes_or_no_are_a_yes_or_no_above_two_per_cent(model, question):
    for picture in ("xmlab22", "xmlab121", "xmlab394"):
        for text, probability in model.ask(SAMPLE / picture / "source.jpg", question).alternatives:
            assert text.lower() in YES_NO
            assert probability >= 0.02


def test_the_left_lung_lies_at_the_right_of_the_picture(model):
    answer = model.ask(SAMPLE / "xmlab592/source.jpg", "Does the picture contain lung?")
    positions = {item.name: (item.side, item.position) for item in answer.evidence}
    assert positions == {"Left Lung": ("patient", "right"), "Right Lung": ("patient", "left")}


@pytest.mark.parametrize("name", ["a thousand characters", "Chinese sentence", "one word"])
def test_the_command_prints_the_same_and_exits_without_a_traceback(model, call, name):
    code, out, err = call("ask", LIVER, QUESTIONS[name], "--model", "shipped", "--json")
    assert code == 0, err
    assert json.loads(out.splitlines()[0])["reason"] == model.ask(LIVER, QUESTIONS[name]).reason


def test_the_command_refuses_a_longer_question_with_one_sentence(refused):
    assert "1,001 characters" in refused("ask", LIVER, "a" * 1001, "--model", "shipped")


@pytest.mark.parametrize(
    ("question", "terms"),
    [
        ("How many livers are there?", "the number of 'liver'"),
        ("How many tumors are there in this image?", "the number of 'tumor'"),
        ("Is the liver on the right side of the patient?", "'right side of the patient'"),
    ],
)
def test_counts_and_sides_that_no_training_question_asks_for_are_not_answered_like_those_it_does(
    model, question, terms
):
    answer = model.ask(LIVER, question)
    assert (answer.abstained, answer.reason_code) == (True, "untrained_term")
    assert answer.reason_arguments["terms"] == terms


def test_organs_that_training_questions_count_are_counted(model):
    assert model.ask(LIVER, "How many kidneys in this image?").reason_code != "untrained_term"


@pytest.mark.parametrize(
    "question",
    [
        "How to prevent the occurrence of the disease on the lower left lobe of lung in this image?",
        "What kind of symptoms will the disease on the right of chest bring to the patient?",
        "如何治疗位于图中肺部左侧的疾病?",
    ],
)
def test_the_disease_of_an_organ_that_the_picture_cannot_show_has_no_treatment(model, question):
    answer = model.ask(HEAD, question)
    assert (answer.abstained, answer.reason_code) == (True, "organ_not_in_image_type")


def sample_pictures() -> dict[str, tuple[str, str]]:
    """Every twelfth picture of the sample -> its modality and location, as published."""
    rows = json.loads((SAMPLE.parent / "validation.json").read_text(encoding="utf-8"))
    rows += json.loads((SAMPLE.parent / "train.json").read_text(encoding="utf-8"))
    known = {row["img_name"].split("/")[0]: (row["modality"], row["location"]) for row in rows}
    return dict(sorted(known.items())[::12])


@pytest.mark.parametrize("picture", sample_pictures())
def test_what_kind_a_picture_is_has_one_answer_in_all_words(model, picture):
    modality, location = sample_pictures()[picture]
    part = {"Lung": "chest", "Chest": "chest", "Abdomen": "abdomen", "Neck": "neck", "Pelvic": "pelvis"}
    shown = part.get(location.split("_")[0].split(" ")[0], "head")
    questions = {
        f"{form} {name}?": "Yes" if name.split()[-1] == modality else "No"
        for form in ("Is this", "Is it", "Is the image")
        for name in ("a CT", "an MRI", "an X-Ray")
    } | {
        form.format(name): "Yes" if name == shown else "No"
        for form in ("Is this the {}?", "Is this a picture of the {}?", "Is this a study of the {}?")
        for name in ("chest", "abdomen", "neck", "pelvis")
    }
    answers = model.ask_many(SAMPLE / picture / "source.jpg", list(questions))
    given = {answer.question: answer.text for answer in answers if not answer.abstained}
    assert len(given) >= 6
    assert given == {question: questions[question] for question in given}


@pytest.mark.parametrize("picture", sample_pictures())
def test_whether_a_picture_shows_an_organ_has_one_answer_in_all_words(model, picture):
    forms = ("Does the picture contain {}?", "Is the {} visible?", "Is the {} shown?", "Is there a {} in this image?")
    for organ in ("liver", "heart", "lung", "kidney", "spleen"):
        answers = model.ask_many(SAMPLE / picture / "source.jpg", [form.format(organ) for form in forms])
        assert len({answer.text for answer in answers if not answer.abstained}) <= 1


MODALITY = "What modality is used to take this image?"
KIND_WORDINGS = (
    "Please tell me whether this is {}.",
    "This is {}, right?",
    "{}?",
    "Do you think this is {}?",
    "Was the patient scanned with {}?",
    "Does this picture come from {}?",
    "IS THSI {}",
    "请问这是{}吗?",
)


@pytest.mark.parametrize("picture", sample_pictures())
def test_politeness_typing_errors_and_statements_change_no_answer_about_the_kind(model, picture):
    modality, _ = sample_pictures()[picture]
    names = {"CT": "a CT scan", "MRI": "an MR image", "X-Ray": "an X-Ray"}
    asked = {form.format(name): kind for form in KIND_WORDINGS for kind, name in names.items()}
    asked |= {f"请问这张片子是{kind}吗?": kind for kind in names}
    right = {question: kind == modality for question, kind in asked.items()}
    answers = model.ask_many(SAMPLE / picture / "source.jpg", list(asked))
    given = {answer.question: answer.text in ("Yes", "是的") for answer in answers if not answer.abstained}
    assert len(given) >= 10 or model.ask(SAMPLE / picture / "source.jpg", MODALITY).abstained
    assert given == {question: right[question] for question in given}


@pytest.mark.parametrize("picture", sample_pictures())
def test_a_choice_between_kinds_is_answered_by_the_right_one_or_not_at_all(model, picture):
    modality, _ = sample_pictures()[picture]
    kinds = ("CT", "MRI", "X-Ray")
    forms = ("{} or {}?", "Is this a {} or a {}?", "Was this image taken by {} or {}?", "这是{}还是{}?")
    asked = {
        form.format(one, other): {one, other} for form in forms for one in kinds for other in kinds if one != other
    }
    answers = model.ask_many(SAMPLE / picture / "source.jpg", list(asked))
    given = {answer.question: answer.text for answer in answers if not answer.abstained}
    assert given or model.ask(SAMPLE / picture / "source.jpg", MODALITY).abstained
    assert set(given.values()) <= {modality, {"CT": "CT", "MRI": "核磁共振", "X-Ray": "X光"}[modality]}
    assert all(modality in asked[question] for question in given)


@pytest.mark.parametrize("picture", sample_pictures())
def test_only_magnetic_resonance_imaging_is_weighted(model, picture):
    modality = model.ask(SAMPLE / picture / "source.jpg", MODALITY).text
    asked = ("Is this T1 weighted?", "Is this T2 weighted?", "Is the sequence T1?", "这是T1加权的核磁共振图像吗?",
             "T1 or T2?", "What is the weighting?")  # fmt: skip
    answers = {one.question: one for one in model.ask_many(SAMPLE / picture / "source.jpg", list(asked))}
    given = {question: one.text for question, one in answers.items() if not one.abstained}
    if modality != "MRI":
        assert set(given.values()) <= {"No", "不是"}
    elif {"Is this T1 weighted?", "Is this T2 weighted?"} <= set(given):
        assert given["Is this T1 weighted?"] != given["Is this T2 weighted?"]


@pytest.mark.parametrize("picture", sample_pictures())
def test_a_question_about_a_picture_of_another_kind_is_not_answered(model, picture):
    modality = model.ask(SAMPLE / picture / "source.jpg", MODALITY).text
    forms = ("What plane is this {}?", "In this {}, is the liver visible?", "What is the largest organ in this {}?")
    asked = {form.format(kind): kind for form in forms for kind in ("CT", "MRI", "X-Ray")}
    answers = model.ask_many(SAMPLE / picture / "source.jpg", list(asked))
    given = {answer.question for answer in answers if not answer.abstained}
    assert not {question for question in given if asked[question] != modality and "visible" not in question}
    assert any(asked[question] == modality for question in given)


@pytest.mark.parametrize("picture", sample_pictures())
def test_a_yes_or_no_follows_from_the_answer_to_the_open_question(model, picture):
    colors, organs = ("black", "white", "gray"), ("liver", "lung", "brain", "heart")
    asked = {
        f"Is the {organ} the largest organ?": ("What is the largest organ in the picture?", organ) for organ in organs
    }
    asked |= {f"Is the lung {color}?": ("What color is the lung in the picture?", color) for color in colors}
    asked |= {f"Do you see {number} kidneys?": ("How many kidneys in this image?", number) for number in "0123"}
    asked |= {f"Is the liver on the {side}?": ("Where is the liver?", side) for side in ("left", "right")}
    for one, other in (("liver", "spleen"), ("heart", "lung"), ("liver", "kidney")):
        larger = f"Which is bigger in this image, {one} or {other}?"
        asked |= {f"Is the {one} bigger than the {other}?": (larger, one)}
        asked |= {f"Is the {one} smaller than the {other}?": (larger, other)}
    texts = [*asked, *{open_question for open_question, _ in asked.values()}]
    answers = {one.question: one for one in model.ask_many(SAMPLE / picture / "source.jpg", texts)}
    given = {question: answers[question].text for question in asked if not answers[question].abstained}
    assert given or picture == "xmlab490"  # a neck, of which the model is sure of none
    for question, text in given.items():
        open_question, value = asked[question]
        assert text == ("Yes" if value in answers[open_question].text.lower().split() else "No"), question


@pytest.mark.parametrize("picture", sample_pictures())
def test_a_question_gets_an_answer_of_the_form_that_it_asks_for(model, picture):
    closed = ["Is the body part the chest?", "Is the liver the largest organ in the picture?", "Is the lung black?"]
    openly = ["Identify the imaging modality used.", "Which organ is the largest?", "Locate the heart.",
              "Name the plane.", "Can you tell me what plane this is?", "Is this CT, MRI or X-ray?"]  # fmt: skip
    answers = model.ask_many(SAMPLE / picture / "source.jpg", [*closed, *openly])
    given = {answer.question: answer.text.lower() for answer in answers if not answer.abstained}
    assert all((text in YES_NO) is (question in closed) for question, text in given.items())


@pytest.mark.parametrize("picture", sample_pictures())
def test_the_smaller_of_two_organs_is_not_the_larger(model, picture):
    for one, other in (("heart", "lung"), ("liver", "lung"), ("liver", "spleen")):
        texts = [f"Which is {size}, {one} or {other}?" for size in ("bigger", "smaller")]
        larger, smaller = model.ask_many(SAMPLE / picture / "source.jpg", texts)
        assert smaller.abstained or smaller.text != larger.text


def test_what_belongs_to_an_organ_system_is_not_answered_from_the_picture(model):
    for organ, system in (("heart", "digestive"), ("lung", "respiratory"), ("kidney", "urinary")):
        answer = model.ask(LIVER, f"Does the {organ} belong to the {system} system?")
        assert (answer.abstained, answer.reason_code) == (True, "untrained_term")


@pytest.mark.parametrize(
    "question",
    ["Is this anything but an MRI?", "This is not an MRI, is it?", "Is the liver absent?",
     "Does the picture lack a liver?", "图片中不包含肝脏吗?", "图中没有肝脏吗?", "Is the modality other than CT?"],
)  # fmt: skip
def test_a_question_that_denies_is_declined(model, question):
    assert model.ask(LIVER, question).reason_code == "negated_question"


@pytest.mark.parametrize(
    "question",
    [
        "Where was this image taken?",
        "where was this taken",
        "From where does this picture come?",
        "这张图片是在哪里拍的?",
    ],
)
def test_where_in_the_world_a_picture_was_taken_is_declined(model, question):
    for picture in (LIVER, HEAD):
        answer = model.ask(picture, question)
        assert (answer.reason_code, answer.reason_arguments["terms"]) == (
            "untrained_term",
            "where a picture was taken",
        )


@pytest.mark.parametrize(
    "question",
    [
        "left or right?",
        "Which side is it on?",
        "how many",
        "color?",
        "Where is it?",
        "What is this?",
        "在哪里?",
        "什么颜色?",
    ],
)
def test_a_question_that_names_nothing_is_declined(model, question):
    for picture in (LIVER, HEAD):
        assert model.ask(picture, question).reason_code == "missing_subject"


@pytest.mark.parametrize(
    ("question", "topic"),
    [("How many slices?", "slice"), ("How many patients are there?", "patient"), ("图中有多少个病人?", "病人"),
     ("How many kidneys and lungs?", "kidney and lung")],
)  # fmt: skip
def test_what_no_training_question_counts_is_not_counted(model, question, topic):
    for picture in (LIVER, HEAD):
        answer = model.ask(picture, question)
        assert (answer.reason_code, answer.reason_arguments["terms"]) == ("untrained_term", f"the number of {topic!r}")


@pytest.mark.parametrize("picture", sample_pictures())
def test_a_question_for_the_weighting_is_answered_by_one_or_not_at_all(model, picture):
    wordings = ("Which sequence is this?", "MR weighting?", "pulse sequence", "sequence?", "这是什么序列?")
    weighting, modality, *answers = model.ask_many(
        SAMPLE / picture / "source.jpg", ["What is the mr weighting in this image?", MODALITY, *wordings]
    )
    for answer in answers:
        if modality.text == "MRI":
            assert answer.abstained or answer.text == weighting.text
        else:
            assert answer.reason_code == "other_answer_excludes"
            assert answer.reason_arguments["other_answer"] in (modality.text, "X光")


@pytest.mark.parametrize("picture", sample_pictures())
def test_the_largest_organ_of_a_picture_is_in_it_in_all_words(model, picture):
    organs = ("brain", "lung", "liver", "heart")
    forms = ("{}?", "{}", "Is this the {}?", "Is this a {}?", "Is the {} visible?")
    asked = {form.format(organ): organ for organ in organs for form in forms}
    largest, *answers = model.ask_many(
        SAMPLE / picture / "source.jpg", ["What is the largest organ in the picture?", *asked]
    )
    given = {answer.question: answer.text for answer in answers if not answer.abstained}
    assert len(given) >= (10 if not largest.abstained else 5)
    assert set(given.values()) <= {"Yes", "No"}
    if not largest.abstained:
        assert not {q for q, text in given.items() if text == "No" and asked[q] == largest.text.lower()}
        assert largest.text.lower() not in organs or given[f"Is this the {largest.text.lower()}?"] == "Yes"


@pytest.mark.parametrize("picture", sample_pictures())
def test_keywords_ask_for_what_they_name(model, picture):
    forms = {
        "liver location": ("left", "right", "top", "bottom", "upper", "lower", "center"),
        "color of the lung": ("black", "white", "gray", "grey"),
        "kidneys number": tuple("0123456"),
        "function of the liver": ("biotransformation", "detoxification"),
        "is the liver on the left or on the right?": ("left", "right", "both"),
        "scan type": ("ct", "mri", "x-ray"),
        "plane of this image": ("transverse", "coronal"),
    }
    for answer in model.ask_many(SAMPLE / picture / "source.jpg", list(forms)):
        assert answer.abstained or any(word in answer.text.lower() for word in forms[answer.question]), answer


TYPED = {
    "Is there a pneumonthorax?": "Is there a pneumothorax?",
    "Is there pnuemonia?": "Is there pneumonia?",
    "Is there a tumer?": "Is there a tumor?",
    "Is there cardiomegally?": "Is there cardiomegaly?",
    "Is the lung helthy?": "Is the lung healthy?",
    "Is the liver abnormall?": "Is the liver abnormal?",
    "Where is the spleeen?": "Where is the spleen?",
}


@pytest.mark.parametrize("picture", sample_pictures())
def test_a_typing_error_opens_no_way_past_the_guards(model, picture):
    texts = [text for pair in TYPED.items() for text in pair]
    answers = {answer.question: answer for answer in model.ask_many(SAMPLE / picture / "source.jpg", texts)}
    for typed, meant in TYPED.items():
        assert answers[typed].abstained or answers[typed].text == answers[meant].text, typed
        assert answers[typed].abstained >= answers[meant].abstained, typed


@pytest.mark.parametrize("picture", sample_pictures())
def test_a_keyword_affirms_no_organ_that_the_picture_cannot_show(model, picture):
    _, location = sample_pictures()[picture]
    asked = ("Left lung visible?", "liver visible here", "lungs?", "liver") if location.startswith("Brain") else ()
    for answer in model.ask_many(SAMPLE / picture / "source.jpg", [*asked, MODALITY]):
        assert answer.abstained or answer.text != "Yes"


@pytest.mark.parametrize("picture", sample_pictures())
def test_several_organs_are_there_where_each_is(model, picture):
    for one, other in (("liver", "spleen"), ("heart", "lung"), ("liver", "kidney")):
        texts = [f"Does the picture contain {organ}?" for organ in (one, other)]
        texts += [f"Are the {one} and {other} visible?", f"Does it show {one} and {other}?"]
        first, second, *together = model.ask_many(SAMPLE / picture / "source.jpg", texts)
        both = "Yes" if (first.text, second.text) == ("Yes", "Yes") else "No"
        assert {answer.text for answer in together if not answer.abstained} <= {both}


@pytest.mark.parametrize("picture", sample_pictures())
def test_short_chinese_questions_are_guarded_as_long_ones(model, picture):
    texts = [
        "图片中包含肝脏吗?",
        "肝在哪",
        "肝脏颜色",
        "这是肝吗",
        "这张图片的成像方式是什么?",
        "T1还是T2",
        "哪个肺更大",
    ]
    contains, *about, modality, weighting, side = model.ask_many(SAMPLE / picture / "source.jpg", texts)
    if contains.text in ("不包含", "不包括", "没有"):
        assert all(answer.abstained or answer.text == "不是" for answer in about)
    assert weighting.abstained or modality.text in ("MRI", "核磁共振")
    assert side.abstained or side.text != "肺"


def test_the_quality_of_a_picture_is_not_answered(model):
    assert model.ask(LIVER, "Is the image good?").reason_code == "untrained_term"
    assert model.ask(LIVER, "non-CT?").reason_code == "negated_question"


@pytest.mark.parametrize(
    "question",
    ["Is there blood present?", "Is there gas?", "Is there gastric fullness?", "How many organs are on the left?",
     "What is an MRI?"],
)  # fmt: skip
def test_what_training_never_asked_for_is_not_said_to_be_there_or_not(model, question):
    for picture in (LIVER, HEAD):
        assert model.ask(picture, question).reason_code in ("untrained_term", "untrained_terms")


@pytest.mark.parametrize("picture", sample_pictures())
def test_a_count_of_what_is_abnormal_and_a_density_are_guarded(model, picture):
    lungs, density = model.ask_many(
        SAMPLE / picture / "source.jpg", ["How many lungs are abnormal?", "What is/are the density of abnormality?"]
    )
    assert lungs.abstained or lungs.text == "0"
    assert density.abstained or "dense" in density.text

"""Every answer passes the guards: a fake model whose answers are a table shows what each guard withholds."""

from dataclasses import replace

import numpy as np
import pytest

from medical_vqa.data.imaging.picture_statistics import PictureContext, PictureStatistics
from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.errors import BundleError
from medical_vqa.models.base import Query
from medical_vqa.models.guards.alternatives import of_asked_form
from medical_vqa.models.guards.answer_checks import related_decision
from medical_vqa.models.guards.contradiction import contradict, disagreement, opposite, related_questions
from medical_vqa.models.guards.guard import Guards
from medical_vqa.models.guards.pictures.image_dependence import without_content
from medical_vqa.models.guards.pictures.picture import ReferenceFeatures, visual_features
from medical_vqa.models.guards.pictures.reference import ARRAYS_FILE, ReferenceSet, reference_pictures
from medical_vqa.models.guards.reasons import SENTENCES
from medical_vqa.models.guards.related_answers import stated_body_part
from medical_vqa.models.guards.reliability import area_under_roc, reliability_rows
from medical_vqa.models.guards.sides import meant_side
from medical_vqa.models.questions.bank import QuestionBank, TrainingQuestion
from medical_vqa.schema.bundle_card import BundleCard, ConfidenceCalibration, TypeReliability
from medical_vqa.schema.records import Example, Prediction

GOOD = PictureStatistics(contrast=200, saturation=0, entropy=5, outside_common_levels=0.5)
CARD = BundleCard(
    family="fake",
    name="fake",
    calibration=ConfidenceCalibration(temperature=1.0, fitted_on="rows", risk=0.1, threshold=0.5),
)


class Vision:
    """Tokens are the picture's mean and twice its mean."""

    frozen = False

    def encode(self, pictures):
        means = [float(picture.mean()) for picture in pictures]
        return [{"tokens": np.array([[mean, 2 * mean], [mean, 2 * mean]], np.float32)} for mean in means]


class Fake:
    """Answers by (question, how bright the picture is); yes, or something, with 0.9 where the table says nothing."""

    family, picture, vision, question_bank = "fake", PictureSpec(8, "L", "stretch"), Vision(), None
    has_closed_answers = True
    usage = None

    def __init__(self, **answers):
        self.answers = {key.replace("_", " "): value for key, value in answers.items()}
        self.batches = []

    def answer(self, queries, decoding):
        self.batches.append(len(queries))
        predictions = []
        for query in queries:
            bright = query.visual["tokens"][0, 0] > 128
            usual = "Something" if query.question.lower().startswith("wh") else "Yes"
            text = self.answers.get(query.question.strip("?").lower(), usual)
            text = text if isinstance(text, str) else text[int(bright)]
            other = "No" if text == "Yes" else "Yes"
            predictions.append(Prediction(query.id, text, text, 0.9, ((other, 0.1),)))
        return predictions

    def question_as_read(self, question):
        return question.replace("effusoin", "effusion")

    def question_reason(self, question):
        return "I do not know the word zxqv." if "zxqv" in question else None

    def abstention_reason(self, query, prediction):
        return self.question_reason(query.question)

    def localizations(self, query, prediction):
        return []


def effusion_where_bright():
    wordings = ("is_there_an_effusion", "does_the_patient_have_effusion", "can_effusion_be_observed_in_this_picture")
    return Fake(**dict.fromkeys(wordings, ("No", "Yes")))


def picture(value):
    return np.full((8, 8, 1), value, np.uint8)


def reference(**changes):
    rng = np.random.default_rng(0)
    tokens = Vision().encode([picture(value) for value in rng.integers(60, 200, 40)])
    features = np.stack([np.concatenate([t["tokens"].mean(0), t["tokens"].std(0)]) for t in tokens])
    values = {
        "features": ReferenceFeatures.fit(features.astype(np.float32)),
        "point_types": np.zeros(40, np.int16),
        "image_types": ("X-Ray, Lung",),
        "pictures": {"X-Ray, Lung": tuple(picture(value) for value in (60, 80, 100, 150, 170, 190))},
        "modalities": ("CT", "X-Ray"),
        "question_types": {
            "is lung healthy": "Abnormality",
            "which organ is this": "Organ",
            "what does liver do": "KG",
            "what modality is used": "Modality",
        },
        "findings": ("effusion", "pleural effusion"),
    }
    return ReferenceSet(**(values | changes))


def ask(model, *questions, value=120, context=None, card=CARD, references=None):
    guards = Guards(model, card, references)
    queries = [Query(f"q{n}", question, "image", picture(value)) for n, question in enumerate(questions)]
    return guards.answer(queries, {"image": context or PictureContext(GOOD)})


def test_an_answer_that_nothing_speaks_against_is_shown_with_its_source():
    (answer,) = ask(Fake(which_organ_is_this=("Lung", "Liver")), "Which organ is this?", references=reference())
    assert not answer.abstention.abstained
    assert (answer.prediction.answer, answer.source) == ("Lung", "picture")
    assert answer.dependence.references == 6
    assert answer.dependence.score == pytest.approx(0.5 * 0.95, abs=0.06)  # half of the pictures are bright


def test_an_answer_that_every_picture_gets_is_named_as_usual_or_as_knowledge():
    usual, knowledge = ask(Fake(), "Which organ is this?", "What does the liver do?", references=reference())
    assert (usual.source, knowledge.source) == ("usual", "knowledge")
    assert not usual.abstention.abstained and not knowledge.abstention.abstained


@pytest.mark.parametrize(
    "question",
    ["Is there an effusion?", "Are there pleural effusions?", "Is the lung healthy?", "Is there an effusoin?"],
)
def test_a_finding_question_whose_answer_no_picture_changes_is_withheld(question):
    model = Fake(is_the_lung_unhealthy="No", is_the_lung_abnormal="No")
    (answer,) = ask(model, question, references=reference())
    assert answer.abstention.code == "picture_does_not_matter"


def test_a_finding_question_whose_answer_the_picture_changes_is_shown():
    (answer,) = ask(effusion_where_bright(), "Is there an effusion?", references=reference())
    assert (answer.abstention.abstained, answer.source) == (False, "picture")


def test_a_question_and_its_opposite_with_one_answer_are_both_withheld():
    healthy, unhealthy = ask(Fake(), "Is the lung healthy?", "Is the lung unhealthy?")
    assert healthy.abstention.code == unhealthy.abstention.code == "contradiction"
    assert "Is the lung unhealthy?" in healthy.abstention.reason


def test_the_place_of_an_organ_that_the_model_does_not_see_is_withheld():
    model = Fake(where_is_the_spleen="Left", does_the_picture_contain_spleen="No")
    (answer,) = ask(model, "Where is the spleen?")
    assert answer.abstention.code == "organ_not_seen"
    assert "Does the picture contain spleen?" in answer.abstention.reason
    seen = Fake(where_is_the_spleen="Left", does_the_picture_contain_spleen="Yes")
    assert not ask(seen, "Where is the spleen?")[0].abstention.abstained


def test_an_organ_that_no_training_question_asks_for_may_have_a_place_all_the_same():
    model = Fake(where_is_the_eye="Top", does_the_picture_contain_eye="No")
    texts = ("Where is the eye?", "Does the picture contain spleen?")
    model.question_bank = QuestionBank([TrainingQuestion(text, "Position", 1, ("top",)) for text in texts])
    assert not ask(model, "Where is the eye?")[0].abstention.abstained


def row(name, *, kind="question type", above=False):
    return TypeReliability(
        name=name, kind=kind, questions=27, images=20, accuracy=0.5, baseline_accuracy=0.52,
        difference_low=-0.1, difference_high=0.06, auc=0.51, above_baseline=above,
    )  # fmt: skip


@pytest.mark.parametrize(
    "unreliable", [row("X-Ray, effusion", kind="finding"), row("X-Ray, Abnormality")], ids=["finding", "type"]
)
def test_a_finding_type_that_is_no_better_than_guessing_is_withheld(unreliable):
    model = effusion_where_bright()
    model.answers |= {"is the lung healthy": ("No", "Yes")}
    model.answers |= dict.fromkeys(("is the lung unhealthy", "is the lung abnormal"), ("Yes", "No"))
    question = "Is there an effusion?" if unreliable.kind == "finding" else "Is the lung healthy?"
    card = CARD.model_copy(update={"reliability": (unreliable,)})
    (answer,) = ask(model, question, references=reference(), card=card)
    assert answer.abstention.code == "type_not_reliable"
    assert "AUC 0.51, n=27" in answer.abstention.reason or "n=27, AUC 0.51" in answer.abstention.reason
    at_chance = unreliable.model_copy(update={"difference_low": 0.12, "auc": None})
    card = CARD.model_copy(update={"reliability": (at_chance,)})
    (answer,) = ask(model, question, references=reference(), card=card)
    assert answer.abstention.code == "type_at_chance"  # more often right than the baseline: then that is not the reason
    assert "better than chance, n=27" in answer.abstention.reason and "difference" not in answer.abstention.reason
    shown = card.model_copy(update={"reliability": (unreliable.model_copy(update={"above_baseline": True}),)})
    assert not ask(model, question, references=reference(), card=shown)[0].abstention.abstained


@pytest.mark.parametrize(
    ("context", "code"),
    [
        (PictureContext(PictureStatistics(0, 0, 0, 0)), "constant_picture"),
        (PictureContext(PictureStatistics(200, 90, 5, 0.5)), "not_radiology_colors"),
        (PictureContext(PictureStatistics(200, 0, 0.5, 0.001)), "not_radiology_levels"),
        (PictureContext(GOOD, {"Modality": "US"}), "modality_not_trained"),
        (PictureContext(None, {"Modality": "SEG"}), "modality_not_trained"),
    ],
)
def test_a_picture_that_cannot_be_asked_about_is_refused_whatever_the_question(context, code):
    for answer in ask(Fake(), "Which organ is this?", "Is it zxqv?", context=context, references=reference()):
        assert answer.abstention.code == code
        assert answer.abstention.reason


def test_a_picture_unlike_all_training_pictures_is_refused():
    (answer,) = ask(Fake(), "Which organ is this?", value=255, references=reference())
    assert answer.abstention.code == "not_radiology_features"


@pytest.mark.parametrize(
    ("question", "given", "shown"),
    [
        ("Is this a lung?", ("Lung", (("Yes", 0.3), ("No", 0.2))), ("Yes", 0.3)),
        ("Which organ is this?", ("No", (("Yes", 0.2), ("Lung", 0.1))), ("Lung", 0.1)),
        ("Is it the lung or the liver?", ("Yes", (("Liver", 0.2),)), ("Liver", 0.2)),
        ("Is it the lung or the liver?", ("Yes", (("No", 0.2),)), ("Yes", 0.0)),
        ("图片中包含哪些疾病?", ("无", (("肺炎", 0.2),)), ("无", 0.6)),
        ("Show the lung.", ("Yes", (("Lung", 0.2),)), ("Yes", 0.6)),  # of no known form
    ],
)
def test_an_answer_has_the_form_that_the_question_asks_for(question, given, shown):
    answer, alternatives = given
    prediction = of_asked_form(question, Prediction("1", answer, answer, 0.6, alternatives))
    assert (prediction.answer, prediction.confidence) == shown


def test_a_question_about_a_picture_of_another_kind_is_withheld():
    modality = "What modality is used to take this image?"
    model = Fake(what_modality_is_used_to_take_this_image="CT", which_organ_does_this_mri_show="Liver")
    model.question_bank = QuestionBank([TrainingQuestion(modality, "Modality", 9, ("ct", "mri"))])
    (answer,) = ask(model, "Which organ does this MRI show?", references=reference())
    assert (answer.abstention.code, answer.abstention.arguments) == (
        "other_answer_excludes",
        {"opposite": modality, "other_answer": "CT"},
    )
    assert ask(model, "Which organ does this CT show?", references=reference())[0].abstention.code is None


class LessSure(Fake):
    """A fake that is as sure of every answer as it is told, trained on open and closed questions for modality."""

    def __init__(self, sure, **answers):
        modality = "What modality is used to take this image?"
        closed = ("Is this a CT?", "Is this an MRI?", "Is this a X-Ray?")
        is_ct = {"is_this_a_ct": "Yes", "is_this_an_mri": "No", "is_this_a_x-ray": "No"}
        super().__init__(**({"what_modality_is_used_to_take_this_image": "CT"} | is_ct | answers))
        self.sure = sure
        self.sure_of = {}  # single questions
        self.question_bank = QuestionBank(
            [
                TrainingQuestion(modality, "Modality", 9, ("ct", "mri")),
                *(TrainingQuestion(text, "Modality", 3, ("yes", "no")) for text in closed),
            ]
        )

    def answer(self, queries, decoding):
        return [
            replace(answer, confidence=self.sure_of.get(query.question, self.sure))
            for query, answer in zip(queries, super().answer(queries, decoding), strict=True)
        ]


@pytest.mark.parametrize("question", ["What modality is used to take this image?", "Is this a CT?", "CT or MRI?"])
@pytest.mark.parametrize(
    ("sure", "answers", "against"),
    [
        (0.7, {}, None),
        (0.7, {"is_this_an_mri": "Yes"}, {"opposite": "Is this an MRI?", "other_answer": "Yes"}),
        (0.7, {"is_this_a_ct": "No"}, {"opposite": "Is this a CT?", "other_answer": "No"}),
        (0.95, {"is_this_an_mri": "Yes"}, None),
    ],
)
def test_a_kind_of_which_the_model_is_not_sure_is_shown_where_each_kind_by_itself_confirms_it(
    question, sure, answers, against
):
    (answer,) = ask(LessSure(sure, **answers), question, references=reference())
    assert answer.abstention.code == (None if against is None else "other_answer_excludes")
    assert dict(answer.abstention.arguments) == (against or {})


def test_a_no_to_a_kind_needs_the_no_to_that_kind_by_itself_and_a_yes_to_another_modality():
    model = LessSure(0.7, is_this_an_mri="Yes")
    answers = ask(model, "Is it an X-ray?", "Is it an MRI?", "Is it a CT?", references=reference())
    assert [answer.abstention.abstained for answer in answers] == [False, True, True]
    assert answers[0].prediction.answer == "No"
    (of_no_kind,) = ask(LessSure(0.7, is_this_a_ct="No"), "Is it an X-ray?", references=reference())
    assert dict(of_no_kind.abstention.arguments) == {"opposite": "Is this a CT?", "other_answer": "No"}


def test_a_weighting_is_withheld_where_it_is_not_certain_that_the_picture_is_an_mri():
    (answer,) = ask(
        LessSure(0.7, what_modality_is_used_to_take_this_image="MRI", is_this_an_mri="Yes"),
        "What is the weighting of this MRI?",
        references=reference(),
    )
    assert dict(answer.abstention.arguments) == {"opposite": "Is this a CT?", "other_answer": "Yes"}


BODY_PART = "Which part of the body does this image belong to?"


def of_body_part(sure, **answers):
    """A model that is so sure of the abdomen, and 80 % of the head where it is asked for each body part by itself."""
    closed = {f"is_this_a_study_of_the_{part}": "No" for part in ("chest", "abdomen", "neck", "pelvic_cavity")}
    named = {"which_part_of_the_body_does_this_image_belong_to": "Abdomen", "is_this_a_study_of_the_head": "Yes"}
    model = LessSure(0.8, **(closed | named | answers))
    model.sure_of = {BODY_PART: sure}
    texts = [BODY_PART, *(f"{key.replace('_', ' ').capitalize()}?" for key in (*closed, "is_this_a_study_of_the_head"))]
    model.question_bank = QuestionBank([TrainingQuestion(text, "Position", 3, ("yes", "no")) for text in texts])
    return model


ABDOMEN = {"image_types": ("CT, Abdomen",), "pictures": {"CT, Abdomen": (picture(60), picture(190))}}


@pytest.mark.parametrize("question", ["Is the liver visible?", "Where is the liver?", "图片中包含肝脏吗?"])
@pytest.mark.parametrize(
    ("sure", "answers", "against"),
    [
        (0.7, {}, {"opposite": "Is this a study of the head?", "other_answer": "Yes"}),
        (0.7, {"is_this_a_study_of_the_head": "No"}, None),
        (0.95, {}, None),
        (0.8, {}, None),
        (
            0.95,
            {"which_part_of_the_body_does_this_image_belong_to": "Head"},
            {"opposite": BODY_PART, "other_answer": "Head"},
        ),
    ],
)
def test_an_organ_is_withheld_where_the_body_part_that_the_model_is_surest_of_has_none(
    question, sure, answers, against
):
    (answer,) = ask(of_body_part(sure, **answers), question, references=reference(**ABDOMEN))
    assert answer.abstention.code == (None if against is None else "other_answer_excludes")
    assert dict(answer.abstention.arguments) == (against or {})


def test_the_absence_of_an_organ_needs_no_body_part_which_is_asked_once_of_a_picture():
    model = of_body_part(0.7, is_the_liver_visible="No")
    guards = Guards(model, CARD, reference(**ABDOMEN), image_dependence=False)
    absent, *present = (
        guards.answer([Query("q", text, "image", picture(120))], suggest=False)[0]
        for text in ("Is the liver visible?", "Is the spleen visible?", "Is the stomach visible?")
    )
    assert [one.abstention.abstained for one in (absent, *present)] == [False, True, True]
    assert model.batches == [1, 1, 1, 6, 1]  # the modality of the picture and a question; then the body part, once


def test_the_surest_answer_decides_about_the_body_part():
    def answers(**sure):
        texts = {"open": BODY_PART, "chest": "Is this a study of the chest?", "head": "Is this a study of the head?"}
        words = {"open": "Abdomen", "chest": "Yes", "head": "Yes"}
        return {texts[name]: Prediction("1", words[name], words[name], value) for name, value in sure.items()}

    assert stated_body_part(answers(open=0.9, head=0.99)).value == "head"
    assert stated_body_part(answers(open=0.8, head=0.7)).value == "abdomen"
    assert stated_body_part(answers(open=0.5, head=0.8, chest=0.9)).value == "chest"
    assert stated_body_part(answers(open=0.5)).value == "abdomen"
    assert stated_body_part({}) is None


def test_a_header_that_the_model_contradicts_is_refused_and_one_that_it_confirms_is_not():
    question = "what modality is used to take this image"
    for seen, code in (("CT", "modality_contradicts_header"), ("X-Ray", None)):
        model = Fake(**{question.replace(" ", "_"): seen})
        (answer,) = ask(
            model, "Which organ is this?", context=PictureContext(GOOD, {"Modality": "DX"}), references=reference()
        )
        assert answer.abstention.code == code


def test_scope_and_confidence_still_withhold_and_say_which_it_was():
    (unknown,) = ask(Fake(), "Is it zxqv?", references=reference())
    assert (unknown.abstention.code, unknown.abstention.reason) == ("question_scope", "I do not know the word zxqv.")
    strict = CARD.model_copy(update={"calibration": CARD.calibration.model_copy(update={"threshold": 0.95})})
    (unsure,) = ask(Fake(), "Which organ is this?", card=strict)
    assert (unsure.abstention.code, unsure.abstention.arguments["threshold"]) == ("low_confidence", "95%")


def test_without_a_reference_set_nothing_is_measured_and_contradictions_are_still_withheld():
    (answer,) = ask(Fake(), "Is there an effusion?", context=PictureContext(PictureStatistics(0, 0, 0, 0)))
    assert (answer.dependence, answer.source, answer.abstention.abstained) == (None, None, False)
    assert ask(Fake(), "Is the lung healthy?")[0].abstention.code == "contradiction"


def test_colors_are_no_reason_for_a_model_of_colored_pictures():
    colored = PictureContext(PictureStatistics(200, 90, 5, 0.5))
    references = reference(modalities=("Endoscopy",))
    assert not ask(Fake(), "Which organ is this?", context=colored, references=references)[0].abstention.abstained


def test_all_that_is_asked_of_the_model_goes_in_one_batch_after_the_modality_of_a_new_picture():
    model = Fake()
    guards = Guards(model, CARD, reference())
    queries = [Query(text, text, "image", picture(120)) for text in ("Is there an effusion?", "Is the lung healthy?")]
    guards.answer(queries)
    assert model.batches == [1, 2 + (2 + 2 + 1) + 2 * 6]  # opposites, and whether there is a lung
    guards.answer(queries)  # what reference pictures answer is cached, and so is the modality
    assert model.batches[2:] == [2 + (2 + 2 + 1)]


def test_reference_pictures_are_not_asked_about_where_the_question_is_not_understood():
    model = Fake()
    (answer,) = ask(model, "Is it zxqv?", references=reference())
    assert (answer.dependence, answer.source) == (None, None)
    assert model.batches == [1, 1]  # the modality of the picture, and the question


def test_reference_pictures_decide_about_findings_alone():
    model = Fake(which_organ_is_this="Lung")
    guards = Guards(model, CARD, reference())
    queries = [Query(text, text, "image", picture(120)) for text in ("Which organ is this?", "Is there an effusion?")]
    assert guards.are_answered(queries) == [True, False]
    modality, batch = model.batches
    assert (modality, batch) == (1, 2 + len(related_questions("Is there an effusion?")) + 6)


def test_what_two_questions_share_is_asked_once():
    model = Fake()
    ask(model, "Is the lung healthy?", "Is the lung abnormal?", "Does the lung look normal?")
    body_part, wordings = 1, {"healthy?", "unhealthy?", "abnormal?", "normal?", "look abnormal?"}
    assert model.batches == [3 + len(wordings) + len({"contain lung?"}), body_part]


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        ("Does the liver look normal?", {"Does the liver look abnormal": "No", "Is the liver abnormal": "Yes"}),
        ("Is the liver diseased?", {"Is the liver healthy": "Yes"}),
        ("Is there no abnormality in the liver?", {"Is the liver healthy": "No", "Is the liver abnormal": "No"}),
        ("Is the heart enlarged?", {"Is the heart normal in size": "Yes"}),
        ("Does this patient have pneumonia?", {"Can pneumonia be observed in this picture": "No"}),
        ("Is there a tumor in the liver?", {"Can tumor be observed on the liver in this picture": "No"}),
        ("肝脏正常吗?", {"肝脏不正常吗": "不是", "肝脏是异常的吗": "是的"}),
        ("图中存在异常吗?", {"这张图片看起来正常吗": "正常"}),
    ],
)
def test_wordings_of_one_claim_must_agree(question, answers):
    model = Fake(**{text.lower().replace(" ", "_"): answer for text, answer in answers.items()})
    (answer,) = ask(model, question)
    assert answer.abstention.code in ("contradiction", "paraphrase_disagrees")
    assert any(text in answer.abstention.reason for text in answers)


def test_an_answer_agrees_with_the_same_claim_and_with_the_negated_opposite():
    assert disagreement("Is the liver normal?", "Yes", "Is the liver abnormal?", "No") is None
    assert disagreement("Is the liver normal?", "Yes", "Is the liver healthy?", "Yes") is None
    assert disagreement("Is the liver normal?", "Yes", "Is the liver healthy?", "No") == "paraphrase_disagrees"
    assert disagreement("Is the liver normal?", "Yes", "Is the liver abnormal?", "Yes") == "contradiction"
    assert related_questions("Where is the liver?") == ()


def test_no_more_alternatives_are_shown_than_the_card_says():
    card = CARD.model_copy(update={"decoding": CARD.decoding.model_copy(update={"alternatives": 0})})
    assert ask(Fake(), "Which organ is this?", card=card)[0].prediction.alternatives == ()


def test_no_questions_no_answers():
    assert Guards(Fake(), CARD, reference()).answer([]) == []


@pytest.mark.parametrize(
    ("question", "other"),
    [
        ("Is the lung healthy?", "Is the lung unhealthy?"),
        ("Does the liver look abnormal?", "Does the liver look normal?"),
        ("Is this a Normal brain?", "Is this a abnormal brain?"),
        ("Is the liver normal or abnormal?", None),
        ("Is the lung not healthy?", None),
        ("Is the heart normal in size?", None),
        ("肝脏是健康的吗?", "肝脏是不健康的吗?"),
        ("肝脏看起来不正常吗?", "肝脏看起来正常吗?"),
        ("肝脏在哪里?", None),
        ("Which organ is abnormal?", None),
        ("Where is the liver?", None),
    ],
)
def test_the_opposite_of_a_question(question, other):
    assert opposite(question) == other


@pytest.mark.parametrize(
    ("value", "statistics", "code"),
    [
        (110, GOOD, None),
        (110, PictureStatistics(0, 0, 0, 0), "constant_picture"),
        (255, GOOD, "not_radiology_features"),
    ],
)
def test_every_picture_of_a_question_is_checked(value, statistics, code):
    other = {"other_visuals": (picture(value),), "other_images": ("other",)}
    query = Query("q", "Which organ is this?", "image", picture(120), **other)
    contexts = {"image": PictureContext(GOOD), "other": PictureContext(statistics)}
    model = Fake(which_organ_is_this=("Lung", "Liver"))
    (answer,) = Guards(model, CARD, reference()).answer([query], contexts)
    assert answer.abstention.code == code


class Remembering(Fake):
    """Contradicts itself unless the conversation has said that the lung is healthy."""

    def answer(self, queries, decoding):
        predictions = super().answer(queries, decoding)
        said = [any("healthy" in answer for _, answer in query.turns) for query in queries]
        return [
            replace(one, answer="No") if healthy and query.question.endswith(("unhealthy?", "abnormal?")) else one
            for one, healthy, query in zip(predictions, said, queries, strict=True)
        ]


def test_each_conversation_about_a_picture_is_checked_for_contradictions_of_its_own():
    model = Remembering()
    alone = Query("0", "Is the lung healthy?", "image", picture(100))
    after = replace(alone, id="1", turns=(("What is it?", "a healthy lung"),))
    for queries in ([alone, after], [after, alone]):
        codes = {q.id: a.abstention.code for q, a in zip(queries, Guards(model, CARD).answer(queries), strict=True)}
        assert codes == {"0": "contradiction", "1": None}


@pytest.mark.parametrize(
    ("one", "other", "contradicts"),
    [("Yes", "yes ", True), ("No", "No", True), ("Yes", "No", False), ("CT", "CT", False)],
)
def test_only_the_same_yes_or_no_contradicts(one, other, contradicts):
    assert contradict(one, other) is contradicts


@pytest.mark.parametrize(
    ("answer", "side"),
    [
        ("Left Lung", "patient"),
        ("Lower Right Lung", "patient"),
        ("Left kidney, right kidney", "patient"),
        ("Left", "picture"),
        ("Upper left", "picture"),
        ("Left side", "picture"),
        ("Right lower part", "picture"),
        ("Left Lung, Upper Right", "both"),
        ("Right Lung,Upper Left", "both"),
        ("Upper left of spleen", "picture"),
        ("左肺", "patient"),
        ("左下肺", "patient"),
        ("左侧肾脏", "patient"),
        ("左侧", "picture"),
        ("右上角", "picture"),
        ("左肺, 右下", "both"),
        ("Liver", None),
        ("Leftover", None),
        ("肝脏", None),
    ],
)
def test_a_side_is_the_patients_before_an_organ_and_the_pictures_otherwise(answer, side):
    assert meant_side(answer) == side


def test_the_reference_set_is_read_back_from_the_bundle(tmp_path):
    before = reference()
    before.save(tmp_path)
    after = ReferenceSet.load(tmp_path)
    names = ("image_types", "modalities", "question_types", "findings")
    assert all(getattr(after, name) == getattr(before, name) for name in names)
    for one, other in zip(after.pictures["X-Ray, Lung"], before.pictures["X-Ray, Lung"], strict=True):
        assert np.abs(one.astype(int) - other).max() <= 2
    assert ReferenceSet.load(tmp_path / "nothing") is None


def test_a_damaged_reference_set_says_so(tmp_path):
    reference().save(tmp_path)
    (tmp_path / ARRAYS_FILE).write_bytes(b"PK\3\4 not really")
    with pytest.raises(BundleError, match=r"reference set of .* is damaged"):
        ReferenceSet.load(tmp_path)


def test_a_type_with_few_pictures_has_no_reference_pictures():
    assert reference_pictures([picture(1)] * 5) == ()
    assert len(reference_pictures([picture(1)] * 9)) == 6


def test_a_question_is_of_the_type_of_the_training_question_nearest_to_it():
    known = reference()
    assert known.question_type("Is the lung healthy?") == "Abnormality"
    assert known.question_type("Which organ is this here?") == "Organ"
    assert known.question_type("How many legs has a spider?") == ""
    assert known.finding("Is a pleural effusion visible?") == "pleural effusion"
    assert known.finding("Is the liver visible?") == ""


def test_auc_is_a_half_for_guessing_and_counts_ties_half():
    assert area_under_roc([0.9, 0.8], [0.1, 0.2]) == 1.0
    assert area_under_roc([0.5], [0.5]) == 0.5
    assert area_under_roc([0.1, 0.9], [0.1, 0.9]) == 0.5
    assert area_under_roc([], [0.5]) is None


def test_the_auc_of_few_answers_of_a_kind_is_not_stated():
    examples = [
        replace(e, answers=("No",)) if i in (1, 3, 5) else replace(e, answers=("Yes",)) for i, e in enumerate(rows(30))
    ]
    types = {e.id: "X-Ray, Organ" for e in examples}
    (row,) = reliability_rows(
        examples, answers(examples, lambda i: True), answers(examples, lambda i: i > 20), types, kind="question type"
    )
    assert row.auc is None
    assert row.above_baseline


def rows(n):
    return [Example(f"e{i}", f"image{i}", "Is it?", ("Yes" if i % 2 else "No",), f"image{i}", {}) for i in range(n)]


def answers(examples, right):
    text = {"Yes": "No", "No": "Yes"}
    return {
        e.id: Prediction(e.id, *2 * (e.answers[0] if right(i) else text[e.answers[0]],), 0.9, ())
        for i, e in enumerate(examples)
    }


def test_a_type_above_its_baseline_and_one_that_is_not():
    examples = rows(40)
    types = {e.id: "X-Ray, Abnormality" for e in examples}
    half = answers(examples, lambda i: i % 4 < 2)
    (good,) = reliability_rows(examples, answers(examples, lambda i: True), half, types, kind="question type")
    assert (good.questions, good.accuracy, good.baseline_accuracy, good.auc) == (40, 1.0, 0.5, 1.0)
    assert good.above_baseline and good.difference_low > 0.3
    (poor,) = reliability_rows(examples, half, answers(examples, lambda i: i % 4 > 1), types, kind="question type")
    assert not poor.above_baseline
    assert poor.difference_low < 0 < poor.difference_high


def test_types_with_few_questions_have_no_row():
    examples = rows(19)
    predictions = answers(examples, lambda i: True)
    assert reliability_rows(examples, predictions, predictions, {e.id: "t" for e in examples}, kind="finding") == []


def test_every_reason_is_one_sentence_or_two_in_plain_text():
    for code, text in SENTENCES.items():
        assert text[0].isupper() and text.endswith(".") and "\n" not in text, code


class Writer(Fake):
    """Writes answers: no closed list, no confidence, no features of pictures."""

    has_closed_answers, vision = False, None

    def answer(self, queries, decoding):
        self.batches.append(len(queries))
        predictions = []
        for query in queries:
            usual = "Something" if query.question.lower().startswith("wh") else "Yes"
            text = self.answers.get(query.question.strip("?").lower(), usual)
            text = text if isinstance(text, str) else text[int(query.visual.any())]
            predictions.append(Prediction(query.id, text, text))
        return predictions


def ask_writer(model, question, *, image_dependence, references=None):
    guards = Guards(model, CARD, references, image_dependence=image_dependence)
    return guards.answer([Query("q", question, "image", picture(120))], {"image": PictureContext(GOOD)})[0]


def test_a_model_that_writes_answers_is_asked_without_picture_on_request():
    model = Writer(which_organ=("Heart", "Lung"))
    off = ask_writer(model, "Which organ?", image_dependence=None)
    assert (off.dependence, off.source, model.batches) == (None, None, [1])
    on = ask_writer(model, "Which organ?", image_dependence=True)
    assert model.batches[1:] == [3]  # the question, a black picture, and the picture with its parts out of order
    assert (on.dependence.score, on.dependence.references, on.source) == (0.5, 2, "picture")
    same = ask_writer(Writer(which_organ="Lung"), "Which organ?", image_dependence=True)
    assert (same.dependence.score, same.source, same.abstention.abstained) == (0.0, "usual", False)


def test_a_finding_that_is_the_same_without_picture_is_withheld():
    answer = ask_writer(Writer(), "Is there an effusion?", image_dependence=True)
    assert answer.abstention.code == "same_answer_without_picture"


def test_answers_without_picture_are_those_of_the_picture_and_not_of_its_name():
    guards = Guards(Writer(which_organ=("Heart", "Lung")), CARD, image_dependence=True)
    for value in (0, 120):
        query = Query("q", "Which organ?", "image", picture(value))
        (answer,) = guards.answer([query], {"image": PictureContext(GOOD)})
    assert answer.dependence.score == 0.5


def test_a_closed_model_may_be_asked_without_measuring():
    model = Fake()
    guards = Guards(model, CARD, reference(), image_dependence=False)
    guards.answer([Query("q", "Which organ is this?", "image", picture(120))])
    assert model.batches == [1, 1]  # its modality, then the question


def test_the_parts_of_a_picture_are_all_kept_in_another_order():
    gradient = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    black, shuffled = without_content(gradient)
    assert not black.any()
    assert sorted(shuffled.ravel()) == sorted(gradient.ravel())
    assert not np.array_equal(shuffled, gradient)
    assert without_content(np.ones((1, 3, 3), np.uint8))[1].shape == (1, 3, 3)


@pytest.mark.parametrize(
    ("visual", "length"),
    [
        ({"tokens": np.ones((5, 3), np.float32)}, 6),
        ({"prefix": np.ones(4), "image": np.ones((7, 2), np.float32)}, 4),
        ({"prefix": np.ones(4)}, None),
        (np.ones((30, 40, 3), np.uint8), 12 * 12 + 16 + 2),
        (np.ones((1, 1, 1), np.uint8), None),
    ],
)
def test_pictures_are_compared_by_what_a_family_has(visual, length):
    vector = visual_features(visual)
    assert vector is None if length is None else vector.shape == (length,)


def test_a_family_without_features_passes_the_picture_guard_by_pixels():
    rng = np.random.default_rng(0)
    noisy = [np.clip(rng.normal(100, 10, (16, 16, 1)), 0, 255).astype(np.uint8) for _ in range(40)]
    features = ReferenceFeatures.fit(np.stack([visual_features(one) for one in noisy]))
    guards = Guards(Writer(), CARD, reference(features=features))
    like, unlike = noisy[0], np.full((16, 16, 1), 255, np.uint8)
    queries = [Query("a", "Which organ?", "a", like), Query("b", "Which organ?", "b", unlike)]
    contexts = dict.fromkeys("ab", PictureContext(GOOD))
    assert [one.abstention.code for one in guards.answer(queries, contexts)] == [None, "not_radiology_features"]


def saved(folder, **changes):
    reference(**changes).save(folder)
    return folder


def test_a_reference_set_that_the_card_does_not_name_is_of_another_model(tmp_path):
    with pytest.raises(BundleError, match=r"guards\.json, which its card does not name.*calibrate"):
        Guards.load(Fake(), CARD, saved(tmp_path))


def test_a_reference_set_of_other_features_is_of_another_model():
    fewer = reference().features
    wrong = ReferenceFeatures(fewer.mean[:2], fewer.scale[:2], fewer.whitening[:2, :2], fewer.points[:, :2], 1.0)
    with pytest.raises(BundleError, match=r"compares 2 features and the model has 4.*calibrate"):
        ask(Fake(), "Which organ is this?", references=reference(features=wrong))


def test_a_bundle_without_reliability_table_warns_once_and_the_other_guards_work(tmp_path, caplog):
    card = CARD.model_copy(update={"files": {"guards.json": "0", "guards.npz": "0"}})
    guards = Guards.load(Fake(), card, saved(tmp_path))
    query = Query("q", "Is there an effusion?", "image", picture(120))
    codes = [guards.answer([query], {"image": PictureContext(GOOD)})[0].abstention.code for _ in range(3)]
    assert codes == ["picture_does_not_matter"] * 3
    bad = {"image": PictureContext(PictureStatistics(0, 0, 0, 0))}
    assert guards.answer([query], bad)[0].abstention.code == "constant_picture"
    model = Fake(is_the_lung_unhealthy="Yes")
    both = Guards(model, card, guards.reference).answer([Query("q", "Is the lung healthy?", "image", picture(120))])
    assert both[0].abstention.code == "contradiction"
    assert [record.message for record in caplog.records if "no reliability table" in record.message] == [
        "fake has no reliability table: findings are not withheld by type; run `medical-vqa calibrate`"
    ]


def test_a_question_of_mixed_languages_and_one_of_a_thousand_characters_are_decided():
    long = "Is the lung healthy " + "very " * 190 + "?"
    for question in ("Is the 肝脏 healthy?", "肝脏 healthy 吗?", long):
        (answer,) = ask(Fake(), question, references=reference())
        assert answer.prediction.answer == "Yes"


def test_a_picture_with_one_constant_channel_is_no_gray_picture():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pixels[..., 2] = 0
    context = PictureContext(PictureStatistics.of(pixels))
    (answer,) = ask(Fake(), "Which organ is this?", context=context, references=reference())
    assert answer.abstention.code == "not_radiology_colors"


def test_a_picture_is_compared_with_those_of_the_modality_that_the_model_takes_it_for():
    types = {"image_types": ("X-Ray, Lung", "CT, Abdomen")}
    mixed = reference(**types, point_types=np.array([1] * 39 + [0], np.int16))  # one radiograph among 40 pictures
    feature = np.array([120.0, 240.0, 0.0, 0.0], np.float32)
    assert mixed.image_type(feature) == "CT, Abdomen"
    assert mixed.image_type(feature, "X-Ray") == "X-Ray, Lung"
    assert mixed.image_type(feature, "PET") == "CT, Abdomen"


def test_a_radiograph_that_lies_among_ct_pictures_gets_the_reliability_of_radiographs():
    row = TypeReliability(
        name="X-Ray, effusion", kind="finding", questions=30, images=30, accuracy=0.5, baseline_accuracy=0.5,
        difference_low=-0.1, difference_high=0.1, auc=0.5, above_baseline=False,
    )  # fmt: skip
    model = effusion_where_bright()
    model.answers["what modality is used to take this image"] = "X-Ray"
    mixed = reference(image_types=("X-Ray, Lung", "CT, Abdomen"), point_types=np.array([1] * 39 + [0], np.int16))
    card = CARD.model_copy(update={"reliability": (row,)})
    (answer,) = ask(model, "Is there an effusion?", card=card, references=mixed)
    assert answer.abstention.code == "type_not_reliable"


@pytest.mark.parametrize("above", [True, False])
def test_the_treatment_of_a_disease_is_withheld_where_the_disease_is_not_seen_reliably(above):
    question = "How to treat the disease on the left of the lung in this image?"
    model = effusion_where_bright()
    model.answers["how to treat the disease on the left of the lung in this image"] = ("Surgery", "Rest")
    card = CARD.model_copy(
        update={"reliability": (row("X-Ray, Abnormality", above=above), row("X-Ray, KG", above=True))}
    )
    (answer,) = ask(model, question, references=reference(), card=card)
    assert answer.abstention.code == (None if above else "type_not_reliable")
    general = "What is the function of the lung?"
    model.answers["what is the function of the lung"] = "Breathe"
    assert not ask(model, general, references=reference(), card=card)[0].abstention.abstained


def test_a_question_that_shares_only_words_of_form_with_one_for_findings_is_none():
    known = reference(question_types={"is this abnormal image": "Abnormality"})
    assert known.question_type("Is this an axial image?") == ""
    assert not known.asks_for_finding("Is this an axial image?")
    assert known.asks_for_finding("Is this an abnormal image?")


def test_a_comparison_with_the_normal_size_has_no_opposite_of_abnormal_size():
    assert opposite("Is the heart larger than normal?") is None


class HeadWriter(Fake):
    """Writes answers about pictures that are not encoded, and takes each for one of the head."""

    vision, has_closed_answers = None, False

    def answer(self, queries, decoding):
        self.batches.append([query.question for query in queries])
        head = "This is an axial slice of the head."
        texts = [head if "part of the body" in query.question else "Yes." for query in queries]
        return [Prediction(query.id, text, text) for query, text in zip(queries, texts, strict=True)]


def test_any_family_is_asked_once_which_body_part_a_picture_shows():
    model = HeadWriter()
    liver, spleen, brain = ask(
        model, "Is there a tumor in the liver?", "Where is the spleen?", "Is there a tumor in the brain?"
    )
    assert (liver.abstention.code, liver.abstention.arguments) == ("organ_not_in_image_type", {"entity": "liver"})
    assert spleen.abstention.code == "organ_not_in_image_type"
    assert not brain.abstention.abstained
    assert sum("part of the body" in batch[0] for batch in model.batches) == 1


def test_a_question_without_an_organ_costs_no_further_question():
    model = HeadWriter()
    ask(model, "Is there a tumor?")
    assert not any("part of the body" in question for batch in model.batches for question in batch)


def test_a_model_whose_questions_cost_is_asked_for_the_body_part_on_request():
    model = HeadWriter()
    model.usage = object()
    query = Query("q", "Where is the liver?", "image", picture(120))
    (unchecked,) = Guards(model, CARD).answer([query])
    (checked,) = Guards(model, CARD, image_dependence=True).answer([query])
    assert not unchecked.abstention.abstained
    assert checked.abstention.code == "organ_not_in_image_type"


def test_the_type_of_the_nearest_training_pictures_says_the_body_part():
    (answer,) = ask(Fake(), "Where is the brain?", references=reference())
    assert answer.abstention.code == "organ_not_in_image_type"


@pytest.mark.parametrize("question", ["How many tumors are there?", "Where is the tumor?", "What color is the tumor?"])
def test_an_open_question_about_a_finding_is_withheld_where_every_picture_gets_its_answer(question):
    (same,) = ask(Fake(**{question.strip("?").lower().replace(" ", "_"): "2"}), question, references=reference())
    assert same.abstention.code == "picture_does_not_matter"
    changing = Fake(**{question.strip("?").lower().replace(" ", "_"): ("2", "3")})
    (answer,) = ask(changing, question, references=reference())
    assert not answer.abstention.abstained


def test_whether_an_organ_is_there_is_no_question_for_a_finding():
    names = reference(question_types={"is there brain tumor": "Abnormality"})
    assert names.question_type("Is there a brain?") == "Abnormality"
    assert not names.asks_for_finding("Is there a brain?")
    assert names.asks_for_finding("Is there a brain tumor?")


def test_a_body_part_that_excludes_an_organ_is_not_overruled_by_another_wording():
    body_part, presence = "Which part of the body does this image belong to?", "Does the picture contain brain?"
    related = {body_part: Prediction("1", "Chest", "Chest", 0.95, ()), presence: Prediction("2", "Yes", "Yes", 0.9, ())}
    assert related_decision("Is this the brain?", "No", related) is None
    overruled = related_decision("Is the liver visible?", "No", {"Does the picture contain liver?": related[presence]})
    assert overruled is not None and overruled.code == "paraphrase_disagrees"

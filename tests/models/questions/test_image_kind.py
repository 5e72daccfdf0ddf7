"""Yes or no questions about the kind of a picture, and the answer that follows from what the model says it is."""

from __future__ import annotations

import pytest

from medical_vqa.models.guards.related_answers import disagrees, following_related, leaves_no_answer
from medical_vqa.models.questions.image_kind import (
    follows,
    kind_choice,
    kind_claims,
    kind_named,
    kind_question,
    yes_or_no,
)
from medical_vqa.models.questions.presence import names_organ, presence_wording
from medical_vqa.schema.records import Prediction


@pytest.mark.parametrize(
    ("question", "attribute", "value"),
    [
        ("Is this a CT?", "modality", "ct"),
        ("Is this a CT scan?", "modality", "ct"),
        ("is it an mr image", "modality", "mri"),
        ("Is this an MRI?", "modality", "mri"),
        ("Is the image a magnetic resonance image?", "modality", "mri"),
        ("Was this picture taken with an MRI machine?", "modality", "mri"),
        ("Is this image taken via X-Ray?", "modality", "x-ray"),
        ("Is this a radiograph?", "modality", "x-ray"),
        ("Does this look like an x ray?", "modality", "x-ray"),
        ("Is CT used to take this image?", "modality", "ct"),
        ("Are we looking at an ultrasound?", "modality", "ultrasound"),
        ("Is this a coronal section?", "plane", "coronal"),
        ("Is this an axial slice?", "plane", "transverse"),
        ("Is this image in the sagittal plane?", "plane", "sagittal"),
        ("这是CT图像吗?", "modality", "ct"),
        ("这张图片的拍摄是通过核磁共振吗?", "modality", "mri"),
        ("这是X光吗?", "modality", "x-ray"),
        ("这是横断面吗?", "plane", "transverse"),
        ("Is this a picture of the abdomen?", "body part", "abdomen"),
        ("Is this a study of the pelvic cavity?", "body part", "pelvis"),
        ("Does this image show the neck?", "body part", "neck"),
        ("Is this the chest?", "body part", "chest"),
        ("Please tell me whether this is a CT.", "modality", "ct"),
        ("This is a CT, isn't it?", "modality", "ct"),
        ("I think this is an MR image. Is that correct?", "modality", "mri"),
        ("Was the patient scanned with CT?", "modality", "ct"),
        ("Does this picture come from an X-Ray?", "modality", "x-ray"),
        ("Is the imaging modality MRI?", "modality", "mri"),
        ("MRI or not?", "modality", "mri"),
        ("IS THSI A CORONAL SLICE", "plane", "coronal"),
        ("Is the scanning plane coronal?", "plane", "coronal"),
        ("Do the organs in the image exist in the pelvic cavity?", "body part", "pelvis"),
        ("Was the patient's head scanned?", "body part", "head"),
        ("请问这张片子是CT吗？", "modality", "ct"),
        ("图像中的器官是否存在于盆腔?", "body part", "pelvis"),
    ],
)
def test_the_kind_that_a_question_names(question, attribute, value):
    (claim,) = kind_claims(question)
    assert (claim.attribute, claim.value, claim.part) == (attribute, value, False)


@pytest.mark.parametrize(
    "question",
    [
        "What modality is used to take this image?",
        "Is this a CT or an MRI?",
        "Is the liver visible in this CT?",
        "Does the CT show a tumor?",
        "Is there a liver in this MRI?",
        "Is the lung healthy?",
        "Is this CT normal?",
        "Is this MRI scan abnormal?",
        "Is this CT in focus?",
        "Is the CT slice at the level of the heart?",
        "Does the picture contain liver?",
        "Is the chest normal?",
        "Is this head tilted?",
        "Does this image show a tumor in the abdomen?",
        "Does the image contain the heart?",
        "Which plane is the image scanned, transverse plane or coronal plane?",
        "这张图片的成像方式是什么?",
        "肝脏在CT中正常吗?",
        "Is this not a CT?",
        "Is this anything but an MRI?",
        "这不是CT吗?",
        "Is this a cat?",
        "Is there a scar in this CT?",
        "Is this a normal CT?",
    ],
)
def test_other_questions_name_none(question):
    assert kind_claims(question) == ()


@pytest.mark.parametrize(
    ("question", "open_answer", "yes"),
    [
        ("Is this an MRI?", "CT", False),
        ("Is this an MRI?", "MRI", True),
        ("Is this the pelvis?", "Chest", False),
        ("Is this a chest image?", "Chest", True),
        ("Is this the brain?", "Head", None),  # or the face
        ("Is this the brain?", "Abdomen", False),
        ("Does this image belong to the head?", "Brain", True),
        ("这张图片是胸部吗?", "腹部", False),
        ("Is this an ultrasound image?", "MRI", False),
        ("Is this a sagittal plane?", "Transverse  Plane", False),
        ("Is this an axial plane?", "Transverse Plane", True),
        ("Is this an MRI?", "Abdomen", None),
        ("这是核磁共振扫描吗?", "CT", False),
        ("这是核磁共振扫描吗?", "核磁共振", True),
        ("这是冠状面吗?", "横断面", False),
    ],
)
def test_what_follows_from_the_answer_to_the_open_question(question, open_answer, yes):
    (claim,) = kind_claims(question)
    assert claim.yes(open_answer) is yes


def test_an_answer_that_contradicts_the_kind_is_replaced_with_its_confidence():
    wrong = Prediction("1", "Yes", "Yes", 0.8, (("No", 0.2),))
    open_answer = Prediction("2", "CT", "CT", 0.97, (("MRI", 0.03),))
    related = {"What modality is used to take this image?": open_answer}
    followed = following_related("Is this an MRI?", wrong, related)
    assert (followed.answer, followed.confidence) == ("No", 0.97)
    assert followed.alternatives == (("Yes", pytest.approx(0.03)),)
    assert following_related("Is this a CT?", wrong, related).answer == "Yes"
    assert following_related("Is the liver healthy?", wrong, related) is wrong
    assert following_related("Is this an MRI?", wrong, {}) is wrong
    unsure = {"What modality is used to take this image?": Prediction("2", "CT", "CT", 0.45, (("MRI", 0.4),))}
    assert following_related("Is this a CT?", wrong, unsure).alternatives == ()  # no is not more probable than yes
    other_form = Prediction("1", "CT", "CT", 0.5, ())  # no yes and no no
    assert following_related("Is this an MRI?", other_form, related).answer == "No"


def test_chinese_answers_stay_chinese():
    related = {"这张图片的成像方式是什么?": Prediction("2", "CT", "CT", 0.9, ())}
    assert following_related("这是核磁共振扫描吗?", Prediction("1", "是的", "是的", 0.8, ()), related).answer == "不是"


@pytest.mark.parametrize(
    ("answer", "attribute", "named"),
    [
        ("MRI", "modality", "mri"),
        ("X-Ray", "modality", "x-ray"),
        ("X光", "modality", "x-ray"),
        ("Coronal Plane", "plane", "coronal"),
        ("冠状面", "plane", "coronal"),
        ("Yes", "modality", None),
        ("CT, MRI", "modality", None),
    ],
)
def test_the_kind_that_an_answer_names(answer, attribute, named):
    assert kind_named(answer, attribute) == named


@pytest.mark.parametrize(
    ("question", "open_answers", "yes"),
    [
        ("Is this an MRI of the brain?", ("CT", "Chest"), False),
        ("Is this an MRI of the brain?", ("MRI", "Head"), None),  # or the face
        ("Is this an MRI of the brain?", ("MRI", "Chest"), False),
        ("Is this an MRI of the brain?", ("CT", "Brain"), False),
        ("Is this a chest X-ray?", ("X-Ray", "Chest"), True),
        ("Is this a chest X-ray?", ("X-Ray", "Abdomen"), False),
        ("Is this a chest X-ray?", ("X-Ray", "Yes"), None),
        ("Is this T1 weighted?", ("T1", "MRI"), True),
        ("Is this T1 weighted?", ("T2", "MRI"), False),
        ("Is this T1 weighted?", ("T1", "CT"), False),  # nothing else is weighted
        ("这是T2加权的核磁共振图像吗?", ("核磁共振", "T2"), True),
        ("这是T2加权的核磁共振图像吗?", ("CT", "T2"), False),
    ],
)
def test_a_question_with_two_kinds_takes_both(question, open_answers, yes):
    claims = kind_claims(question)
    questions = [claim.open_question for claim in claims]
    assert follows(claims, dict(zip(questions, open_answers, strict=True))) is yes


@pytest.mark.parametrize(
    ("question", "values"),
    [
        ("CT or MRI?", {"ct", "mri"}),
        ("Is this CT, MRI or X-ray?", {"ct", "mri", "x-ray"}),
        ("Was this image taken by MRI or CT?", {"ct", "mri"}),
        ("Is this a T1 weighted or T2 weighted MRI image?", {"t1", "t2"}),
        ("Is this axial, coronal or sagittal?", {"transverse", "coronal", "sagittal"}),
        ("Is this the abdomen or the chest?", {"abdomen", "chest"}),
        ("这是冠状面还是横断面?", {"coronal", "transverse"}),
        ("扫描的是图像的哪个平面,横断面还是冠状面?", {"coronal", "transverse"}),
    ],
)
def test_the_kinds_that_a_question_lets_one_choose(question, values):
    assert kind_choice(question).values == values


@pytest.mark.parametrize("question", ["Is this a CT?", "Is the CT normal or abnormal?", "Which is safer, CT or MRI?"])
def test_other_questions_let_one_choose_no_kind(question):
    assert kind_choice(question) is None


def test_a_choice_between_kinds_has_the_answer_to_the_open_question():
    modality = "What modality is used to take this image?"
    related = {modality: Prediction("2", "CT", "CT", 0.97, (("MRI", 0.03),))}
    wrong = Prediction("1", "Yes", "Yes", 0.8, (("No", 0.2),))
    followed = following_related("Is it MRI or CT?", wrong, related)
    assert (followed.answer, followed.confidence, followed.alternatives) == ("CT", 0.97, (("MRI", 0.03),))
    assert following_related("Is it MRI or X-ray?", wrong, related) is wrong
    assert leaves_no_answer("Is it MRI or X-ray?", modality, "CT")
    assert not leaves_no_answer("Is it MRI or CT?", modality, "CT")


@pytest.mark.parametrize(
    ("question", "answer", "differs"),
    [
        ("What plane is this MRI?", "CT", True),
        ("What plane is this MRI?", "MRI", False),
        ("What is the mr weighting in this image?", "X-Ray", True),
        ("What is the weighting?", "CT", True),
        ("T1 or T2?", "CT", True),
        ("Is the liver visible in this CT?", "MRI", True),
        ("Is the liver visible in this CT?", "Abdomen", False),  # names no technique
        ("这张MRI图片用的什么加权方式?", "CT", True),
        ("Is this an MRI?", "CT", False),  # asks just that
        ("Where is the liver?", "CT", False),
        ("Is the function of a CT to make pictures?", "MRI", False),
    ],
)
def test_a_question_about_a_picture_of_another_kind(question, answer, differs):
    open_question = ("What modality is used to take this image?", "这张图片的成像方式是什么?")[question[0] > "\u4e00"]
    assert leaves_no_answer(question, open_question, answer) is differs


@pytest.mark.parametrize(
    ("question", "wording"),
    [
        ("Is the lung visible?", "Does the picture contain lung?"),
        ("Can you see the liver here?", "Does the picture contain liver?"),
        ("Is there a spleen in this image?", "Does the picture contain spleen?"),
        ("Are kidneys shown?", "Does the picture contain kidney?"),
        ("Is the heart in the picture?", "Does the picture contain heart?"),
        ("Does this scan show the bladder?", "Does the picture contain bladder?"),
        ("Can the spinal cord be seen?", "Does the picture contain spinal cord?"),
        ("Is the left kidney visible?", None),  # asks for more
        ("Are both lungs visible?", None),
        ("Is there a tumor in the liver?", None),
        ("Is the liver healthy?", None),
        ("Is there an abnormality in the lung?", None),
        ("Where is the liver?", None),
        ("Does the lung show nodules?", None),
        ("图片中包含肝癌吗?", None),
        ("This picture shows a liver, right?", "Does the picture contain liver?"),
        ("Please tell me whether the liver is visible.", "Does the picture contain liver?"),
        ("Is the spleen in the field of view?", "Does the picture contain spleen?"),
        ("Any liver?", "Does the picture contain liver?"),
        ("Is the liver visible on the right?", None),
        ("Is the nervous system visible?", "Do any of the organs in the picture belong to the nervous system?"),
        ("Is the urinary system shown?", "Do any of the organs in the picture belong to the urinary system?"),
        ("图中有没有消化系统的器官?", "图片中有属于消化系统的器官吗?"),
        ("Does the lung belong to the respiratory system?", None),
        ("Is only the liver visible?", None),
        ("Is the liver not visible?", None),
        ("能看到肝脏吗?", "Does the picture contain liver?"),
        ("图里有没有脾脏?", "Does the picture contain spleen?"),
        ("图中没有肝脏吗?", None),
        ("Does the picture contain 肝脏?", "Does the picture contain liver?"),
        ("左肺在图中吗?", None),
        ("肝脏在哪个位置?", None),
    ],
)
def test_whether_an_organ_is_in_the_picture_has_one_wording(question, wording):
    assert presence_wording(question) == wording


def test_an_answer_follows_the_wording_that_training_asks_most():
    related = {"Does the picture contain lung?": Prediction("2", "Yes", "Yes", 0.95, (("No", 0.05),))}
    followed = following_related("Is the lung shown?", Prediction("1", "No", "No", 0.83, (("Yes", 0.17),)), related)
    assert (followed.answer, followed.confidence) == ("Yes", 0.95)
    agreeing = following_related("Is the lung shown?", Prediction("1", "Yes", "Yes", 0.6, ()), related)
    assert (agreeing.answer, agreeing.confidence) == ("Yes", 0.95)
    surer = Prediction("1", "No", "No", 0.97, ())
    assert following_related("Is the lung shown?", surer, related) is surer
    assert disagrees(surer.answer, "Yes")
    assert not disagrees("CT", "Yes")


LARGEST = "What is the largest organ in the picture?"


@pytest.mark.parametrize("question", ["Does the picture contain brain?", "Is the brain visible?", "Is this the brain?"])
def test_the_largest_organ_is_in_the_picture_whatever_the_wording(question):
    related = {LARGEST: Prediction("2", "Brain", "Brain", 0.92, ())}
    followed = following_related(question, Prediction("1", "No", "No", 0.83, (("Yes", 0.1),)), related)
    assert (followed.answer, followed.confidence) == ("Yes", 0.92)
    other = {LARGEST: Prediction("2", "Liver", "Liver", 0.92, ())}
    denied = Prediction("1", "No", "No", 0.83, (("Yes", 0.1),))
    assert following_related(question, denied, other) is denied


@pytest.mark.parametrize(
    ("question", "organ"),
    [
        ("这是脑吗?", "brain"),
        ("是不是脑?", "brain"),
        ("这是不是肝脏?", "liver"),
        ("该图像是否为肺?", "lung"),
        ("是肝脏吗?", "liver"),
        ("肝脏是不是健康的?", None),
        ("是不是有肝脏疾病?", None),
        ("肝脏好吗?", None),
    ],
)
def test_chinese_questions_what_organ_this_is(question, organ):
    assert names_organ(question) == organ


@pytest.mark.parametrize(
    ("question", "yes", "no"),
    [
        ("这是脑吗?", "是的", "不是"),
        ("图片中包含脑吗?", "包含", "不包含"),
        ("图中有没有肝脏?", "有", "没有"),
        ("图像中存在肺吗?", "存在", "不存在"),
        ("图像中的器官是否存在于头部?", "是的", "不是"),
        ("能看到肝脏吗?", "可以", "不可以"),
        ("Is the liver visible?", "Yes", "No"),
        ("Does the picture contain 肝脏?", "Yes", "No"),
    ],
)
def test_yes_and_no_have_the_form_of_the_question(question, yes, no):
    assert (yes_or_no(True, question), yes_or_no(False, question)) == (yes, no)


@pytest.mark.parametrize("question", ["What is the modality of this MRI?", "MRI imaging modality used?"])
def test_a_question_for_the_modality_may_name_one(question):
    kind = kind_question(question)
    assert kind is not None
    assert (kind.attribute, kind.open_question) == ("modality", "What modality is used to take this image?")
    assert leaves_no_answer(question, kind.open_question, "CT")

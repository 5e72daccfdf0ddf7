"""What yes or no claims, whatever the wording, in English and Chinese."""

import pytest

from medical_vqa.models.questions.claims import PICTURE, claim_of


@pytest.mark.parametrize(
    ("question", "attribute", "subject", "yes_means_normal"),
    [
        ("Is the liver normal?", "state", "the liver", True),
        ("Is the liver abnormal?", "state", "the liver", False),
        ("Is the liver diseased?", "state", "the liver", False),
        ("Does the liver look healthy?", "state", "the liver", True),
        ("Is the liver normal appearing?", "state", "the liver", True),
        ("Is the liver not normal?", "state", "the liver", False),
        ("Is this a normal liver?", "state", "the liver", True),
        ("Is there any abnormality in the liver?", "state", "the liver", False),
        ("Is there no abnormality in the liver?", "state", "the liver", True),
        ("Is the liver free of disease?", "state", "the liver", True),
        ("Does the liver show signs of disease?", "state", "the liver", False),
        ("Is/Are there abnormalities in the patient's right lung?", "state", "the right lung", False),
        ("Are there abnormalities in this image?", "state", PICTURE, False),
        ("Does the patient have any abnormalities?", "state", PICTURE, False),
        ("Does this scan look normal?", "state", PICTURE, True),
        ("Is the heart enlarged?", "size", "the heart", False),
        ("Is the heart normal in size?", "size", "the heart", True),
        ("Is there a tumor in the liver?", "finding", "the liver", False),
        ("Does the liver contain a tumor?", "finding", "the liver", False),
        ("Does this patient have pneumonia?", "finding", PICTURE, False),
        ("Is pneumothorax present?", "finding", PICTURE, False),
        ("Is the patient free of pneumonia?", "finding", PICTURE, True),
        ("肝脏是健康的吗?", "state", "肝脏", True),
        ("肝脏看起来不正常吗？", "state", "肝脏", False),
        ("肝脏有异常吗?", "state", "肝脏", False),
        ("病人的左肺有异常吗?", "state", "左肺", False),
        ("这张图片看起来是否正常?", "state", PICTURE, True),
        ("图中存在异常吗?", "state", PICTURE, False),
        ("病人有肺炎吗?", "finding", PICTURE, False),
        ("肝脏里有肿瘤吗?", "finding", "肝脏", False),
    ],
)
def test_a_claim_in_any_wording(question, attribute, subject, yes_means_normal):
    claim = claim_of(question)
    assert (claim.attribute, claim.subject, claim.yes_means_normal) == (attribute, subject, yes_means_normal)


@pytest.mark.parametrize(
    "question",
    [
        "Is the liver visible?",
        "Is there a liver in the image?",
        "Which organ is abnormal, heart or lung?",
        "Is the liver normal or abnormal?",
        "What diseases are included in the picture?",
        "Is this a CT?",
        "Where is the tumor?",
        "图中有肝脏吗?",
        "图片中包含哪些疾病?",
        "肺或者心脏哪个是异常的?",
    ],
)
def test_other_questions_claim_nothing_of_the_kind(question):
    assert claim_of(question) is None


@pytest.mark.parametrize(
    ("question", "answer", "normal"),
    [
        ("Is the liver healthy?", "Yes", True),
        ("Is the liver abnormal?", "Yes, it is.", False),
        ("Is the liver abnormal?", "The liver is normal", True),
        ("Is there a tumor in the liver?", "no", True),
        ("Is the liver healthy?", "CT", None),
        ("肝脏是健康的吗?", "不是", False),
        ("这张图片看起来是否正常?", "不正常", False),
        ("病人有肺炎吗?", "没有", True),
    ],
)
def test_whether_an_answer_says_that_nothing_is_wrong(question, answer, normal):
    assert claim_of(question).says_normal(answer) is normal


@pytest.mark.parametrize(
    "wordings",
    [
        ("Is the liver normal?", "Is the liver abnormal?", "Does the liver look diseased?"),
        ("肝脏正常吗?", "肝脏是异常的吗?", "肝脏有异常吗?"),
        ("Is there pneumonia?", "Does the patient have pneumonia?", "Can pneumonia be seen in the picture?"),
        ("Is the heart enlarged?", "Does the heart appear enlarged?", "Is the heart of normal size?"),
    ],
    ids=["state", "Chinese", "finding", "size"],
)
def test_all_wordings_of_a_claim_share_their_canonical_questions(wordings):
    claims = [claim for wording in wordings if (claim := claim_of(wording)) is not None]
    assert len(claims) >= 3
    assert len({claim.canonical_questions() for claim in claims}) == 1
    for text in claims[0].canonical_questions():
        assert claim_of(text).canonical_questions() == claims[0].canonical_questions()

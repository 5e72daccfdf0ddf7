"""Questions for findings are recognized in negated, short, colloquial and mixed wordings: guards apply to all."""

import pytest

from medical_vqa.models.questions.claims import claim_of
from medical_vqa.models.questions.findings import concerns_finding


@pytest.mark.parametrize(
    "question",
    [
        "Is there no pneumonia?",
        "Can we rule out a tumor?",
        "Can pneumonia be excluded?",
        "Is pneumonia absent?",
        "Are the lungs clear?",
        "Any signs of cancer?",
        "Tumor present?",
        "Pneumonia?",
        "Is it malignant?",
        "Is something wrong with the liver?",
        "Does the liver look okay?",
        "Is the liver normal or abnormal?",
        "Is the heart enlarged or normal?",
        "Is this normal or not?",
        "Is the rib broken?",
        "病人没有肺炎吗?",
        "排除肺炎",
        "肺有问题吗?",
        "肿瘤是恶性的吗?",
        "肺部正常还是异常?",
        "Is there 肿瘤?",
        "Does the patient have 肺炎?",
        "Is the 肝脏 healthy?",
        "How many lungs are abnormal?",
        "图中有多少个肺是异常的?",
        "What is the diagnosis?",
        "What is the most likely diagnosis?",
        "Give a differential diagnosis.",
        "What's wrong with this patient?",
        "What is the matter with the lung?",
        "What does the patient have?",
        "Which pathology is this?",
        "诊断是什么?",
        "病人得了什么病?",
    ],
)
def test_a_question_whether_something_is_abnormal_concerns_a_finding(question):
    assert concerns_finding(question)


@pytest.mark.parametrize(
    "question",
    [
        "How many kinds of abnormalities are there in this image?",
        "该图像中有多少种异常?",
        "Where is the tumor?",
        "Which organ is abnormal?",
        "Is the tumor hyperdense or hypodense?",
        "Can pneumonia be prevented by treatment?",
        "How is the disease treated after diagnosis?",
        "What is the modality?",
        "Is the liver visible?",
        "Is this a CT scan?",
        "肿瘤在哪里?",
        "肝脏的功能正常是什么?",
        "图中包含肝脏吗?",
    ],
)
def test_places_knowledge_and_presence_of_organs_do_not(question):
    assert not concerns_finding(question)


@pytest.mark.parametrize(
    ("question", "subject", "finding", "yes_means_normal"),
    [
        ("Are the lungs clear?", "the lungs", "", True),
        ("Is something wrong with the liver?", "the liver", "", False),
        ("病人没有肺炎吗?", "this image", "肺炎", True),
        ("肝脏无肿瘤吗?", "肝脏", "肿瘤", True),
        ("肺里有没有结节?", "肺", "结节", False),
        ("肺有问题吗?", "肺", "", False),
    ],
)
def test_negated_and_colloquial_claims_are_the_same_claims(question, subject, finding, yes_means_normal):
    claim = claim_of(question)
    assert (claim.subject, claim.finding, claim.yes_means_normal) == (subject, finding, yes_means_normal)
